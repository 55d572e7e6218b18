"""Published vectors: the Noise cipher functions as NIST's GCM paper and RFC 8439 have them."""

from __future__ import annotations

import re
from pathlib import Path

from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305
from cryptography.hazmat.primitives.poly1305 import Poly1305

from dtp.core import Buffer, LinkOpener, Sealer

CORE = Path(__file__).parents[2] / "dtp_core"
ZERO_KEY = bytes(32)
#: Four empty PADDING frames are 16 zero bytes: a plaintext that the papers have, too.
PADDING = (0, 0, 0, 0, b"")


def sealed(suite: str, paddings: int) -> str:
    buffer = Buffer(1000)
    length = Sealer(suite, ZERO_KEY).seal([PADDING] * paddings, buffer, 900)
    assert LinkOpener(suite, ZERO_KEY).open(buffer, 0, length) == (length, [], None)
    length = Sealer(suite, ZERO_KEY).seal([PADDING] * paddings, buffer, 900)
    return bytes(buffer.view[2:length]).hex()


# McGrew and Viega, "The Galois/Counter Mode of Operation", appendix B, cases 13 and 14 (AES-256).
# RFC 8439: key stream of A.1 case 2; the tag is checked below by the one-time Poly1305 key of A.4 case 1.
CHACHA_STREAM = (
    "9f07e7be5551387a98ba977c732d080dcb0f29a048e3656912c6533e32ee7aed"
    "29b721769ce64e43d57133b074d839d531ed1f28510afb45ace10a1f4b794d6f"
)
POLY1305_KEY = bytes.fromhex("76b8e0ada0f13d90405d6ae55386bd28bdd219b8a08ded1aa836efcc8b770dc7")


def chacha_record(paddings: int) -> str:
    """Ciphertext and tag, the MAC's input laid out as RFC 8439, 2.8 says."""
    ciphertext = bytes.fromhex(CHACHA_STREAM)[: 4 * paddings]
    padded = ciphertext + bytes(-len(ciphertext) % 16)
    mac_input = padded + bytes(8) + len(ciphertext).to_bytes(8, "little")
    return ciphertext.hex() + Poly1305.generate_tag(POLY1305_KEY, mac_input).hex()


VECTORS = {
    "AESGCM": {
        0: "530f8afbc74536b9a963b4f1c4cb738b",
        4: "cea7403d4d606b6e074ec5d3baf39d18d0d1c8a799996bf0265b98b5d48ab919",
    },
    "ChaChaPoly": {paddings: chacha_record(paddings) for paddings in (0, 3, 4, 16)},
}


def test_published_vectors(suite: str) -> None:
    for paddings, record in VECTORS[suite].items():
        assert sealed(suite, paddings) == record


def test_known_records_of_the_start_check() -> None:
    """The constants by which C judges a provider are what `cryptography` makes."""
    text = (CORE / "wire/cipher.c").read_text().split("known_records", 2)[1]
    block = text[: text.index("};")]
    rows = [
        bytes(int(b, 16) for b in re.findall(r"0x([0-9a-f]{2})\b", row))
        for row in re.findall(r"\{([^{}]+)\}", block)
    ]
    counter = 0x0102030405060708
    assert rows[1:] == [
        AESGCM(bytes(range(32))).encrypt(bytes(4) + counter.to_bytes(8, "big"), bytes(range(40)), None),
        ChaCha20Poly1305(bytes(range(32))).encrypt(
            bytes(4) + counter.to_bytes(8, "little"), bytes(range(40)), None
        ),
    ]
