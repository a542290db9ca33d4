# Decides whether a request may be sent on a permitted connection. See docs/rego-input.md for the input document.
#
# The matcher in front of this policy leaves out only rules that cannot match, and tries their patterns: of each row it
# says which conditions hold. What follows from that is decided here. A rule of `deny` always wins; where there is a
# list `allow`, only what one of its rules covers may pass; and of a message with several operations each must pass.
package stockade.request

import data.stockade.graphql
import data.stockade.grpc
import data.stockade.http
import data.stockade.jsonrpc
import data.stockade.mcp

default decision := {"effect": "deny", "reason": "l7"}

decision := {"effect": "deny", "reason": "policy_deny", "rule": denied[0]} if count(denied) > 0

else := {"effect": "allow"} if {
	judgeable
	not input.allow
}

else := {"effect": "allow", "rule": allowed[0]} if {
	judgeable
	plain
	count(allowed) > 0
}

else := {"effect": "allow", "rule": covering[0][0]} if {
	judgeable
	count(covering) > 0
	every rules in covering { count(rules) > 0 }
}

# Requests of these protocols are judged as they are; the others by the operations that were read from them.
plain if input.protocol == "http"

judgeable if {
	plain
	startswith(input.request.path, "/")
}

# `OPTIONS *` asks about the server, and no rule about paths can mean it.
judgeable if {
	plain
	input.request == {"method": "OPTIONS", "path": "*"}
	not input.allow
}

judgeable if {
	input.protocol in {"grpc", "graphql", "jsonrpc", "mcp"}
	startswith(input.request.path, "/")
	count(input.operations) > 0
	every o in input.operations { o.protocol == input.protocol }
}

denied := [r.id | some r in input.deny; http.matches(r); takes_away(r)]

takes_away(_) if plain

takes_away(r) if {
	some o in r.operations
	operation_matches(o)
}

allowed := [r.id | some r in input.allow; http.matches(r)]

# For each operation the rules that cover it.
covering := [rules |
	some i, _ in input.operations
	rules := [r.id | some r in input.allow; http.matches(r); operation_matches(r.operations[i])]
]

operation_matches(o) if {
	input.protocol == "grpc"
	grpc.matches(o)
}

operation_matches(o) if {
	input.protocol == "graphql"
	graphql.matches(o)
}

operation_matches(o) if {
	input.protocol == "jsonrpc"
	jsonrpc.matches(o)
}

operation_matches(o) if {
	input.protocol == "mcp"
	mcp.matches(o)
}
