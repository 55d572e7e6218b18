"""Sui's formats as plain values: no network, no keys, no node.

`dtp.sui.bytecode` reads compiled Move modules. Everything here turns bytes into frozen dataclasses or back
and is shared by the chain client and by the embedded node.
"""
