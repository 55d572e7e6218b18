"""The embedded node's gRPC service: `sui.rpc.v2` on grpclib, with the message classes that pysui ships.

`Server(node)` serves a `dtp.localnet.node.LocalNode`; `Localnet` is a node with service, faucet and clock, as `dtp
localnet` and the fixtures for tests use it.
"""
