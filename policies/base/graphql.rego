# One GraphQL operation against one rule: `operations`, `names` and `fields` (of the root, aliases resolved).
package stockade.graphql

matches(operation) if {
	operation.operation
	operation.name
	operation.field
}
