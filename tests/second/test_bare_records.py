"""Records in which nothing is for the session: no read of them is one long step, and key changes have a bound."""

import pytest

from dtp.core import RECORDS_OF_FRAME, Buffer
from dtp.session.codes import CloseCode
from dtp.session.handshake import HandshakeConfig
from dtp.session.limits import DEFAULT
from dtp.session.noise import Suite
from dtp.session.session import Session
from dtp.testing.pairs import ALICE, BOB, shake_hands

from .wire import RecordSealer, Type, frame

MOST = 100


def sealed(keys: bytes, text: bytes, many: int) -> bytes:
    """So many records with this plaintext, of a client with these keys."""
    sealer, records = RecordSealer("25519_ChaChaPoly_SHA256", keys), []
    for _ in range(many):
        records.append(sealer.seal(text))
        if text == frame(Type.REKEY):
            sealer.rekey()
    return b"".join(records)


def server() -> tuple[Session, bytes]:
    """A session of a server, and the key that its client sends under."""
    suite = Suite.CHACHAPOLY_SHA256
    client, ours = shake_hands(HandshakeConfig(ALICE, (suite,)), HandshakeConfig(BOB, (suite,)), suite=suite)
    return Session(ours, DEFAULT, 0.0, client=False), client.split.send


@pytest.mark.parametrize("text", [b"", frame(Type.PADDING), frame(Type.REKEY)])
def test_a_read_of_them_takes_many_steps(text: bytes) -> None:
    session, key = server()
    data = sealed(key, text, 16 * MOST * RECORDS_OF_FRAME if text != frame(Type.REKEY) else 20 * MOST)
    buffer = Buffer(len(data))
    buffer.view[:] = data
    at, steps = 0, 0
    while at < len(data):
        used, weight = session.receive_records(session.link, buffer, at, len(data), 1.0, MOST)
        assert used == len(data) or weight > MOST
        at, steps = used, steps + 1
    assert steps >= 4
    assert session.ended is None


def test_changing_keys_all_the_time_ends_the_session() -> None:
    """Each costs its reader as much as a frame, and nobody honest does it often."""
    session, key = server()
    data = sealed(key, frame(Type.REKEY), DEFAULT.idle_frames + DEFAULT.idle_frame_rate + MOST)
    buffer = Buffer(len(data))
    buffer.view[:] = data
    session.receive_records(session.link, buffer, 0, len(data), 1.0)
    assert session.ended is not None
    assert session.ended.close_code == CloseCode.LIMIT
