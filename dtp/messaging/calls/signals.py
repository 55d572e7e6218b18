"""The signals between devices about a call: an offer, that it rings, an answer, which device has the call, and the
end.

Source: docs/calls.md, "The format". A signal is sent as the fields of an event of kind CALL, sealed like any
message.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, ClassVar, Final

from dtp.carriers.nearness import Nearness
from dtp.errors import PeerError
from dtp.messaging.conversation.events import ID_BYTES, PERSON_BYTES

#: Bytes of a media description, at most: aiortc's, with audio, video and ten addresses, has 6,000.
MAX_DESCRIPTION_BYTES: Final = 16_384
#: Addresses ("candidates") in one description: the other end sends packets to each of them.
MAX_CANDIDATES: Final = 32
#: Media streams in one description, each with its own name (RFC 8843): audio, video, and some to spare.
MAX_SECTIONS: Final = 8
#: Characters of an address at a relay, at most.
MAX_RELAY: Final = 1024
#: The beginning of an address's line, and the index of the word after it that is the address.
_CANDIDATE: Final = "a=candidate:"
_HOST: Final = 4
#: The beginning of a stream's section in a description, and its name.
_SECTION: Final = re.compile(r"^m=", re.MULTILINE)
_NAME: Final = re.compile(r"^a=mid(?::(.*))?$", re.MULTILINE)
_GROUP: Final = re.compile(r"^a=group:(.*)$", re.MULTILINE)
_FINGERPRINT: Final = re.compile(
    r"^a=fingerprint:(sha-256|sha-384|sha-512) [0-9A-Fa-f:]{95,191}$", re.MULTILINE
)


class CallMalformed(PeerError):
    """A signal about a call is malformed, or describes media in an unsupported way."""

    code: ClassVar[str] = "call-signal"


class SignalAct(IntEnum):
    """The kind of a signal."""

    OFFER = 1
    RINGING = 2
    ANSWER = 3
    TAKEN = 4
    END = 5


class Reason(IntEnum):
    """Why a call has ended."""

    HUNG_UP = 1
    REFUSED = 2
    BUSY = 3
    NO_ANSWER = 4
    #: Another device of the same person has taken it.
    TAKEN = 5
    #: Media didn't get through, or broke off.
    FAILED = 6
    #: Both called each other at once, and the other call goes on.
    CROSSED = 7


#: Reasons of a caller's END that mean a missed call.
MISSED: Final = (Reason.HUNG_UP, Reason.NO_ANSWER, Reason.BUSY, Reason.FAILED)


@dataclass(frozen=True, slots=True)
class Signal:
    """One signal about one call. `device` is the device that has the call (TAKEN), and `reason` says why it ended
    (END).

    `relay` is the caller's address at a relay, for media that finds no direct way; "" for none.
    """

    call: bytes
    act: SignalAct
    description: str = ""
    device: bytes = b""
    reason: Reason | None = None
    relay: str = ""

    def to_fields(self) -> dict[str, Any]:
        """Return the signal as the fields of an event."""
        told: dict[str, Any] = {"call": self.call, "act": int(self.act)}
        if self.description:
            told["description"] = self.description
        if self.relay:
            told["relay"] = self.relay
        if self.device:
            told["device"] = self.device
        if self.reason is not None:
            told["reason"] = int(self.reason)
        return told

    @classmethod
    def parse(cls, fields: Mapping[str, Any]) -> Signal:
        """Return the signal that an event's fields encode. Raise `CallMalformed`."""
        try:
            act = SignalAct(fields["act"])
            reason = Reason(fields["reason"]) if act is SignalAct.END else None
        except (KeyError, ValueError):
            raise CallMalformed("a signal about a call has an unknown act or reason") from None
        call, device = fields["call"], fields.get("device", b"")
        if len(call) != ID_BYTES or (act is SignalAct.TAKEN) != (len(device) == PERSON_BYTES):
            raise CallMalformed("a signal about a call is malformed")
        description = fields.get("description", "")
        if act in (SignalAct.OFFER, SignalAct.ANSWER):
            check_description(description)
        elif description:
            raise CallMalformed("a signal about a call has a description that it must not have")
        relay = fields.get("relay", "")
        if len(relay) > MAX_RELAY or (relay and act is not SignalAct.OFFER):
            raise CallMalformed(
                "a signal about a call has an address at a relay that is too long, or that it must not have"
            )
        return cls(call, act, description, device, reason, relay)


def drop_near_addresses(told: str, own: Iterable[str]) -> str:
    """Return the other end's description without addresses that lead only to this machine, or to many (multicast).

    ICE never names such addresses. Whoever does would have packets sent to services of the machine that reads the
    description. They stay if all of this machine's `own` addresses are of this kind, since it is in no network
    then.
    """
    if all(Nearness.of_host(each) <= Nearness.MACHINE for each in own):
        return told
    lines = told.splitlines(keepends=True)
    return "".join(each for each in lines if not _leads_near(each))


def _leads_near(line: str) -> bool:
    if not line.startswith(_CANDIDATE):
        return False
    words = line.removeprefix(_CANDIDATE).split()
    return len(words) > _HOST and Nearness.of_host(words[_HOST]) <= Nearness.MACHINE


def check_description(told: str) -> None:
    """Raise `CallMalformed` for a media description that is too long, names no certificate, or has sections other
    than named audio and video.

    Each section is covered by a fingerprint. Without one, anybody could be the other end.
    """
    if len(told.encode("utf-8", "surrogatepass")) > MAX_DESCRIPTION_BYTES:
        raise CallMalformed("a description of media is too long")
    if told.count(_CANDIDATE) > MAX_CANDIDATES:
        raise CallMalformed(f"a description of media has more than {MAX_CANDIDATES} addresses")
    told = "\n".join(
        told.splitlines()
    )  # as aiortc splits lines: other line ends would hide a line from this check
    if not _FINGERPRINT.search(told):
        raise CallMalformed("a description of media without a certificate's fingerprint")
    _check_parts(told)


def _check_parts(told: str) -> None:
    """Raise `CallMalformed` for sections that are neither audio nor video, have no name, or are too many.

    aiortc accepts these, but can't close what it makes of them.
    """
    parts = _SECTION.split(told)[1:]
    told_names = [_NAME.findall(each) for each in parts]
    names = {each[0] for each in told_names if len(each) == 1 and each[0].split() == each}
    if not len(parts) == len(names) <= MAX_SECTIONS:
        raise CallMalformed(
            f"a description of media has at most {MAX_SECTIONS} parts, each with a name of its own"
        )
    if not all(each.startswith(("audio ", "video ")) for each in parts):
        raise CallMalformed("a description of media has a part that is neither audio nor video")
    groups = [each.split() for each in _GROUP.findall(told)]
    if not {name for each in groups if each[:1] == ["BUNDLE"] for name in each[1:]} <= names:
        raise CallMalformed("a description of media bundles parts that it doesn't have")
