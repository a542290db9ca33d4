# Decides whether a request may be sent on a permitted connection. See docs/rego-input.md for the input document.
#
# The matcher in front of this policy tries the patterns of rules: of each row it says which conditions hold. It leaves
# out rules that do not match, and where several match alike all but the first. What follows is decided here. A rule of
# `deny` always wins; where there is a list `allow`, only what one of its rules covers may pass; and of a message with
# several operations each must pass.
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

else := {"effect": "allow", "rule": covering(input.operations[0])[0]} if {
	judgeable
	every operation in input.operations { count(covering(operation)) > 0 }
}

# Requests of this protocol are judged as they are; the others by the operations that were read from them.
plain if input.protocol == "http"

# So is the opening of a WebSocket, whose messages bring their operations: with rules of `deny` that deny all of them, and
# rules of `allow` that could allow one.
plain if input.opening

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

denied := [r.id | some r in input.deny; http.matches(r)] if plain

else := [r.id |
	some operation in input.operations
	some o in operation.deny
	r := input.deny[o.rule]
	http.matches(r)
	operation_matches(o)
]

allowed := [r.id | some r in input.allow; http.matches(r)]

# The rules that cover an operation.
covering(operation) := [r.id |
	some o in operation.allow
	r := input.allow[o.rule]
	http.matches(r)
	operation_matches(o)
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
