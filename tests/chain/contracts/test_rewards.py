"""Rewards for one-time keys: paid to the address that the key names, whoever submits that, and to nobody else."""

import pytest

from dtp.chain import ChainClient, KeySigner, Network, Program, lock, publish
from dtp.chain.errors import MoveAborted
from dtp.identity import Identity
from dtp.localnet.grpc.localnet import LocalnetThread
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

from ..conftest import run

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


@pytest.fixture
def still():
    """A node whose clock moves only when it is told to."""
    with LocalnetThread(now=lambda: 1_800_000_000_000) as localnet:
        yield localnet


@pytest.mark.parametrize("late", [0, 1])
def test_at_the_deadline_it_is_claimed_and_a_millisecond_later_it_is_paid_back(still, late):
    """Both are sent in that millisecond, the one that is refused before and after the other."""

    async def scenario():
        network = Network("localnet", (still.url,))
        owner, relayer = KeySigner.generate(), KeySigner.generate()
        named = KeySigner.generate().address
        for each in (owner, relayer):
            still.fund(each.address)
        async with ChainClient(network, owner, deployments=None) as chain:
            await publish(chain, "escrow")
            async with ChainClient(network, relayer, deployments=chain.deployments) as other:
                deadline = still.now_ms() + 10_000
                id = await lock_reward(chain, KEY.id, SUI, deadline_ms=deadline)
                still.advance_clock(deadline + late - still.now_ms())
                ends = [
                    lambda: claim_reward(other, Claim.sign(KEY, id, named)),
                    lambda: refund_reward(other, id),
                ]
                fits, refused = ends[late], ends[1 - late]
                before = [(await other.balance(each)).total for each in (named, owner.address, other.address)]
                with pytest.raises(MoveAborted) as aborted:
                    await refused()
                error = lock.LockError.DEADLINE_PASSED if late else lock.LockError.TOO_EARLY
                assert (aborted.value.error, aborted.value.simulated) == (error, True)
                assert (await other.balance(other.address)).total == before[2]  # not even gas
                await fits()
                with pytest.raises(RewardGone):
                    await refused()
                after = [(await other.balance(each)).total for each in (named, owner.address)]
                assert [now - then for now, then in zip(after, before[:2], strict=True)] == (
                    [0, SUI] if late else [SUI, 0]
                )
                assert still.now_ms() == deadline + late

    run(scenario())


@pytest.mark.parametrize("how", ["claim", "refund"])
def test_who_submits_has_what_the_lock_stored(client, wallet, net, how):
    """`docs/tips.md` has the figure: without any relay fee the gas costs less than that brings."""

    async def scenario():
        anybody = wallet()
        async with client(wallet()) as chain, client(anybody) as other:
            id = await lock_reward(chain, KEY.id, SUI, deadline_ms=soon(net))
            before = (await other.balance(anybody.address)).total
            if how == "claim":
                await claim_reward(other, Claim.sign(KEY, id, KeySigner.generate().address))
            else:
                net.advance_clock(200_000)
                await refund_reward(other, id)
            assert (await other.balance(anybody.address)).total - before == 492_564

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
