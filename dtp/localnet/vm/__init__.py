"""The Move virtual machine of the embedded node: bytecode in, values, objects and events out. No IO, no clock.

Read `contract.py` for the seam to the node; `VM`, `Session`, `ObjectRuntime` and `GasMeter` are what a node uses.
"""
