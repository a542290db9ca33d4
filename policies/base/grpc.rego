# One gRPC call against one rule: `services` and `methods`.
package stockade.grpc

matches(operation) if {
	operation.service
	operation.method
}
