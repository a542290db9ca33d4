# One JSON-RPC call against one rule: `methods`.
package stockade.jsonrpc

matches(operation) if operation.method
