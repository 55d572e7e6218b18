"""What programs do that run for long."""

import subprocess
import sys

PROGRAM = """
import gc
from dtp.cli.run import serve_for_long

before = gc.get_threshold()
serve_for_long()
assert gc.isenabled()
assert gc.get_freeze_count() > 1000
young, middle, old = gc.get_threshold()
assert young < before[0] and middle < before[1], "what is younger is gone through in small steps"
assert young * (middle + 2) * old >= 100 * before[0] * (before[1] + 2)
serve_for_long()
assert gc.get_threshold() == (young, middle, old)

full = []
gc.callbacks.append(lambda phase, info: phase == "start" and info["generation"] == 2 and full.append(info))
kept = [[] for _ in range(20 * young * middle)]
assert not full, "what is kept was gone through again and again"
kept += [[] for _ in range((old + 20) * (young + 1) * (middle + 2))]
assert full, "cycles would never be collected"
"""


def test_full_collections_are_rare_where_many_are_served():
    """Each goes through all that there is in one step, for which everybody waits."""
    done = subprocess.run(
        [sys.executable, "-P", "-c", PROGRAM], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
