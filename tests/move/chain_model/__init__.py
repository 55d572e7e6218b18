"""A second model of the Move packages, in plain Python, written from their documents and sources.

Everything is named: accounts by `str`, objects by names that the model gives them. A function of `World` is one
transaction: it changes the world and tells its events, or raises `Refused` and then has changed nothing.
`Writer` makes up transactions, `Played` executes them on the embedded node, `Comparison` looks for differences.
"""
