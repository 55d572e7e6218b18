"""What both demos raise."""

from __future__ import annotations

from dtp.errors import DtpError


class DemoFailed(DtpError):
    """The demo did not do what it is there to show."""

    code = "demo"
