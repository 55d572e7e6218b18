"""Embedded Sui-compatible node for development and tests: Move machine, object store, gRPC service."""
