# One MCP message against one rule: `methods`, `tools`, `names` (of a resource or prompt) and `arguments`.
package stockade.mcp

matches(operation) if {
	operation.method
	operation.tool
	operation.name
	operation.arguments
}
