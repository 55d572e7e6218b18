"""Half of a surrogate pair, which a string of Python may have and no UTF-8: whoever takes text names it."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from dtp.broadcast.format.announcement import Announcement
from dtp.chain.host_state import service_number
from dtp.errors import DtpError, PeerError
from dtp.gossip.message import check_topic
from dtp.gossip.sealing import TopicKey
from dtp.identity import Account, Identity
from dtp.identity.card import Device
from dtp.identity.pem import encrypted_pem
from dtp.identity.presence import PresenceStatement
from dtp.messaging.cards import ContactCard
from dtp.messaging.conversation.events import Event, EventKind
from dtp.messaging.conversation.operations import Act, Operation
from dtp.messaging.login.store import invitation_hash
from dtp.messaging.tips.letter import TipLetter
from dtp.packing import pack
from dtp.peers.dht.ids import mutable_target
from dtp.peers.dht.records import Mutable
from dtp.peers.private import PrivateNetwork
from dtp.peers.record import PeerRecord
from dtp.session.frames import CloseFrame, build_close
from dtp.sui.bcs import STRING
from dtp.unicode import TextNotUnicode, encode_text

#: As `json.loads` gives it, and a command line that isn't UTF-8.
WRONG = [json.loads(r'"wrong \ud800 half"'), b"wrong \xff byte".decode(errors="surrogateescape")]
ME = Identity(bytes(range(32)), bytes(32))
OTHER = Identity(bytes(range(1, 33)), bytes(32))
HASH = bytes(32)

TAKE_TEXT: dict[str, Callable[[str], Any]] = {
    "a topic": check_topic,
    "a topic's key": lambda text: TopicKey("topic", 8 * text),
    "a key of a private network": PrivateNetwork.parse,
    "a device's label": lambda text: Account.create(ME, OTHER.id, [Device(ME.id.key, text)]),
    "a card's name": lambda text: ContactCard(ME.id.key, None, 1, 0, text, ()).signed_by(ME),
    "a message": lambda text: Event(EventKind.TEXT, HASH, 0, 0, {"text": text}).encode(),
    "a group": lambda text: Operation.sign(ME, HASH, Act.CREATE, text=text),
    "a tip": lambda text: TipLetter(HASH, HASH, text).sign(ME),
    "where a tip is rewarded": lambda text: TipLetter(HASH, HASH, "", lock=text).sign(ME),
    "an invitation to a login": invitation_hash,
    "a show's title": lambda text: Announcement.sign(ME, HASH, time_ms=0, title=text),
    "a record in the DHT": lambda text: Mutable.sign(ME, b"", name=text, sequence=1, now=1.0),
    "a name in the DHT": lambda text: mutable_target(HASH, text),
    "a service of a peer": lambda text: PeerRecord.sign(ME, now=1.0, services=[text]),
    "a hint where a service is": lambda text: PresenceStatement(ME.id, "0x1", 1, 1, 1, 2, (text,)),
    "a service on the chain": service_number,
    "text in a transaction": STRING.encode,
    "a passphrase": lambda text: encrypted_pem(b"", text),
}


@pytest.mark.parametrize("text", WRONG, ids=["JSON", "bytes"])
@pytest.mark.parametrize("take", TAKE_TEXT.values(), ids=TAKE_TEXT)
def test_whoever_takes_text_says_that_it_is_none(take: Callable[[str], Any], text: str) -> None:
    with pytest.raises(DtpError, match="half of a surrogate pair at index"):
        take(text)


@pytest.mark.parametrize("text", WRONG, ids=["JSON", "bytes"])
def test_a_connection_closes_whatever_the_reason_says(text: str) -> None:
    assert b"wrong ? " in build_close(CloseFrame(1, text))[-1]


def test_the_error_is_the_callers_own_kind_and_says_where() -> None:
    assert encode_text("plain \N{SNOWMAN}") == b"plain \xe2\x98\x83"
    with pytest.raises(TextNotUnicode, match=r"^the title has half of a surrogate pair at index 6"):
        encode_text(WRONG[0], "the title")
    with pytest.raises(PeerError, match=r"^it has half"):
        encode_text(WRONG[0], "it", PeerError)
    with pytest.raises(TextNotUnicode):
        pack({"name": WRONG})
