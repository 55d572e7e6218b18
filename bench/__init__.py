"""Benchmarks: `python -m bench` measures DTP and its rivals side by side and says which figures are met.

Only ratios within one run mean anything; absolute numbers hold for the machine named in the result.
"""

import sys
from pathlib import Path

# `python -m bench` looks into this checkout first, where `dtp` has no compiled core unless it was installed in place:
# what is installed is what is to be measured.
if sys.path and Path(sys.path[0] or ".").resolve() == Path(__file__).resolve().parents[1]:
    sys.path.append(sys.path.pop(0))
