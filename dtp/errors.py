"""Errors, by whose fault they are.

Every exception that leaves this package is a `DtpError`. Four families say who has to act:

- `LocalError`: yours. The call, the argument or the configuration is wrong; the message says what to do.
- `PeerError`: the other side's. It broke the protocol, refused, or is not who it should be.
- `CarrierError`: the network's. What moves the bytes failed; trying again may help.
- `ChainError`: the chain's. A node, a transaction or an object on Sui did not do what was asked.

Each class has a `code`, a short stable name for logs, `--json` output and tests. Foreign exceptions are
translated once, where the foreign library is called; anything else that escapes is a bug.
"""

from __future__ import annotations

from typing import ClassVar, TypeVar


class DtpError(Exception):
    """Base of all errors of this package."""

    code: ClassVar[str] = "error"


class LocalError(DtpError):
    """The caller's fault: a wrong argument, a call in the wrong state, a missing file."""

    code = "local"


class ConfigError(LocalError):
    """A configuration file or environment variable can't be used; the message names the place."""

    code = "config"


class LimitError(LocalError):
    """A limit of this side was reached (see `dtp.session.limits`); nothing was sent or lost."""

    code = "limit"


class PeerError(DtpError):
    """The peer's fault: it broke the protocol, refused, or isn't who it should be."""

    code = "peer"


class CarrierError(DtpError, ConnectionError):
    """The carrier's fault: the bytes could not be moved. Trying again, or elsewhere, may help."""

    code = "carrier"


class ChainError(DtpError):
    """The chain's fault: a node, a transaction or an object did not do what was asked."""

    code = "chain"


E = TypeVar("E", bound=DtpError)


def fresh(error: E) -> E:
    """Return a copy of an error that is kept, to be raised. One that was raised itself would keep, by its traceback,
    what was at work, which mostly has what keeps the error: only a collection frees that. What has ended is freed by
    counting references alone, or a flood of those that come and go fills memory until the next full collection."""
    copy = type(error).__new__(type(error))
    copy.args = error.args
    copy.__dict__.update(error.__dict__)
    copy.__cause__, copy.__suppress_context__ = error.__cause__, error.__suppress_context__
    return copy
