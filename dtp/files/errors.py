"""What can go wrong with a file, by name and by whose fault. Each has the code that the other side is told."""

from __future__ import annotations

from typing import ClassVar

from dtp.errors import LocalError, PeerError


class FileProblem(LocalError):
    """A file here can't be read or written; the message names it and says why."""

    code = "file"
    refusal: ClassVar[str] = "io"


class FileExists(FileProblem):
    """Another file of this name is here and was left as it is."""

    code = "file-exists"
    refusal = "exists"


class FileMissing(FileProblem):
    """There is no file of this name to give."""

    code = "file-missing"
    refusal = "missing"


class FileBusy(FileProblem):
    """Another transfer is writing this file now."""

    code = "file-busy"
    refusal = "busy"


class NoSpace(FileProblem):
    """The disk is too full. What came before is kept as `NAME.dtp-part`: make room and run it again."""

    code = "no-space"
    refusal = "space"


class FileChanged(FileProblem):
    """The file changed while it was being sent. Send it again: what arrived is compared before it is used."""

    code = "file-changed"
    refusal = "changed"


class NameRefused(PeerError, ValueError):
    """A file name that could leave its folder, hide, or drive a terminal. Nothing was opened."""

    code = "file-name"
    refusal: ClassVar[str] = "name"


class FileTransferError(PeerError):
    """The other side broke the file protocol or ended in the middle of it."""

    code = "file-protocol"
    refusal: ClassVar[str] = "protocol"


class NotTheSame(FileTransferError):
    """What was received has another digest than what was sent. It was thrown away."""

    code = "file-hash"
    refusal = "hash"


class TransferRefused(PeerError):
    """The other side won't take or give the file: `.refusal` is its code, `.reason` its words (not to be trusted)."""

    code = "file-refused"

    def __init__(self, refusal: str, reason: str) -> None:
        super().__init__(f"the peer refused the file ({refusal}): {reason}" if reason else
                         f"the peer refused the file ({refusal})")  # fmt: skip
        self.refusal = refusal
        self.reason = reason
