"""What a daemon tells of itself: logs, requests, figures."""

from __future__ import annotations

from typing import Final

#: What a daemon goes on without, and says so: the status has `..._up` of each that it uses, and `..._trouble`, why it
#: is away. With its name.
LEANED_ON: Final = {"state": "state", "chain": "chain", "vouchers": "store of vouchers"}
