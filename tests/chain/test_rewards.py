"""Rewards for one-time keys: paid to the address that the key names, whoever submits that, and to nobody else."""

import pytest

from dtp.chain import KeySigner, lock
from dtp.chain.errors import MoveAborted
from dtp.identity import Identity
from dtp.messaging.tips.reward import (
    CLAIM_PREFIX,
    Claim,
    ClaimForged,
    RewardError,
    RewardGone,
    claim_reward,
    lock_reward,
    read_reward,
    refund_reward,
)

from .conftest import run

KEY = Identity(bytes([7]) * 32, bytes([8]) * 32)
SUI = 10**9


def soon(net):
    return net.now_ms() + 100_000


def test_a_relayer_submits_and_a_front_runner_gains_nothing_but_the_fee(client, wallet, net):
    async def scenario():
        owner, relayer, thief = wallet(), wallet(), wallet()
        named = KeySigner.generate().address  # never seen on the chain before
        async with client(owner) as chain:
            id = await lock_reward(chain, KEY.id, SUI, deadline_ms=soon(net), relay_fee=SUI // 100)
        claim = Claim.parse(Claim.sign(KEY, id, named).text)
        async with client(thief) as chain:
            for forged in (
                Claim(claim.lock, thief.address, claim.signature),  # the same signature, for itself
                Claim.sign(Identity.generate(), id, thief.address),
            ):
                before = (await chain.balance(thief.address)).total
                with pytest.raises(ClaimForged):
                    await claim_reward(chain, forged)
                assert (await chain.balance(thief.address)).total == before  # not even gas
            done = await claim_reward(chain, claim)  # it was faster than the relayer
            assert (done.recipient, done.amount, done.relay_fee) == (named, SUI - SUI // 100, SUI // 100)
            assert (await chain.balance(named)).total == SUI - SUI // 100
        async with client(relayer) as chain:
            with pytest.raises(RewardGone):
                await claim_reward(chain, claim)
            assert (await chain.balance(KEY.id.sui_address)).total == 0  # the key itself never had a coin

    run(scenario())


def test_the_chain_refuses_what_a_relayer_would_not_have_submitted(client, wallet, net):
    async def scenario():
        thief = wallet()
        async with client(wallet()) as chain:
            id = await lock_reward(chain, KEY.id, SUI, deadline_ms=soon(net))
            named = Claim.sign(KEY, id, KeySigner.generate().address)
        from dtp.chain import Program

        async with client(thief) as chain:
            program = Program()
            lock.claim_by_key(program, id, thief.address, named.signature)
            with pytest.raises(MoveAborted) as aborted:
                await chain.execute(program)
            assert aborted.value.error is lock.LockError.BAD_SIGNATURE

    run(scenario())


def test_a_claim_is_for_one_reward(client, wallet, net):
    async def scenario():
        async with client(wallet()) as chain:
            first, second = [await lock_reward(chain, KEY.id, SUI, deadline_ms=soon(net)) for _ in range(2)]
            claim = Claim.sign(KEY, first, KeySigner.generate().address)
            with pytest.raises(ClaimForged):
                await claim_reward(chain, Claim(second, claim.recipient, claim.signature))
            await claim_reward(chain, claim)
            with pytest.raises(RewardGone):
                await claim_reward(chain, claim)

    run(scenario())


def test_what_is_not_claimed_is_paid_back(client, wallet, net):
    async def scenario():
        owner = wallet()
        async with client(owner) as chain, client(wallet()) as anybody:
            id = await lock_reward(chain, KEY.id, SUI, deadline_ms=soon(net))
            assert (await read_reward(chain, id)).balance == SUI
            with pytest.raises(MoveAborted) as aborted:
                await refund_reward(anybody, id)
            assert aborted.value.error is lock.LockError.TOO_EARLY
            net.advance_clock(200_000)
            before = (await chain.balance(owner.address)).total
            await refund_reward(anybody, id)
            assert (await chain.balance(owner.address)).total == before + SUI
            with pytest.raises(RewardGone):
                await claim_reward(chain, Claim.sign(KEY, id, owner.address))

    run(scenario())


def test_a_reward_is_above_its_fee(client, wallet, net):
    async def scenario():
        async with client(wallet()) as chain:
            for amount, fee in ((0, 0), (5, 5), (5, -1)):
                with pytest.raises(RewardError):
                    await lock_reward(chain, KEY.id, amount, deadline_ms=soon(net), relay_fee=fee)
            with pytest.raises(RewardGone):
                await read_reward(chain, "0x123")

    run(scenario())


def test_texts_that_are_no_claim():
    text = Claim.sign(KEY, "0x1", "0x2").text
    assert Claim.parse(f" {text}\n") == Claim.sign(KEY, "0x1", "0x2")
    for bad in (
        "",
        CLAIM_PREFIX,
        text[:-4],
        text + "AAAA",
        text.removeprefix(CLAIM_PREFIX),
        text[:-1] + "\u00fc",
        text[:40] + "+" + text[41:],
    ):
        with pytest.raises(ClaimForged):
            Claim.parse(bad)
