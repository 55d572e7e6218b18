"""docs/messaging.md: its program runs, its tables are those of the code, and its vectors hold for a second reader."""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgpack
import pytest
from nacl.bindings import crypto_box_seal_open, crypto_scalarmult_base, crypto_sign_open

from dtp.identity import Card
from dtp.messaging.cards import ContactCard, safety_code, safety_number
from dtp.messaging.conversation.events import EventKind
from dtp.messaging.conversation.operations import Act, Operation
from dtp.messaging.ends.envelope import open_envelope
from dtp.messaging.ends.keys import DeviceKeys
from dtp.messaging.mailbox.protocol import MailboxOp, Refusal, encode, parse_answer, parse_request

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "messaging.md").read_text()
VECTORS: dict[str, Any] = json.loads((ROOT / "docs" / "vectors" / "messaging.json").read_text())


@pytest.mark.slow
def test_the_program_of_the_page_runs(tmp_path: Path) -> None:
    (program,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    done = subprocess.run(
        [sys.executable, "-P", "-c", program], capture_output=True, timeout=120, cwd=tmp_path, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "Bob see you at eight\n"


def test_the_tables_are_those_of_the_code() -> None:
    section = PAGE[PAGE.index("### The mailbox") : PAGE.index("### Events")]
    found = {
        int(number): name for number, name in re.findall(r"^\| (\d+) ([A-Z_]+) \|", section, re.MULTILINE)
    }
    assert found == {each.value: each.name for each in MailboxOp}
    codes = re.search(r"^Codes: (.*?)\. \*The device", PAGE, re.MULTILINE | re.DOTALL)
    assert codes is not None
    assert [int(each) for each in re.findall(r"(\d+) [a-z]", codes[1])] == [each.value for each in Refusal]
    for each in EventKind:
        assert f"{each.value} {each.name}" in PAGE
    for act in Act:
        assert f"{act.value} {act.name}" in PAGE


def signed(domain: str, key: bytes, signature: bytes, body: bytes) -> bool:
    """By libsodium, without anything of ours."""
    tag = bytes((len(domain),)) + domain.encode()
    return crypto_sign_open(signature + tag + body, key) == tag + body


def test_a_card_by_a_second_reader() -> None:
    data = bytes.fromhex(VECTORS["card"])
    body, signature, access = msgpack.unpackb(data)
    version, key, account, sequence, expires, name, mailboxes = msgpack.unpackb(body)
    assert signed("dtp.contact.v1", key, signature, body)
    assert (version, account, expires, len(access)) == (1, b"", 0, 16)
    card = ContactCard.parse(data)
    assert (card.key, card.sequence, card.name, list(card.mailboxes)) == (key, sequence, name, mailboxes)
    assert card.text == VECTORS["card_text"]


def test_a_safety_number_by_a_second_reader() -> None:
    found = []
    for each in ("card", "other_card"):
        key = msgpack.unpackb(msgpack.unpackb(bytes.fromhex(VECTORS[each]))[0])[1]
        digest = b"dtp.safety.v1" + key + key
        for _ in range(5200):
            digest = hashlib.sha512(digest + key).digest()
        found.append(digest[:32])
    found.sort()
    digits = " ".join(
        f"{int.from_bytes(one[at : at + 5], 'big') % 100_000:05}" for one in found for at in range(0, 30, 5)
    )
    cards = [ContactCard.parse(bytes.fromhex(VECTORS[each])) for each in ("card", "other_card")]
    assert digits == VECTORS["safety_number"] == safety_number(*cards)
    assert b"\1" + b"".join(found) == safety_code(*cards)


def test_keys_of_a_device_by_a_second_reader() -> None:
    data = bytes.fromhex(VECTORS["keys"])
    body, signature = msgpack.unpackb(data)
    version, device, instance, sequence, olm, sealing, fallback = msgpack.unpackb(body)
    assert version == 1
    assert signed("dtp.device.keys.v1", device, signature, body)
    told = DeviceKeys.parse(data)
    assert (told.device, told.instance, told.sequence) == (device, instance, sequence)
    assert (told.olm, told.sealing, told.fallback) == (olm, sealing, fallback)
    one_time = bytes.fromhex(VECTORS["one_time_key"])
    assert signed("dtp.device.onetime.v1", device, one_time[32:], device + instance + one_time[:32])


def test_an_envelope_by_a_second_reader() -> None:
    private = bytes.fromhex(VECTORS["sealing_private"])
    envelope = bytes.fromhex(VECTORS["envelope"])
    assert len(envelope) == 512
    assert envelope[0] == 1
    inside = crypto_box_seal_open(envelope[1:], crypto_scalarmult_base(private), private)
    size = int.from_bytes(inside[:4], "big")
    assert msgpack.unpackb(inside[4 : 4 + size]) == [bytes(range(32)), 1, b"an Olm message", b""]
    assert not inside[4 + size :].strip(b"\0")

    class Reader:
        static_public, static_private = crypto_scalarmult_base(private), private

    assert open_envelope(envelope, Reader()) == inside[4 : 4 + size]  # type: ignore[arg-type]


def test_hashes_by_a_second_reader() -> None:
    def blake(data: bytes, size: int, person: bytes = b"") -> str:
        return hashlib.blake2b(data, digest_size=size, person=person).hexdigest()

    assert blake(b"a" * 16, 16, b"dtp.access") == VECTORS["access_hash"]
    assert blake(b"piece", 32, b"dtp.piece") == VECTORS["piece_hash"]
    envelope = bytes.fromhex(VECTORS["envelope"])
    base = b"dtp.stamp.v1" + bytes(32) + hashlib.blake2b(envelope, digest_size=32).digest()
    stamped = hashlib.blake2b(base + bytes.fromhex(VECTORS["stamp"]), digest_size=32).digest()
    assert stamped[:1] == b"\0"


def test_requests_of_stamps_by_a_second_reader() -> None:
    def read(name: str) -> Any:
        data = bytes.fromhex(VECTORS[name])
        assert int.from_bytes(data[:4], "big") == len(data) - 4
        return msgpack.unpackb(data[4:])

    settings, reserve, needed = map(read, ("settings", "reserve", "stamp_needed"))
    assert settings == [7, 4, b"h" * 16, 16, 4]
    assert reserve == [8, 17, bytes(range(32)), 4, 1, b"s" * 16]
    assert needed == [9, 5, 0, 4]
    for told in (settings, reserve):
        assert encode(*told).hex() in (VECTORS["settings"], VECTORS["reserve"])
        assert parse_request(msgpack.packb(told)) == (told[0], MailboxOp(told[1]), told[2:])
    assert parse_answer(bytes.fromhex(VECTORS["stamp_needed"])[4:]) == (9, [Refusal.STAMP_NEEDED, 0, 4])


def test_an_operation_by_a_second_reader() -> None:
    data = bytes.fromhex(VECTORS["operation"])
    body, signature = msgpack.unpackb(data)
    version, act, author, device, subject, role, text, parents, nonce = msgpack.unpackb(body)
    assert signed("dtp.group.operation.v1", device, signature, body)
    assert (version, act, subject, role, text, parents, len(nonce)) == (1, 1, b"", 0, "choir", [], 8)
    assert author == device
    assert hashlib.blake2b(data, digest_size=32).hexdigest() == VECTORS["group"]
    assert Operation.parse(data).id.hex() == VECTORS["group"]


def test_a_retirement_by_a_second_reader() -> None:
    data = bytes.fromhex(VECTORS["retirement"])
    body, signature = msgpack.unpackb(data)
    version, act, author, device, subject, role, text, parents, nonce, card = msgpack.unpackb(body)
    assert signed("dtp.group.operation.v1", device, signature, body)
    assert (version, act, role, text, len(parents), len(nonce)) == (1, 9, 0, "", 2, 8)
    said, by = msgpack.unpackb(card)
    _, key, recovery, rotations, *_, devices = msgpack.unpackb(said)
    assert signed("dtp.card.v1", key, by, said)
    assert hashlib.blake2b(b"dtp.account.v1" + key + recovery, digest_size=32).digest() == author
    assert (rotations, [each for each, _ in devices]) == ([], [device])
    assert subject != device
    assert Operation.parse(data).card == Card.parse(card)
