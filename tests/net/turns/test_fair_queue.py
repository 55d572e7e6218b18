"""Fair turns by processor time, as a value: time and what was spent come in, and who is next comes out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from hypothesis import given, settings
from hypothesis import strategies as st

from dtp.net.turns.fair_queue import (
    MOST_AHEAD,
    MOVES_FOR,
    REMEMBERED,
    FairQueue,
    FairShares,
    ProcessorAccount,
)

#: The most that one step takes, seconds.
STEP = 0.01


class Processor:
    """A queue that is served: each step takes what whoever waits has for it."""

    def __init__(self) -> None:
        self.idle = self.now = 0.0
        self.shares = FairShares(lambda: self.idle, lambda: self.now)
        self.queue: FairQueue[str] = FairQueue(self.shares)
        self.had: Counter[tuple[str, object]] = Counter()

    def account(self, source: str, peer: object = None) -> ProcessorAccount:
        return self.shares.get_account(source, peer)

    def serve(self, cost: dict[str, float]) -> str:
        """Serve the next one, which waits again at once; return who it was."""
        account, name = self.queue.take_next()
        self.spend(account, cost[name])
        self.queue.put_item(account, name)
        return name

    def spend(self, account: ProcessorAccount, seconds: float) -> None:
        account.charge_seconds(seconds)


costs = st.floats(1e-5, STEP)


@given(st.lists(st.tuples(st.integers(0, 3), costs), min_size=2, max_size=12), st.integers(50, 300))
@settings(deadline=None)
def test_sources_share_the_processor_and_peers_their_source(
    crowd: Sequence[tuple[int, float]], steps: int
) -> None:
    """However many peers a source has, and however dear their steps are: within a step or two of what is fair."""
    processor = Processor()
    cost, of = {}, {}
    for number, (source, each) in enumerate(crowd):
        name = f"{source} {number}"
        cost[name], of[name] = each, str(source)
        processor.queue.put_item(processor.account(str(source), number), name)
    had: Counter[str] = Counter()
    by_source: dict[str, float] = dict.fromkeys(of.values(), 0.0)
    for _ in range(steps):
        name = processor.serve(cost)
        had[name] += 1
        by_source[of[name]] += cost[name]
    assert max(by_source.values()) - min(by_source.values()) <= 2 * STEP + 1e-9
    for where in by_source:
        peers = [had[name] * cost[name] for name in cost if of[name] == where]
        assert max(peers) - min(peers) <= 2 * STEP + 1e-9


def test_who_comes_anew_is_next_but_has_no_credit_for_having_been_away() -> None:
    processor = Processor()
    cost = {"old": 0.001, "older": 0.001, "new": 0.001}
    processor.queue.put_item(processor.account("192.0.2.1", "old"), "old")
    processor.queue.put_item(processor.account("192.0.2.1", "older"), "older")
    for _ in range(1000):
        processor.serve(cost)
    processor.queue.put_item(processor.account("198.51.100.1", "new"), "new")
    served = [processor.serve(cost) for _ in range(40)]
    assert "new" in served[:2]
    assert 19 <= served.count("new") <= 21  # half, as one of two sources has


def test_dear_steps_have_as_much_as_cheap_ones() -> None:
    """A flood of a kind that costs much, from as many connections as the other has."""
    processor = Processor()
    cost = {"dear": 0.01, "cheap": 0.0001}
    for name in cost:
        processor.queue.put_item(processor.account("192.0.2.1", name), name)
    served = Counter(processor.serve(cost) for _ in range(2000))
    assert abs(served["dear"] * 0.01 - served["cheap"] * 0.0001) <= 2 * STEP


def test_who_worked_alone_for_an_hour_has_not_to_make_up_for_it() -> None:
    processor = Processor()
    cost = {"old": 0.01, "new": 0.01}
    old = processor.account("192.0.2.1", "old")
    for _ in range(10_000):
        processor.spend(old, 0.36)
    for name in cost:
        processor.queue.put_item(processor.account("192.0.2.1", name), name)
    served = [processor.serve(cost) for _ in range(100)]
    first = served.index("old")
    assert first * 0.01 <= MOST_AHEAD + STEP
    assert abs(served[first:].count("old") - served[first:].count("new")) <= 2


def test_what_was_had_is_forgotten_while_the_processor_is_idle() -> None:
    processor = Processor()
    account = processor.account("192.0.2.1", "old")
    processor.spend(account, 0.2)
    assert account.is_ahead()
    processor.idle += 0.3
    assert not account.is_ahead()


def test_who_says_little_is_not_ahead_beside_a_flood() -> None:
    processor = Processor()
    cost = {f"flood {number}": 0.001 for number in range(8)}
    for name in cost:
        processor.queue.put_item(processor.account("192.0.2.1", name), name)
    visitor = processor.account("192.0.2.1", "visitor")
    for number in range(50):
        processor.spend(visitor, 0.0001)
        for _ in range(8):
            processor.serve(cost)
        assert not visitor.is_ahead() or not number  # at first nobody has had anything


def test_a_crowd_of_which_each_comes_once_keeps_nobody_out() -> None:
    """Each with an identity of its own, who fill their sockets and leave: no one is behind those who came later."""
    processor = Processor()
    visitor = processor.account("192.0.2.1", "visitor")
    numbers = iter(range(10_000))

    def come() -> None:
        name = f"new {next(numbers)}"
        processor.queue.put_item(processor.account("192.0.2.1", name), name)

    for _ in range(32):
        come()
    waits = []
    for _ in range(50):
        processor.spend(visitor, 0.0002)
        processor.queue.put_item(visitor, "visitor")
        waits.append(0)
        while (found := processor.queue.take_next())[1] != "visitor":
            processor.spend(found[0], 0.003)
            waits[-1] += 1
            come()
            assert waits[-1] <= 64
    assert sum(waits) / len(waits) <= 32


def test_a_request_comes_before_those_who_brought_much() -> None:
    processor = Processor()
    for number in range(32):
        processor.queue.put_item(processor.account("192.0.2.1", number), "much")
        processor.spend(processor.account("192.0.2.1", "another"), 0.003)
    processor.queue.put_item(processor.account("192.0.2.1", "new"), "new", little=True)
    processor.queue.put_item(processor.account("192.0.2.1", "newer"), "newer")
    order = [processor.queue.take_next()[1] for _ in range(34)]
    assert order.index("new") <= 1
    assert order[-1] == "newer"


def test_requests_do_not_wait_for_a_round_of_those_who_have_much_done() -> None:
    """A request of 0.3 ms in each 3 ms of a crowd is three times one's part among 32: they waited for two rounds of
    it."""
    processor = Processor()
    cost = {f"much {number}": 0.0005 for number in range(32)}
    for number, name in enumerate(cost):
        account = processor.account("192.0.2.1", number)
        account.note_much()
        processor.queue.put_item(account, name)
    cost["visitor"] = 0.0003
    visitor = processor.account("192.0.2.1", "visitor")
    for _ in range(200):
        for _ in range(6):
            processor.serve(cost)
        processor.queue.put_item(visitor, "visitor", little=True)
        waited = [processor.queue.take_next() for _ in range(3)]
        for account, name in waited:
            account.charge_seconds(cost[name])
            if name != "visitor":
                processor.queue.put_item(account, name)
        assert "visitor" in [name for _, name in waited]


def test_a_crowd_that_asks_for_little_leaves_half_to_who_has_much_done() -> None:
    processor = Processor()
    cost = {f"little {number}": 0.0003 for number in range(32)}
    for number, name in enumerate(cost):
        processor.queue.put_item(processor.account("192.0.2.1", number), name)
    cost["much"] = 0.001
    mover = processor.account("192.0.2.1", "mover")
    mover.note_much()
    processor.queue.put_item(mover, "much")
    served = Counter(processor.serve(cost) for _ in range(2000))
    littles = sum(count for name, count in served.items() if name != "much")
    assert abs(served["much"] * 0.001 - littles * 0.0003) <= 0.002
    assert max(served.values()) == served["much"]


def test_a_source_that_does_both_has_two_parts_at_most() -> None:
    """However many of it ask for little and have much done, another source has a third beside it."""
    processor = Processor()
    cost = {f"flood {number}": 0.0005 for number in range(32)}
    for number, name in enumerate(cost):
        account = processor.account("192.0.2.1", number)
        if number % 2:
            account.note_much()
        processor.queue.put_item(account, name)
    cost["other"] = 0.0005
    processor.queue.put_item(processor.account("198.51.100.1", "other"), "other")
    served = Counter(processor.serve(cost) for _ in range(3000))
    assert abs(served["other"] - 1000) <= 2


def test_who_has_much_done_counts_as_such_for_a_second() -> None:
    """Whoever asks for little in between is charged among those who have much done, or would never be."""
    processor = Processor()
    account = processor.account("192.0.2.1", "mover")
    processor.spend(account, 0.01)
    assert account.is_ahead(0.009)
    account.note_much()
    assert not account.is_ahead()  # it begins there as others do
    processor.spend(account, 0.02)
    processor.now += 0.99 * MOVES_FOR
    assert account.is_ahead(0.019)
    processor.now += 0.02 * MOVES_FOR
    assert account.is_ahead(0.009)
    assert not account.is_ahead(0.011)


def test_what_turns_out_to_be_much_is_charged_where_it_waited() -> None:
    """Each could have one turn in a second for nothing: it was charged to those who have much done."""
    processor = Processor()
    for number in range(32):
        account = processor.account("192.0.2.1", number)
        processor.queue.put_item(account, "asked little")
        processor.queue.take_next()
        account.note_much()
        account.charge_seconds(0.001)
    for source in ("192.0.2.1", "198.51.100.1"):
        processor.queue.put_item(processor.account(source, "visitor"), source)
    assert processor.queue.take_next()[1] == "198.51.100.1"


def test_a_source_that_is_alone_is_not_ahead_of_itself() -> None:
    """Its crowd has had much, and each of them waits for more: whoever of it has had nothing doesn't."""
    processor = Processor()
    visitor = processor.account("192.0.2.1", "visitor")
    for number in range(8):
        account = processor.account("192.0.2.1", number)
        processor.queue.put_item(account, "much")
        account.charge_seconds(0.01)
        assert account.is_ahead()
    assert not visitor.is_ahead()
    processor.queue.put_item(processor.account("198.51.100.1", "other"), "other")
    assert visitor.is_ahead()


def test_who_comes_again_does_not_begin_anew_and_strangers_are_forgotten() -> None:
    processor = Processor()
    processor.spend(processor.account("192.0.2.1", "a"), 0.1)
    assert processor.account("192.0.2.1", "a").is_ahead()
    for number in range(2 * REMEMBERED):
        processor.account(f"2001:db8::{number:x}", number)
    assert len(processor.shares._accounts) == len(processor.shares._sources) == REMEMBERED


@given(st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from("xyz")), max_size=30))
def test_each_account_keeps_its_order_and_nothing_is_lost(put: list[tuple[str, str]]) -> None:
    processor = Processor()
    queue: FairQueue[int] = FairQueue(processor.shares)
    for number, (source, peer) in enumerate(put):
        queue.put_item(processor.account(source, peer), number)
    taken = []
    while queue:
        account, number = queue.take_next()
        processor.spend(account, 0.001 * (number % 5))
        taken.append(number)
    assert sorted(taken) == list(range(len(put)))
    for key in set(put):
        mine = [number for number in taken if put[number] == key]
        assert mine == sorted(mine)
