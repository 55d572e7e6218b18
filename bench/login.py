"""`python -m bench.login`: logins by OPAQUE on one core, with store, limits, proofs and vault, beside the library.

Processor time of one process, medians. Both ends of a login are nearly the client's Argon2; the server's half is
apart.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import opaque_snake

from bench import machine
from dtp.identity import Identity
from dtp.messaging.login.conversation import LoginConversation, LoginServer, Moment
from dtp.messaging.login.limits import LoginLimits
from dtp.messaging.login.opaque import Login, Registration, prove
from dtp.messaging.login.protocol import Credential, Op, Slot, credential_id, registration_statement
from dtp.messaging.login.store import LoginStore
from dtp.messaging.login.vault import Vault, make_key, unwrap_key, wrap_key

NAME, PASSWORD = "alice", "correct horse battery"
SERVER = Identity.generate()


def library() -> Callable[[], tuple[float, float]]:
    """Return what logs in with the library alone: the processor's seconds of both ends, and of the server's."""
    server, client = opaque_snake.OpaqueServer(), opaque_snake.OpaqueClient()
    asked, state = client.start_registration(PASSWORD)
    answered = server.create_registration_response(asked, NAME)
    record = server.finish_registration(
        client.finish_registration(answered, state, PASSWORD).upload
    ).to_bytes()

    def work() -> tuple[float, float]:
        began = time.process_time()
        request, state = client.start_login(PASSWORD)
        first = time.process_time()
        kept = opaque_snake.PasswordFile.from_bytes(record)
        response, waiting = server.create_credential_response(request, NAME, kept)
        second = time.process_time()
        result = client.finish_login(response, state, PASSWORD)
        third = time.process_time()
        server.finish_login(result.finalization, waiting)
        ended = time.process_time()
        return ended - began, second - first + ended - third

    return work


def ours(folder: str) -> Callable[[], tuple[float, float]]:
    """Return what logs in to a server with a store on the disk, and opens the vault."""
    store = LoginStore(Path(folder) / "logins.sqlite", LoginLimits(account_tries=10**6, source_tries=10**6))
    server, who = LoginServer(store, SERVER.id), Identity.generate()
    conversation, account, key = LoginConversation(server, who.id, "here"), Identity.generate(), make_key()
    sealed, credentials = Vault(account).seal(key, NAME), []
    for slot in Slot:
        registration = Registration(PASSWORD)
        response = store.secrets.respond_to_registration(registration.request, credential_id(NAME, slot))
        record, export_key = registration.finish(response)
        credentials.append(Credential(slot, record, wrap_key(key, export_key, NAME, slot)))
    signature = account.sign(registration_statement(SERVER.id.key, NAME, credentials, sealed))

    def ask(op: Op, *fields: object) -> tuple[object, ...]:
        moment = Moment(time.monotonic(), time.time())
        code, *rest = server.answer(conversation, op, list(fields), moment)
        assert not code, code
        return tuple(rest)

    rows = [each.row() for each in credentials]
    ask(Op.REGISTER, NAME, b"", account.id.key, signature, rows, sealed)
    ends = (SERVER.id.key, who.id.key, NAME.encode())

    def work() -> tuple[float, float]:
        began = time.process_time()
        login = Login(PASSWORD)
        first = time.process_time()
        (response,) = ask(Op.LOGIN_START, NAME, 0, login.request)
        second = time.process_time()
        assert isinstance(response, bytes)
        finalization, session_key, export_key = login.finish(response)
        proof = prove(session_key, b"client", *ends)
        third = time.process_time()
        _, _, wrapped, _, kept, _ = ask(Op.LOGIN_FINISH, finalization, proof, 0)
        fourth = time.process_time()
        assert isinstance(wrapped, bytes)
        assert isinstance(kept, bytes)
        Vault.open(kept, unwrap_key(wrapped, export_key, NAME, 0), NAME)
        ended = time.process_time()
        return ended - began, second - first + fourth - third

    return work


def measure(folder: str, count: int) -> dict[str, float]:
    """Return logins in a second of the processor, and ratios: medians over `count` logins, turn by turn."""
    works = {"library": library(), "dtp": ours(folder)}
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in works}
    for _ in range(count):
        for name, work in works.items():
            taken[name].append(work())
    both = {name: 1 / statistics.median(one for one, _ in times) for name, times in taken.items()}
    half = {name: 1 / statistics.median(one for _, one in times) for name, times in taken.items()}
    return {
        "logins/s, both ends, the library alone": both["library"],
        "logins/s, both ends, with store, limits, proofs and vault": both["dtp"],
        "ratio": both["dtp"] / both["library"],
        "logins/s, the server's half, the library alone": half["library"],
        "logins/s, the server's half, with store, limits and proofs": half["dtp"],
        "ratio of the server's halves": half["dtp"] / half["library"],
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m bench.login", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a fifth of everything")
    parser.add_argument("--folder", help="where the store is; on the disk that is to be measured")
    parser.add_argument("--json", action="store_true", help="print JSON")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        load = os.getloadavg()[0]
        figures = measure(folder, 20 if arguments.quick else 100)
    if arguments.json:
        print(json.dumps({"load": load, "figures": figures}, indent=1))
        return
    print(f"load {load:.1f} before; {machine.facts()}\n")
    print("| | |\n|---|---|")
    for name, value in figures.items():
        print(f"| {name} | {value:,.2f} |" if value < 100 else f"| {name} | {value:,.0f} |")


if __name__ == "__main__":
    main()
