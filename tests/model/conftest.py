"""The reader of frames that is written from docs/graph.md lives with the tests of frames."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1] / "crdt"))
