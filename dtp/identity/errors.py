"""What goes wrong with keys and their files."""

from __future__ import annotations

from dtp.errors import LocalError


class IdentityError(LocalError):
    """A key can't be used or a secret was about to leave; the message says what to do."""

    code = "identity"


class IdentityFileError(IdentityError):
    """An identity file can't be read or written; the message names the path and what to do."""

    code = "identity-file"


class IdentityFileMissing(IdentityFileError):
    """There is no identity file at this path."""

    code = "identity-missing"


class IdentityFileExists(IdentityFileError):
    """There is a file already and overwriting was not asked for."""

    code = "identity-exists"


class PassphraseNeeded(IdentityFileError):
    """The identity file is encrypted and no passphrase was given."""

    code = "passphrase-needed"


class PassphraseWrong(IdentityFileError):
    """The passphrase does not open the identity file."""

    code = "passphrase-wrong"
