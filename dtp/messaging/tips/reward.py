"""A reward on the chain, locked to a one-time key: the key's holder signs a claim for an address, and anybody
may submit the claim.

The key signs without a network and has no coins, so no payment of gas ties it to its holder. A claim pays the
address that it names, whoever submits it, so nobody gains by submitting it first, except the relay fee.
"""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass
from typing import ClassVar, Final, Self

from dtp.chain import lock as lock_module
from dtp.chain.errors import ObjectMissing
from dtp.chain.model import SUI_COIN, Id, canonical_id, id_bytes
from dtp.chain.node.client import ChainClient
from dtp.chain.node.coins import coins_for
from dtp.chain.node.commands import Program
from dtp.chain.node.made import check_made
from dtp.errors import LocalError, PeerError
from dtp.identity import Identity, PeerId

#: The prefix of a claim as text.
CLAIM_PREFIX: Final = "dtpclaim1"
#: Bytes of a claim: lock, recipient and signature.
_CLAIM: Final = 32 + 32 + 64


class RewardError(LocalError):
    """A reward can't be locked, named or claimed this way; the text says what to do."""

    code: ClassVar[str] = "reward"


class ClaimForged(PeerError):
    """A claim is malformed, or isn't signed by the key that the reward is locked to. Nothing was submitted."""

    code: ClassVar[str] = "reward-claim-forged"


class RewardGone(PeerError):
    """There is no such reward: it was claimed or paid back, or never existed."""

    code: ClassVar[str] = "reward-gone"


@dataclass(frozen=True, slots=True)
class Claim:
    """A claim of a reward for an address, signed by the reward's key. Anybody may submit it; nobody can
    change the address."""

    lock: str
    recipient: str
    signature: bytes

    @classmethod
    def sign(cls, key: Identity, lock: Id, recipient: Id) -> Self:
        """Return the claim that pays a reward to an address. It needs no network. Raise `SuiNameError`."""
        release = lock_module.Release(canonical_id(lock), canonical_id(recipient))
        return cls(release.lock, release.recipient, key.sign(lock_module.release_bytes(release)))

    def is_by(self, key: bytes) -> bool:
        """True if this key, 32 bytes, has signed the claim."""
        release = lock_module.Release(self.lock, self.recipient)
        return PeerId(key).verify(self.signature, lock_module.release_bytes(release))

    @property
    def text(self) -> str:
        """The claim as text, to be passed to whoever submits it."""
        data = id_bytes(self.lock) + id_bytes(self.recipient) + self.signature
        return CLAIM_PREFIX + base64.urlsafe_b64encode(data).decode().rstrip("=")

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return the claim that `text` encodes. Raise `ClaimForged`."""
        told = text.strip().removeprefix(CLAIM_PREFIX)
        try:
            data = base64.b64decode(told + "=" * (-len(told) % 4), b"-_", validate=True)
        except (binascii.Error, ValueError):
            data = b""
        if len(data) == _CLAIM:
            found = cls(canonical_id(data[:32]), canonical_id(data[32:64]), data[64:])
            if found.text == text.strip():
                return found
        raise ClaimForged(
            f"this isn't a claim of a reward: it begins with {CLAIM_PREFIX}, and is a whole line"
        )


async def lock_reward(
    chain: ChainClient, key: PeerId, amount: int, *, deadline_ms: int, relay_fee: int = 0
) -> str:
    """Lock `amount` MIST to a one-time key, and return the id of the lock. After `deadline_ms` (Unix time)
    anybody may have it paid back to the payer. Whoever submits the claim gets `relay_fee` of the amount.

    Raise `RewardError`, and what `ChainClient.execute` raises.
    """
    if not 0 <= relay_fee < amount:
        raise RewardError("a reward is above 0, and above its relay fee")
    program = Program()
    money = await coins_for(chain, program, SUI_COIN, amount)
    made = lock_module.new_key_lock(program, money, key.key, relay_fee=relay_fee, deadline_ms=deadline_ms)
    lock_module.share(program, made)
    executed = await chain.execute(program)
    locked = chain.event_in(executed, lock_module.SCHEMA, lock_module.Locked)
    check_made(executed, locked.lock)
    return locked.lock


async def read_reward(chain: ChainClient, lock: Id) -> lock_module.Lock:
    """Return a reward that is locked to a key. Raise `RewardGone`, `RewardError` for a lock of another kind, and what
    `ChainClient.read` raises."""
    try:
        found = await chain.read(lock_module.SCHEMA, lock_module.Lock, lock)
    except ObjectMissing:
        raise RewardGone("there is no such reward: it was claimed, or paid back, or never was") from None
    if found.condition != lock_module.LockCondition.BY_KEY:
        raise RewardError(f"{found.id} opens by a secret: it isn't a reward for a key")
    return found


async def claim_reward(chain: ChainClient, claim: Claim) -> lock_module.LockClaimed:
    """Submit a claim, and pay its gas: the address in the claim gets the reward, and the sender the relay
    fee.

    A claim that the key hasn't signed isn't submitted, so it costs no gas. Raise `ClaimForged`, and what
    `read_reward` and `ChainClient.execute` raise.
    """
    found = await read_reward(chain, claim.lock)
    if not claim.is_by(found.commitment):
        raise ClaimForged("the key that the reward is locked to has not signed this claim")
    program = Program()
    lock_module.claim_by_key(program, claim.lock, claim.recipient, claim.signature)
    return chain.event_in(await chain.execute(program), lock_module.SCHEMA, lock_module.LockClaimed)


async def refund_reward(chain: ChainClient, lock: Id) -> None:
    """Pay an unclaimed reward back to its payer, after the deadline. Raise what `read_reward` and
    `ChainClient.execute` raise."""
    await read_reward(chain, lock)
    program = Program()
    lock_module.refund(program, lock)
    await chain.execute(program)
