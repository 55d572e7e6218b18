"""The words with which the giver of a tip comes back: all keys are derived from them, and nothing else is
kept.

Source: docs/tips.md, "The words".
"""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Final

from dtp.identity import Identity
from dtp.messaging.mailbox.protocol import ACCESS_BYTES
from dtp.messaging.tips.errors import TipError, WordsWrong

if TYPE_CHECKING:
    from mnemonic import Mnemonic

#: Bytes that the words encode, and the number of words: BIP 39 adds a checksum of four bits.
ENTROPY_BYTES: Final = 16
COUNT: Final = 12


def _library() -> Mnemonic:
    try:
        from mnemonic import Mnemonic
    except ImportError:
        raise TipError("words of tips need a library: pip install 'dtp-sockets[tips]'") from None
    return Mnemonic("english")


@dataclass(frozen=True)
class TipWords:
    """The secret that twelve words encode. It needs no network: the same words give the same keys everywhere."""

    entropy: bytes = field(repr=False)

    @classmethod
    def generate(cls) -> TipWords:
        """Return new words, from the system's random generator."""
        return cls(secrets.token_bytes(ENTROPY_BYTES))

    @classmethod
    def parse(cls, text: str) -> TipWords:
        """Return the secret that words encode, in upper or lower case. Raise `WordsWrong`."""
        library, words = _library(), text.lower().split()
        if len(words) != COUNT:
            raise WordsWrong(f"a tip has {COUNT} words, and these are {len(words)}")
        for number, word in enumerate(words, 1):
            if word not in library.wordlist:
                raise WordsWrong(f"word {number} is not one that tips use: is it mistyped?")
        if not library.check(" ".join(words)):
            raise WordsWrong("these words don't belong together: one is another one, or two are exchanged")
        return cls(bytes(library.to_entropy(words)))

    @property
    def text(self) -> str:
        """The words, separated by spaces."""
        words: str = _library().to_mnemonic(self.entropy)
        return words

    @cached_property
    def key(self) -> Identity:
        """The key that signs the tip's letters and the claim of its reward; answers are sealed to its static key."""
        return Identity(self._derive_bytes(b"sign", 32), self._derive_bytes(b"seal", 32))

    @cached_property
    def device(self) -> Identity:
        """The identity that collects answers from mailboxes: another key, since the chain and the owner see
        the tip's."""
        return Identity(self._derive_bytes(b"post", 32), self._derive_bytes(b"dial", 32))

    @cached_property
    def access(self) -> bytes:
        """The secret by which the mailbox knows the line's owner."""
        return self._derive_bytes(b"access", ACCESS_BYTES)

    @cached_property
    def upload_secret(self) -> bytes:
        """The secret from which the keys of attachments are derived."""
        return self._derive_bytes(b"files", 32)

    def _derive_bytes(self, what: bytes, size: int) -> bytes:
        return hashlib.blake2b(what, key=self.entropy, digest_size=size, person=b"dtp.tip.words").digest()
