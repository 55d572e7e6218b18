"""Merging of property graphs: ours, other libraries, and a plain dict, on the same work. `python -m bench.graph`."""
