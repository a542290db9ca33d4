# What every rule may say about an HTTP request, whatever the protocol inside it.
package stockade.http

matches(rule) if {
	method(rule)
	rule.path
	rule.query
	rule.headers
}

method(rule) if not rule.methods

method(rule) if input.request.method in rule.methods
