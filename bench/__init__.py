"""Benchmarks: `python -m bench` measures DTP and its rivals side by side and says which figures are met.

Only ratios within one run mean anything; absolute numbers hold for the machine named in the result.
"""

import sys
from pathlib import Path

# `python -m bench` and $PYTHONPATH put this checkout first, where `dtp` has no compiled core unless installed in
# place: what is installed is what is to be measured.
_ROOT = Path(__file__).resolve().parents[1]
sys.path[:] = [entry for entry in sys.path if Path(entry or ".").resolve() != _ROOT] + [str(_ROOT)]
