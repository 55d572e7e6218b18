"""Tickets and shares bought on this machine, stored so that `dtp show listen` can name them: the producer then
finds them even if strangers have sent the account thousands of worthless ones."""

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
        """Add a ticket. Raise `ConfigError` if the folder can't be written."""
        try:
            make_private_folder(self._folder)
            self.path_of(account, ticket).touch(mode=0o600)
        except OSError as fault:
            raise ConfigError(f"can't write to {self._folder}: {fault.strerror}") from fault

    def remove_ticket(self, account: Id, ticket: Id) -> None:
        """Remove a ticket, if it is here. Raise `ConfigError` if the folder can't be written."""
        try:
            self.path_of(account, ticket).unlink(missing_ok=True)
        except OSError as fault:
            raise ConfigError(f"can't write to {self._folder}: {fault.strerror}") from fault

    def list_newest(self, account: Id) -> list[str]:
        """Return an account's latest tickets, newest first, as many as one request to a producer can name. Raise
        `ConfigError` if the folder can't be read."""
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
    """Return the tickets of a show that were bought on this machine."""
    return BoughtTickets(data_dir() / "shows", show)
