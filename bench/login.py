"""`python -m bench.login`: logins by OPAQUE on one core, with store, limits, proofs and vault, beside the library.

Processor time of one process, medians. Both ends of a login are nearly the client's Argon2. The server's half is
apart: many logins begin, then all clients compute, then all end, so that no Argon2 empties the server's caches.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any, Protocol

import opaque_snake

from bench import report
from dtp.identity import Identity
from dtp.messaging.login.conversation import LoginConversation, LoginServer, Moment
from dtp.messaging.login.limits import LoginLimits
from dtp.messaging.login.opaque import OpaqueLogin, Registration, make_proof
from dtp.messaging.login.protocol import Credential, LoginOp, Slot, credential_id, registration_statement
from dtp.messaging.login.store import LoginStore
from dtp.messaging.login.vault import Vault, make_key, unwrap_key, wrap_key

NAME, PASSWORD = "alice", "correct horse battery"
SERVER, CLIENT = Identity.generate(), Identity.generate()
ENDS = (SERVER.id.key, CLIENT.id.key, NAME.encode())
#: Logins that begin before any of them ends.
TOGETHER = 20


class Way(Protocol):
    """A way to log in, in four steps: of a client, a server, the client and the server again."""

    def ask(self) -> Any: ...

    def begin(self, asked: Any) -> Any: ...

    def answer(self, asked: Any, begun: Any) -> Any: ...

    def finish(self, begun: Any, answered: Any) -> Any: ...

    def open(self, answered: Any, finished: Any) -> None: ...


class Library:
    """The library alone, with a record in memory."""

    def __init__(self) -> None:
        self.server, self.client = opaque_snake.OpaqueServer(), opaque_snake.OpaqueClient()
        asked, state = self.client.start_registration(PASSWORD)
        answered = self.server.create_registration_response(asked, NAME)
        upload = self.client.finish_registration(answered, state, PASSWORD).upload
        self.record = self.server.finish_registration(upload).to_bytes()

    def ask(self) -> Any:
        return self.client.start_login(PASSWORD)

    def begin(self, asked: Any) -> Any:
        record = opaque_snake.PasswordFile.from_bytes(self.record)
        return self.server.create_credential_response(asked[0], NAME, record)

    def answer(self, asked: Any, begun: Any) -> Any:
        return self.client.finish_login(begun[0], asked[1], PASSWORD)

    def finish(self, begun: Any, answered: Any) -> Any:
        return self.server.finish_login(answered.finalization, begun[1])

    def open(self, answered: Any, finished: Any) -> None:
        assert finished.session_key == answered.session_keys.session_key


class Ours:
    """A server with a store on the disk, each login a conversation of its own; and the vault that it opens."""

    def __init__(self, folder: str) -> None:
        limits = LoginLimits(account_tries=10**6, source_tries=10**6)
        store = LoginStore(Path(folder) / "logins.sqlite", limits)
        self.server, account, key = LoginServer(store, SERVER.id), Identity.generate(), make_key()
        sealed, credentials = Vault(account).seal(key, NAME), []
        for slot in Slot:
            registration = Registration(PASSWORD)
            response = store.secrets.respond_to_registration(registration.request, credential_id(NAME, slot))
            record, export_key = registration.finish(response)
            credentials.append(Credential(slot, record, wrap_key(key, export_key, NAME, slot)))
        signature = account.sign(registration_statement(SERVER.id.key, NAME, credentials, sealed))
        rows = [each.to_row() for each in credentials]
        self._ask(self._conversation(), LoginOp.REGISTER, NAME, b"", account.id.key, signature, rows, sealed)

    def _conversation(self) -> LoginConversation:
        return LoginConversation(self.server, CLIENT.id, "here")

    def _ask(self, conversation: LoginConversation, op: LoginOp, *fields: Any) -> list[Any]:
        code, *rest = self.server.answer_request(
            conversation, op, list(fields), Moment(time.monotonic(), time.time())
        )
        assert not code, code
        return rest

    def ask(self) -> Any:
        return OpaqueLogin(PASSWORD)

    def begin(self, asked: Any) -> Any:
        conversation = self._conversation()
        return conversation, self._ask(conversation, LoginOp.LOGIN_START, NAME, 0, asked.request)[0]

    def answer(self, asked: Any, begun: Any) -> Any:
        finalization, session_key, export_key = asked.finish(begun[1])
        return finalization, make_proof(session_key, b"client", *ENDS), export_key

    def finish(self, begun: Any, answered: Any) -> Any:
        return self._ask(begun[0], LoginOp.LOGIN_FINISH, *answered[:2], 0)

    def open(self, answered: Any, finished: Any) -> None:
        _, _, wrapped, _, sealed, _ = finished
        Vault.open(sealed, unwrap_key(wrapped, answered[2], NAME, 0), NAME)


def logins(way: Way) -> tuple[float, float]:
    """Return the processor's seconds of a login, both ends, and of the server's half of it."""
    marks = [time.process_time()]

    def mark() -> None:
        marks.append(time.process_time())

    asked = [way.ask() for _ in range(TOGETHER)]
    mark()
    begun = [way.begin(each) for each in asked]
    mark()
    answered = [way.answer(*each) for each in zip(asked, begun, strict=True)]
    mark()
    finished = [way.finish(*each) for each in zip(begun, answered, strict=True)]
    mark()
    for each in zip(answered, finished, strict=True):
        way.open(*each)
    mark()
    server = marks[2] - marks[1] + marks[4] - marks[3]
    return (marks[-1] - marks[0]) / TOGETHER, server / TOGETHER


def measure(folder: str, turns: int) -> dict[str, float]:
    """Return logins in a second of the processor, and ratios: medians over turns."""
    ways: dict[str, Way] = {"library": Library(), "dtp": Ours(folder)}
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    for _ in range(turns):
        for name, way in ways.items():
            taken[name].append(logins(way))
    both = {name: 1 / statistics.median(one for one, _ in times) for name, times in taken.items()}
    half = {name: 1 / statistics.median(one for _, one in times) for name, times in taken.items()}
    return {
        "logins/s, both ends, the library alone": both["library"],
        "logins/s, both ends, with store, limits, proofs and vault": both["dtp"],
        "ratio": both["dtp"] / both["library"],
        "logins/s, the server's half, the library alone": half["library"],
        "logins/s, the server's half, with store, limits and proofs": half["dtp"],
        "ratio of the server's halves": half["dtp"] / half["library"],
        "time of a login that begins for a name that there isn't, to one that there is": oracle(
            folder, turns
        ),
    }


def oracle(folder: str, turns: int) -> float:
    """Return how much longer a login takes to begin for a name that there isn't than for one that there is."""
    way, taken = Ours(str(Path(folder) / "oracle")), {NAME: 0.0, "nobody": 0.0}
    request = OpaqueLogin("a guess").request
    for name in [NAME, "nobody"] * (200 * turns):
        conversation = LoginConversation(way.server, CLIENT.id, "here")
        began = time.process_time()
        way.server.answer_request(conversation, LoginOp.LOGIN_START, [name, 0, request], Moment(0.0, 0.0))
        taken[name] += time.process_time() - began
    return taken["nobody"] / taken[NAME]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m bench.login", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a fifth of everything")
    parser.add_argument("--folder", help="where the store is; on the disk that is to be measured")
    parser.add_argument("--json", action="store_true", help="print JSON")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        load = os.getloadavg()[0]
        figures = measure(folder, 2 if arguments.quick else 10)
    report.print_figures(figures, load, as_json=arguments.json)


if __name__ == "__main__":
    main()
