"""Benchmarks: `python -m bench` measures DTP and its rivals side by side and says which figures are met.

Only ratios within one run mean anything; absolute numbers hold for the machine named in the result.
"""
