"""`python -m bench.messaging`: messages sealed and opened, mailboxes, from sending to reading, groups by mailbox; one
process. Larger groups go by topics: `python -m bench.messaging_spread`.

All stores are on the disk (`--folder`), synced with each transaction. The ratchet alone (`vodozemac`) runs in the
same run: what the rest costs is the ratio.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import dtp
from bench import report
from dtp.identity import Identity
from dtp.messaging.conversation.events import Event, EventKind
from dtp.messaging.ends.device import LocalDevice
from dtp.messaging.ends.envelope import Sealed, open_envelope
from dtp.messaging.ends.keys import KeyBundle
from dtp.messaging.ends.peer import RemoteDevice
from dtp.messaging.mailbox import (
    MAILBOX_SERVICE,
    Mailbox,
    MailboxClient,
    MailboxLimits,
    MailboxStore,
    SqliteMailbox,
    Tray,
    open_store,
)
from dtp.messaging.mailbox.store import Deposit, access_hash
from dtp.messaging.person.desk import SEALED_AT_ONCE, Desk
from dtp.messaging.person.messenger import Messenger

#: A folder in memory, where there is such a place: how fast the disk is isn't asked there.
MEMORY = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
TEXT = "x" * 256
ACCESS = b"a" * 16
RESULTS = Path(__file__).parent / "results"


def rate(count: int, work: Callable[[], object], clock: Callable[[], float] = time.perf_counter) -> float:
    """Return how many of `count` things `work` does in a second of `clock`."""
    began = clock()
    work()
    return count / (clock() - began)


def now_ms() -> int:
    """Return Unix time in ms."""
    return int(time.time() * 1000)


def ratchet(count: int) -> float:
    """Return messages of 256 B that vodozemac alone encrypts and decrypts in a second of the processor."""
    from vodozemac import Account

    here, there = Account(), Account()
    there.generate_one_time_keys(1)
    (key,) = there.one_time_keys.values()
    one = here.create_outbound_session(there.curve25519_key, key)
    first = one.encrypt(b"x").to_pre_key()
    assert first is not None
    other, _ = there.create_inbound_session(here.curve25519_key, first)
    one.decrypt(other.encrypt(b"x"))

    def work() -> None:
        for _ in range(count):
            other.decrypt(one.encrypt(TEXT.encode()))

    return rate(count, work, time.process_time)


def sealed_and_opened(folder: str, count: int, together: int) -> tuple[float, float]:
    """Return messages that one desk keeps and seals and another opens and keeps, `together` in a transaction: in a
    second, and in a second of the processor."""
    alice, bob = (Desk(f"{folder}/{name}{together}", Identity.generate(), now_ms()) for name in "ab")
    keys, (one_time,) = bob.keys_to_publish(1, now_ms())
    device = bob.identity.id.key
    alice.begin_session(device, KeyBundle.parse(keys, one_time, device=device, now_ms=now_ms()))

    def work() -> None:
        known = {alice.identity.id.key, bob.identity.id.key}.__contains__
        for start in range(0, count, together):
            with alice.transaction():
                for _ in range(min(together, count - start)):
                    event = Event(EventKind.TEXT, device, 1, now_ms(), {"text": TEXT})
                    alice.enqueue_event([device], event)
            while sealed := alice.seal_due(now_ms()):
                with bob.store.transaction():
                    got = bob.open_envelopes([each.envelope for each in sealed], now_ms(), known)
                assert len(got.payloads) == len(sealed)
                answer = bob.seal_answer(alice.identity.id.key)
                assert answer is not None
                with alice.store.transaction():
                    alice.open_envelopes([answer.envelope], now_ms(), known)

    cpu = time.process_time()
    found = rate(count, work)
    cpu = count / (time.process_time() - cpu)
    alice.close()
    bob.close()
    return found, cpu


def registered(store: MailboxStore, identity: Identity) -> None:
    """Have a mailbox keep things for a device."""
    local = LocalDevice.create_instance(identity, os.urandom(16), now_ms())
    store.publish_keys(identity.id.key, local.keys.sequence, local.keys.encoded, [])
    store.set_access(identity.id.key, access_hash(ACCESS), 0)


def mailbox_store(store: MailboxStore, count: int) -> tuple[float, float]:
    """Return envelopes of 1 KiB that a store keeps durably, 64 in a transaction, and that are fetched, a second."""
    identity = Identity.generate()
    registered(store, identity)
    now, key = int(time.time()), identity.id.key
    deposits = [Deposit(key, os.urandom(1024), 1000, ACCESS) for _ in range(count)]

    def keep() -> None:
        for start in range(0, count, 64):
            store.add_envelopes(deposits[start : start + 64], now)

    def fetch() -> None:
        after = 0
        while kept := store.fetch_envelopes(key, Tray.KNOWN, after, 256, 1 << 20):
            after = kept[-1].id

    found = rate(count, keep), rate(count, fetch)
    store.close()
    return found


async def mailbox_over_tcp(folder: str, count: int) -> tuple[float, float]:
    """Return the same over connections on loopback, both ends in this process: 64 requests at once."""
    limits = MailboxLimits(deposits=10**9)
    box, identity = Mailbox(SqliteMailbox(f"{folder}/tcp", limits)), Identity.generate()
    registered(box.store, identity)
    key = identity.id.key
    envelopes = [os.urandom(1024) for _ in range(count)]
    async with await dtp.listen(
        "tcp://127.0.0.1:0", {MAILBOX_SERVICE: box.serve}, identity=Identity.generate()
    ) as listener:
        address = listener.address(MAILBOX_SERVICE)
        anybody = await MailboxClient.connect(address)
        room = asyncio.Semaphore(64)

        async def deposit(envelope: bytes) -> None:
            async with room:
                await anybody.deposit_envelope(key, envelope, seconds=1000, access=ACCESS)

        began = time.perf_counter()
        await asyncio.gather(*map(deposit, envelopes))
        stored = count / (time.perf_counter() - began)
        device = await MailboxClient.connect(address, identity=identity)
        began, after = time.perf_counter(), 0
        while kept := await device.fetch_envelopes(after=after):
            after = kept[-1].id
        fetched = count / (time.perf_counter() - began)
        await anybody.close()
        await device.close()
    await box.stop()
    box.store.close()
    return stored, fetched


async def send_to_read(folder: str, count: int) -> list[float]:
    """Return seconds from `send` until the other's program has each of `count` messages, one after the other."""
    box = Mailbox(SqliteMailbox(f"{folder}/latency", MailboxLimits(deposits=10**9)))
    took = []
    async with await dtp.listen(
        "tcp://127.0.0.1:0", {MAILBOX_SERVICE: box.serve}, identity=Identity.generate()
    ) as listener:
        at = [str(listener.address(MAILBOX_SERVICE))]
        alice = Messenger(
            identity=Identity.generate(), store=f"{folder}/alice", mailboxes=at, read_receipts=False
        )
        bob = Messenger(
            identity=Identity.generate(), store=f"{folder}/bob", mailboxes=at, read_receipts=False
        )
        async with alice, bob:
            await alice.wait_reached()
            await bob.wait_reached()
            contact = await alice.add_contact(bob.card)
            messages = aiter(bob)
            for _ in range(count):
                began = time.perf_counter()
                await alice.send(contact, TEXT)
                message = await anext(messages)
                took.append(time.perf_counter() - began)
                await message.mark_read()
    await box.stop()
    box.store.close()
    return took[1:]


def sync_time(folder: str) -> float:
    """Return the seconds, p50, until 4 KiB that were written are on the disk that `folder` is on."""
    took = []
    with Path(folder, "synced").open("wb", buffering=0) as file:
        for _ in range(100):
            file.write(os.urandom(4096))
            began = time.perf_counter()
            os.fdatasync(file.fileno())
            took.append(time.perf_counter() - began)
    return statistics.median(took)


def group(folder: str, members: int) -> tuple[float, float]:
    """Return processor seconds to keep and seal one message for so many others, and that each takes to open it."""
    desk = Desk(f"{folder}/group", Identity.generate(), now_ms())
    others = []
    for _ in range(members):
        identity = Identity.generate()
        local = LocalDevice.create_instance(identity, os.urandom(16), now_ms())
        desk.begin_session(identity.id.key, KeyBundle(local.keys))
        others.append(local)
    event = Event(EventKind.TEXT, bytes(32), 1, now_ms(), {"text": TEXT})
    began = time.process_time()
    with desk.transaction():
        desk.enqueue_event([each.key for each in others], event)
    sealed = []
    while batch := desk.seal_due(now_ms()):
        sealed += batch
    sender = time.process_time() - began
    by_device = {each.key: each for each in others}
    began = time.process_time()
    for each in sealed:
        local = by_device[each.device]
        inside = Sealed.parse(open_envelope(each.envelope, local.identity))
        assert RemoteDevice(inside.sender).open_sealed(local, inside).payloads
    opened = (time.process_time() - began) / len(sealed)
    desk.close()
    return sender, opened


def fill(path: str, count: int, connected: int) -> list[Identity]:
    """Give a mailbox's file `count` recipients with an envelope each. Return those of them that will connect."""
    store = SqliteMailbox(path, MailboxLimits(recipients=10**6))
    local = LocalDevice.create_instance(Identity.generate(), os.urandom(16), now_ms())
    present = [Identity.generate() for _ in range(connected)]
    devices = [each.id.key for each in present] + [os.urandom(32) for _ in range(count - connected)]
    for device in devices:
        store.publish_keys(device, 1, local.keys.encoded, [])
        store.set_access(device, access_hash(ACCESS), 0)
    store.add_envelopes([Deposit(each, os.urandom(512), 1000, ACCESS) for each in devices], int(time.time()))
    store.close()
    return present


async def mailbox_memory(count: int, connected: int) -> float:
    """Return the MiB of a process that serves a mailbox with `count` recipients, so many of them connected.

    The file is in memory that isn't the process's, where there is such a place: how fast the disk is isn't asked.
    """
    with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
        present = fill(f"{folder}/many", count, connected)
        command = (sys.executable, "-m", "bench.messaging_side", f"{folder}/many")
        process = await asyncio.create_subprocess_exec(
            *command, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
        )
        assert process.stdin is not None
        assert process.stdout is not None
        async with asyncio.timeout(120):
            address = (await process.stdout.readline()).decode().strip()
            clients = []
            for identity in present:
                clients.append(await MailboxClient.connect(address, identity=identity))
                await clients[-1].watch_tray(Tray.KNOWN)
            status = await asyncio.to_thread(Path(f"/proc/{process.pid}/status").read_text)
            for each in clients:
                await each.close()
            process.stdin.close()
            await process.wait()
    (resident,) = [line.split()[1] for line in status.splitlines() if line.startswith("VmRSS:")]
    return int(resident) / 1024


def other_store(url: str, *, quick: bool) -> dict[str, float]:
    """Return the figures of a mailbox in PostgreSQL or JetStream."""
    stored, fetched = mailbox_store(open_store(url), 4000 if quick else 20_000)
    return {
        f"{urlsplit(url).scheme}: stored durably, 1 KiB, envelopes/s": stored,
        f"{urlsplit(url).scheme}: fetched, envelopes/s": fetched,
    }


def measure(folder: str, *, quick: bool) -> dict[str, Any]:
    """Return all figures."""
    scale = 1 if quick else 5
    took = asyncio.run(send_to_read(folder, 40 * scale))
    with tempfile.TemporaryDirectory(dir=MEMORY) as unsynced:
        in_memory = asyncio.run(send_to_read(unsynced, 40 * scale))
    stored, fetched = mailbox_store(SqliteMailbox(f"{folder}/store"), 4000 * scale)
    stored_tcp, fetched_tcp = asyncio.run(mailbox_over_tcp(folder, 2000 * scale))
    sender, opened = group(folder, 63)
    together, together_cpu = sealed_and_opened(folder, 1280 * scale, SEALED_AT_ONCE)
    single, single_cpu = sealed_and_opened(folder, 100 * scale, 1)
    return {
        "ratchet alone, messages a second of the processor": ratchet(4000 * scale),
        f"sealed, opened, stored, {SEALED_AT_ONCE} together, a second of the processor": together_cpu,
        f"sealed, opened, stored, {SEALED_AT_ONCE} together, a second": together,
        "sealed, opened, stored, one by one, a second of the processor": single_cpu,
        "sealed, opened, stored, one by one, a second": single,
        "send to read, with all stores in memory, p50, ms": statistics.median(in_memory) * 1000,
        "... one sync of 4 KiB to the disk of the next two, of which they wait for four, p50, ms": sync_time(
            folder
        )
        * 1000,
        "send to read, p50, ms": statistics.median(took) * 1000,
        "send to read, p99, ms": statistics.quantiles(took, n=100)[98] * 1000,
        "mailbox: stored durably, 1 KiB, envelopes/s": stored,
        "mailbox: fetched, envelopes/s": fetched,
        "mailbox over TCP, both ends: stored, envelopes/s": stored_tcp,
        "mailbox over TCP, both ends: fetched, envelopes/s": fetched_tcp,
        "group of 64, by mailbox: processor time of the sender, ms": sender * 1000,
        "group of 64, by mailbox: processor time of each member, ms": opened * 1000,
        f"mailbox with {20_000 * scale:,} recipients, {200 * scale:,} connected, MiB": asyncio.run(
            mailbox_memory(20_000 * scale, 200 * scale)
        ),
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m bench.messaging", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a fifth of everything")
    parser.add_argument("--folder", help="where stores are; on the disk that is to be measured")
    parser.add_argument("--store", help="measure only a mailbox there: postgresql://... or nats://..., empty")
    parser.add_argument("--json", action="store_true", help="print JSON")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        load = os.getloadavg()[0]
        if arguments.store:
            figures = other_store(arguments.store, quick=arguments.quick)
        else:
            figures = measure(folder, quick=arguments.quick)
    report.print_figures(figures, load, as_json=arguments.json)


if __name__ == "__main__":
    main()
