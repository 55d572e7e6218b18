"""Programs that move money: who is paid how, what is refused before anything is sent."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from dtp.chain import Program
from dtp.chain.channel import ChannelState, Claimed, Settled
from dtp.chain.errors import InsufficientFunds, NodeRefused, NodeUnavailable, ProgramError, was_signed
from dtp.chain.host import Terms
from dtp.chain.model import SUI_COIN
from dtp.pay import messages, settling
from dtp.pay.claims import Action, Decision, View
from dtp.pay.errors import ChannelUnusable
from dtp.pay.settling import Settlement, close_agreed, finalize, opened_in, settle, settle_program
from dtp.pay.store import Sold

from ..clients import MovingOne, functions
from ..meters import CHANNEL, KEY, lock_of, voucher
from .test_claims import channel, lane

PREIMAGE = bytes(range(32))
OTHER_COIN = "0x2::other::COIN"


def decision(action: Any = Action.CLAIM, *, preimage: Any = PREIMAGE, coin: Any = None) -> Any:
    terms = Terms() if coin is None else Terms(coin=coin)
    made = channel(terms=terms, lanes=(lane(),))
    lock = lock_of(PREIMAGE) if preimage is not None else None
    sold = (Sold(CHANNEL, 0, KEY.sign(voucher(1, 5, hash_lock=lock)), preimage),)
    return Decision(View(made, sold), action, sold, 5000)


def test_a_locked_voucher_is_claimed_with_its_key() -> None:
    for preimage in (PREIMAGE, None):
        program = settle_program(SimpleNamespace(address="0x5"), [decision(preimage=preimage)])
        given = [each.data for each in program.inputs if hasattr(each, "data")]
        assert (bytes((32,)) + PREIMAGE in given) is (preimage is not None)


@pytest.mark.parametrize(
    ("account", "coin", "called"),
    [
        ("0x5", None, "claim"),  # into the coin that pays the gas
        ("0x5", OTHER_COIN, "claim_for"),
        ("0x6", None, "claim_for"),
        ("0x6", OTHER_COIN, "claim_for"),
    ],
)
def test_who_claims_how(account: Any, coin: Any, called: Any) -> None:
    program = settle_program(SimpleNamespace(address=account), [decision(coin=coin)])
    assert functions(program)[-1] == called


@pytest.mark.parametrize(("account", "released"), [("0x5", True), ("0x6", False)])
def test_only_the_server_releases(account: Any, released: Any) -> None:
    program = settle_program(SimpleNamespace(address=account), [decision(Action.RELEASE)])
    assert ("release" in functions(program)) is released


class Chain(MovingOne):
    """A chain that notes what was executed."""

    def __init__(self, address: str = "0xc", coins: Any = ()) -> None:
        self.address, self.programs, self._coins = address, [], coins

    async def execute(self, program: Any) -> Any:
        self.programs.append(functions(program))
        return self.executed(program)

    async def coins(self, account: Any, coin: Any) -> Any:
        return [SimpleNamespace(id=f"0x{at + 1}", balance=each) for at, each in enumerate(self._coins)]


def test_what_waits_or_is_over_is_no_transaction() -> None:
    chain = Chain("0x6")
    waiting = [decision(Action.WAIT), decision(Action.FORGET)]
    assert asyncio.run(settle(chain, waiting, 8)) == []
    # For a watcher that can't release, and has nothing to claim, neither.
    nothing = Decision(View(channel()), Action.RELEASE)
    assert asyncio.run(settle(chain, [nothing], 8)) == []
    assert chain.programs == []


class PoorChain(Chain):
    """A chain where each claim takes 12 ahead, and brings what `gains` says of its deposit, less 7 of gas."""

    def __init__(self, funds: Any, limit: int = 1000, address: str = "0x5") -> None:
        super().__init__(address)
        self.funds, self.limit, self.tried, self.paid = funds, limit, 0, []

    async def execute(self, program: Any) -> Any:
        self.tried += 1
        claims = sum(each in ("claim", "claim_for") for each in functions(program))
        if 12 * claims > self.limit:
            raise ProgramError("over max_gas")
        if 12 * claims > self.funds:
            raise InsufficientFunds("too little")
        self.paid.append(claims)
        self.funds += sum(20 if each == "claim" else 0 for each in functions(program)) - 7 * claims
        return self.executed(program)


@pytest.mark.parametrize(
    ("funds", "coins", "paid", "tried"),
    [
        (5 * 12, [None] * 20, [5, 5, 5, 5], 6),  # what the first bring pays for the others
        (12, [None] * 3, [1, 1, 1], 4),
        (2 * 12, [OTHER_COIN] * 3 + [None], [2, 2], 3),  # first what pays for more
        (2 * 12, [OTHER_COIN] * 20, [2], 6),  # ... and as much as there is, where nothing does
    ],
)
def test_a_small_wallet_claims_what_it_can_pay_for(
    caplog: pytest.LogCaptureFixture, funds: Any, coins: Any, paid: Any, tried: Any
) -> None:
    chain, decisions = PoorChain(funds), [decision(coin=each) for each in coins]
    done = asyncio.run(settle(chain, decisions, 128))
    assert (chain.paid, chain.tried) == (paid, tried)
    assert sum(len(part) for _, part in done) == sum(paid)
    assert ("too little" in caplog.text) is (sum(paid) < len(coins))


def test_a_wallet_for_nothing_says_so_soon() -> None:
    chain = PoorChain(11)
    with pytest.raises(InsufficientFunds):
        asyncio.run(settle(chain, [decision() for _ in range(100)], 64))
    assert chain.tried == 7  # 64, 32, ... 1


def test_a_node_that_names_ever_older_transactions_is_asked_so_often_and_no_more() -> None:
    """It could count versions down from 2^63, and a key was looked for as long."""
    asked = []

    class Counting:
        async def object(self, channel: str, version: int = 2**63) -> Any:
            asked.append(version)
            return SimpleNamespace(id=channel, version=version, previous_transaction=f"t{version}")

        async def transaction(self, digest: str) -> Any:
            change = SimpleNamespace(id=CHANNEL, input_version=asked[-1] - 1)
            return SimpleNamespace(digest=digest, changes=(change,))

        def events_in(self, *_: Any) -> tuple[()]:
            return ()

    with pytest.raises(
        NodeRefused, match=f"{CHANNEL} was in more than 10,000 transactions: ask another node"
    ):
        asyncio.run(settling.key_on_chain(Counting(), CHANNEL, bytes(32)))
    assert len(asked) == settling.MOST_LOOKED_THROUGH + 1


def test_a_channel_with_many_lanes_keeps_nobody_from_being_claimed() -> None:
    chain, many = PoorChain(2 * 12), decision()
    many = replace(many, lanes=many.lanes * 16, gain=10**9)
    asyncio.run(settle(chain, [many, *(decision() for _ in range(4))], 16))
    assert chain.paid == [2, 2, 4, 4, 8]  # the others, and then its lanes


def test_what_is_too_much_for_a_transaction_is_parted() -> None:
    chain = PoorChain(10**6, limit=3 * 12)
    asyncio.run(settle(chain, [decision() for _ in range(8)], 128))
    assert chain.paid == [2, 2, 2, 2]


@pytest.mark.parametrize(
    ("account", "state", "destroyed"),
    [
        ("0xc", ChannelState.CLOSED, True),
        ("0xc", ChannelState.DRAINING, False),
        ("0x5", ChannelState.CLOSED, False),
    ],
)
def test_a_client_deletes_its_channel_when_it_is_empty(account: Any, state: Any, destroyed: Any) -> None:
    chain = Chain(account)
    chain.state = state
    made = channel(terms=Terms(coin=OTHER_COIN))
    assert asyncio.run(finalize(chain, made)).coin == OTHER_COIN
    assert chain.programs == [["finalize"], ["destroy"]][: 1 + destroyed]


@pytest.mark.parametrize("coins", [(SUI_COIN,), (OTHER_COIN, OTHER_COIN), (SUI_COIN, OTHER_COIN)])
def test_what_was_claimed_is_of_its_coin(coins: Any) -> None:
    decisions = [decision(coin=each) for each in coins]
    chain = Chain("0x5")
    done = asyncio.run(settle(chain, decisions, 8))
    assert len(chain.programs) == 1
    assert [(paid.coin, len(part)) for paid, part in done] == list(Counter(coins).items())


def test_a_signature_that_is_no_use_is_not_sent() -> None:
    chain = Chain()
    agreed = messages.Agreed(5, 2**63, KEY.public, bytes(64))
    with pytest.raises(ChannelUnusable, match="does not verify"):
        asyncio.run(close_agreed(chain, channel(), agreed))
    assert chain.programs == []


@pytest.mark.parametrize("count", [0, 2])
def test_a_transaction_opens_one_channel(count: Any) -> None:
    chain = SimpleNamespace(events_in=lambda *_: [SimpleNamespace(channel=CHANNEL)] * count)
    with pytest.raises(ChannelUnusable, match=f"opened {count} channels"):
        opened_in(chain, SimpleNamespace(digest="d"))


def test_what_a_transaction_moved_is_what_was_claimed_and_what_was_settled() -> None:
    made, other = channel(), channel(id="0x0e", terms=Terms(coin=OTHER_COIN))
    id = made.id
    events: dict[type, list[Any]] = {
        Claimed: [Claimed(id, 0, 1, 5000, 4000, b"", SUI_COIN), Claimed(id, 1, 1, 500, 500, b"", SUI_COIN)],
        Settled: [
            Settled(id, 30, 200, ChannelState.DRAINING, SUI_COIN),
            Settled(id, 1, 2, ChannelState.CLOSED, SUI_COIN),
        ],
    }
    chain = SimpleNamespace(events_in=lambda executed, schema, kind: events[kind])
    executed = SimpleNamespace(digest="x", gas=SimpleNamespace(net=7))
    assert settling.result_of(chain, executed, [made]) == [
        Settlement("x", 4531, 202, 7, ChannelState.CLOSED, channels=(id,))
    ]
    events[Settled].clear()
    assert settling.result_of(chain, executed, [made]) == [Settlement("x", 4500, 0, 7, None, channels=(id,))]
    events[Claimed].append(Claimed(other.id, 0, 1, 9, 9, b"", SUI_COIN))
    assert settling.result_of(chain, executed, [made, other, made]) == [
        Settlement("x", 4500, 0, 7, channels=(id,)),
        Settlement("x", 9, 0, 0, coin=OTHER_COIN, channels=(other.id,)),
    ]


@pytest.mark.parametrize("digest", ["", "d"])
def test_a_deposit_that_lacks_money_is_said_to_whatever_is_asked_then(digest: Any) -> None:
    """One that was signed was forgotten where the node was away behind it, and made again."""
    fault = InsufficientFunds("no gas")
    fault.digest = digest

    class Poor:
        address = "0xc"

        async def execute(self, program: Any, signed: Any) -> None:
            raise fault

        async def balance(self, owner: Any) -> None:
            raise NodeUnavailable("away")

    with pytest.raises(InsufficientFunds) as raised:
        asyncio.run(settling._deposit(Poor(), Program(), SUI_COIN, 5, 1, 2))
    assert raised.value is fault
    assert was_signed(raised.value) is bool(digest)
