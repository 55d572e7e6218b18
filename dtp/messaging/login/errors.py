"""The errors of logins, by whose fault they are."""

from __future__ import annotations

from typing import ClassVar

from dtp.errors import LocalError, PeerError


class LoginError(LocalError):
    """A login can't be tried this way; the text says what to do."""

    code: ClassVar[str] = "login"


class NameUnusable(LoginError, ValueError):
    """A text can't be the name of an account, or can't be a password."""

    code: ClassVar[str] = "login-name"


class LoginFailed(LocalError):
    """The name or the password is wrong: a server doesn't say which, nor whether there is an account."""

    code: ClassVar[str] = "login-failed"


class LoginMalformed(PeerError):
    """A server or its client has sent a malformed message, or isn't who it claims to be."""

    code: ClassVar[str] = "login-malformed"


class VaultBroken(PeerError):
    """A vault doesn't open with the account's key: the server has changed it, or has sent another one."""

    code: ClassVar[str] = "vault-broken"


class VaultRolledBack(PeerError):
    """A server has sent an older vault than was seen here; `given` and `seen` are the versions. It was restored
    from a backup, or withholds the newer one.
    """

    code: ClassVar[str] = "vault-older"

    def __init__(self, given: int, seen: int) -> None:
        super().__init__(
            f"the server gives version {given} of the vault, and {seen} was seen here: it was restored from a "
            "backup, or holds the newer one back"
        )
        self.given, self.seen = given, seen
