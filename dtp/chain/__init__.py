"""Sui: the Move packages that ship with dtp, and what talks to them.

`dtp.chain.packages` holds the compiled packages and their names; nothing there needs a network.
"""
