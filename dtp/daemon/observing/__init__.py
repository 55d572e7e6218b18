"""What a daemon reports about itself: logs, requests, metrics."""

from __future__ import annotations

from typing import Final

#: What a daemon can run without, with its name in messages. For each that it uses, the status has `..._up`, and
#: `..._trouble`, which says why it is unavailable.
LEANED_ON: Final = {"state": "state", "chain": "chain", "vouchers": "store of vouchers"}
