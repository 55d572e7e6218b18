"""The tickets and shares that were bought on this machine, kept so that `dtp show listen` can name them: the producer
finds what is named also where strangers have sent the account thousands of worthless ones."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from dtp.broadcast.messages import MAX_CLAIMS
from dtp.chain.model import Id, canonical_id, id_bytes
from dtp.config import data_dir
from dtp.errors import ConfigError
from dtp.identity.private import make_private_folder


class BoughtTickets:
    """The tickets of one show in a folder: an empty file for each, since several commands may add some at once."""

    def __init__(self, folder: str | os.PathLike[str], show: Id) -> None:
        self._folder = Path(folder) / f"{id_bytes(show).hex()}.tickets"

    def add_ticket(self, account: Id, ticket: Id) -> None:
        """Keep one more. Raise `ConfigError` where the folder can't be written."""
        try:
            make_private_folder(self._folder)
            self.path_of(account, ticket).touch(mode=0o600)
        except OSError as fault:
            raise ConfigError(f"can't write to {self._folder}: {fault.strerror}") from fault

    def remove_ticket(self, account: Id, ticket: Id) -> None:
        """Forget one, if it is here. Raise `ConfigError` where the folder can't be written."""
        try:
            self.path_of(account, ticket).unlink(missing_ok=True)
        except OSError as fault:
            raise ConfigError(f"can't write to {self._folder}: {fault.strerror}") from fault

    def list_newest(self, account: Id) -> list[str]:
        """Return those of an account that were bought last, the last one first: as many as one question to a producer
        names. Raise `ConfigError` where the folder can't be read."""
        found = list[tuple[float, str]]()
        try:
            for each in self._folder.glob(f"{canonical_id(account)}.0x*"):
                with contextlib.suppress(FileNotFoundError):  # another command has removed it meanwhile
                    found.append((each.stat().st_mtime, each.suffix[1:]))
        except OSError as fault:
            raise ConfigError(f"can't read {self._folder}: {fault.strerror}") from fault
        return [ticket for _, ticket in sorted(found, reverse=True)][:MAX_CLAIMS]

    def path_of(self, account: Id, ticket: Id) -> Path:
        """Return the path of the file that stands for this ticket."""
        return self._folder / f"{canonical_id(account)}.{canonical_id(ticket)}"


def bought_here(show: Id) -> BoughtTickets:
    """Return what was bought of a show on this machine."""
    return BoughtTickets(data_dir() / "shows", show)
