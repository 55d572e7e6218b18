"""What talks to a node: the client, its wire, transactions, gas and networks."""
