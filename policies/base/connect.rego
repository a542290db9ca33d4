# Decides whether a connection may be opened. See docs/rego-input.md for the input document.
#
# The host index in front of this policy only leaves out candidates that cannot match; it never decides. Candidates
# come most specific first (a written-out host, then one label, then the longest `**`), and the first that matches
# names the terms of the connection.
package stockade.base

default decision := {"effect": "deny", "rule": "default", "reason": "no_policy"}

decision := {"effect": "deny", "rule": "reserved", "reason": reserved} if reserved

else := {"effect": "allow", "endpoint": matching[0]} if count(matching) > 0

# Host and port are covered, but only for certain executables.
else := {"effect": "deny", "rule": covering[0], "reason": stranger} if count(covering) > 0

covering := [c.endpoint | some c in input.candidates; port_matches(c); host_matches(c)]

matching := [c.endpoint | some c in input.candidates; port_matches(c); host_matches(c); caller_matches(c)]

port_matches(c) if input.destination.port in c.ports

host_matches(c) if c.host == input.destination.host

# `*.parent`: one label more than the parent has.
host_matches(c) if {
	c.wildcard == "one"
	input.destination.labels == c.labels + 1
	endswith(input.destination.host, c.suffix)
}

# `**.parent`: one label more, or many.
host_matches(c) if {
	c.wildcard == "many"
	input.destination.labels > c.labels
	endswith(input.destination.host, c.suffix)
}

caller_matches(c) if not c.callers

caller_matches(c) if {
	some id in input.caller.matched
	id in c.callers.binaries
	ancestors_match(c)
	script_matches(c)
}

ancestors_match(c) if not c.callers.ancestors

# The chain must be known whole, and every process of it must run one of the executables too.
ancestors_match(c) if {
	c.callers.ancestors
	is_array(input.caller.ancestors)
	every process in input.caller.ancestors {
		some id in process.matched
		id in c.callers.binaries
	}
}

script_matches(c) if not c.callers.scripts

script_matches(c) if input.caller.script in c.callers.scripts

stranger := "identity_unresolved" if not input.caller

stranger := "identity_no_match" if input.caller

# Names with a meaning of their own, and what is below them: no endpoint, no audit mode and no learning reaches them.
# The first test of each fails for nearly every name, and is cheap.
reserved := "ssrf_metadata" if {
	endswith(input.destination.host, "metadata.google.internal")
	is_or_below("metadata.google.internal", ".metadata.google.internal")
}

reserved := "ssrf_always_blocked" if {
	endswith(input.destination.host, "localhost")
	is_or_below("localhost", ".localhost")
}

reserved := "not_available" if {
	endswith(input.destination.host, "inference.local")
	is_or_below("inference.local", ".inference.local")
}

reserved := "not_available" if {
	endswith(input.destination.host, "stockade.local")
	is_or_below("stockade.local", ".stockade.local")
}

is_or_below(name, _) if input.destination.host == name

is_or_below(_, suffix) if endswith(input.destination.host, suffix)
