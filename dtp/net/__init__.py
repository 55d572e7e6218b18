"""Where session, carrier and asyncio meet: connections, streams, listeners, addresses and resolvers."""
