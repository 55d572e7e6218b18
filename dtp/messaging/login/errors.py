"""What goes wrong with logins, by whose fault it is."""

from __future__ import annotations

from typing import ClassVar

from dtp.errors import LocalError, PeerError


class LoginError(LocalError):
    """A login can't be asked for this way; the text says what to do."""

    code: ClassVar[str] = "login"


class NameUnusable(LoginError, ValueError):
    """A text is not a name of an account, or no password."""

    code: ClassVar[str] = "login-name"


class LoginFailed(LocalError):
    """The name or the password is wrong: a server doesn't say which, nor whether there is an account."""

    code: ClassVar[str] = "login-failed"


class LoginMalformed(PeerError):
    """A server, or whoever logs in, has sent what can't be read, or isn't who it says it is."""

    code: ClassVar[str] = "login-malformed"


class VaultBroken(PeerError):
    """A vault doesn't open with the account's key: the server has changed it, or gives another one."""

    code: ClassVar[str] = "vault-broken"


class VaultRolledBack(PeerError):
    """A server gives an older vault than was seen here: `given` and `seen` are the versions. It was restored from a
    backup, or holds the newer one back."""

    code: ClassVar[str] = "vault-older"

    def __init__(self, given: int, seen: int) -> None:
        super().__init__(
            f"the server gives version {given} of the vault, and {seen} was seen here: it was restored from a "
            "backup, or holds the newer one back"
        )
        self.given, self.seen = given, seen
