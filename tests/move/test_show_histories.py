"""Random histories of shows on the embedded node beside a second model, which knows no shares.

It keeps each contributor's money as an exact fraction and takes his part of each slot from it. What is refused, which
state a show is in and when, and every sum have to agree; each contributor's money up to a MIST for each rounding.
"""

from dataclasses import dataclass, field
from fractions import Fraction
from random import Random
from typing import Any

import pytest
from chain_model.played import Played

from dtp.chain import packages, show
from dtp.chain.node.commands import Program
from dtp.chain.show import ShowState
from dtp.localnet.node import LocalNode

ACCOUNTS = ("producer", "alice", "bob", "carol")
SLOT = 10_000
HASH = b"h" * 32


@dataclass
class Part:
    """A contributor's money in the pot."""

    owner: str
    money: Fraction


@dataclass
class Model:
    """A show, as docs and Move comments say it. Methods return what is refused, or ""."""

    rate: int
    start_pot: int
    price: int
    fewest: int
    slots: int
    start_by: int
    batch: int
    prices: tuple[int, ...]
    state: ShowState = ShowState.OFF
    started: int = -1
    due: int = 0
    posted: int = 0
    tickets: int = 0
    prepaid: int = 0
    earned: int = 0
    pot: int = 0
    contributed: int = 0
    returned: int = 0
    tipped: int = 0
    collected: int = 0
    asked: int = 0
    parts: dict[str, Part] = field(default_factory=dict)

    def contribute(self, now, name, owner, amount):
        if self.state is ShowState.ENDED:
            return "EEnded"
        if self.price:
            return "ETicketed"
        return self._take(now, name, owner, amount)

    def buy_ticket(self, now, name, owner, amount):
        if self.state is ShowState.ENDED:
            return "EEnded"
        if not self.price:
            return "ENotTicketed"
        if amount != self.price:
            return "EWrongPrice"
        if self.state is ShowState.OFF and now > self.start_by:
            return "EStartByPassed"
        self.tickets += 1
        return self._take(now, name, owner, amount)

    def _take(self, now, name, owner, amount):
        self.parts[name] = Part(owner, Fraction(amount))
        self.pot += amount
        self.contributed += amount
        enough = self.tickets >= self.fewest if self.price else self.pot >= self.start_pot
        if self.state is ShowState.OFF and enough:
            self.state, self.started, self.due = ShowState.ON_AIR, now, now + SLOT
        return ""

    def may_take_back(self, now):
        if self.state is ShowState.OFF and self.price and now <= self.start_by:
            return "ETicketsStand"
        if self.state is ShowState.ON_AIR and self.price and now == self.started:
            return "ETicketsStand"  # the money may be lent for one transaction
        return ""

    def begun(self, now):
        """What the slots cost that have begun and aren't posted: no more than there is, and than may be posted."""
        if self.state is not ShowState.ON_AIR:
            return Fraction(0)
        over = max(0, (now - self.due) // SLOT + 1)
        if over > 2 * self.batch:
            return Fraction(0)
        count = min(self.batch, over) + 1
        if self.rate:
            return Fraction(min(max(0, count * self.rate - self.prepaid), self.pot))
        left = self.slots - self.posted
        return Fraction(
            self.pot // left * min(count, left)
        )  # each slot is rounded down, as when it is posted

    def unspent(self, now, name):
        """What would come back of a part: others pay for slots as it does, each its part."""
        money = self.parts[name].money
        return money - money * self.begun(now) / self.pot if self.pot else Fraction(0)

    def take_back(self, name, amount, paid):
        del self.parts[name]
        self.tickets -= bool(self.price)
        self.pot -= amount + paid
        self.returned += amount
        self.earned += paid
        if self.rate:  # a slot costs what it costs: those who stay pay the rest
            self.prepaid += paid
        self._pause()

    def post(self, now, count):
        if count == 0:
            return "ENoHashes"
        if count > self.batch:
            return "EBadBatch"
        due = max(self.due, now - (self.batch - 1) * SLOT)
        state, pot, posted, prepaid = self.state, self.pot, self.posted, self.prepaid
        taken = []
        for _ in range(count):
            if state is not ShowState.ON_AIR:
                return "ENotOnAir"
            if now < due:
                return "ETooEarly"
            amount = self.rate or pot // (self.slots - posted)
            amount, prepaid = max(0, amount - prepaid), max(0, prepaid - amount)
            taken.append((amount, pot))
            pot, posted, due = pot - amount, posted + 1, due + SLOT
            if self.slots and posted == self.slots:
                state = ShowState.ENDED
            elif self.rate and pot + prepaid < self.rate:
                state = ShowState.OFF
        for amount, before in taken:
            for part in self.parts.values():
                part.money -= part.money * amount / before if before else 0
            self.earned += amount
        self.due, self.state, self.pot, self.posted, self.prepaid = due, state, pot, posted, prepaid
        return ""

    def ask(self, kind, amount):
        if self.state is ShowState.ENDED:
            return "EEnded"
        if kind >= len(self.prices):
            return "EBadKind"
        if amount < max(1, self.prices[kind]):
            return "ETooLittle"
        self.asked += 1
        self.tipped += amount  # it is the producer's at once, and moves no part of the pot
        self.earned += amount
        return ""

    def raise_(self, number, amount):
        if self.state is ShowState.ENDED:
            return "EEnded"
        if number >= self.asked:
            return "ENothingAsked"
        if amount < max(1, self.prices[0]):
            return "ETooLittle"
        self.tipped += amount
        self.earned += amount
        return ""

    def collect(self):
        self.collected += self.earned
        self.earned = 0
        return ""

    def end(self):
        if self.state is ShowState.ENDED:
            return "EEnded"
        self.state = ShowState.ENDED
        return ""

    def expire(self, now):
        if self.state is ShowState.ENDED:
            return "EEnded"
        if not self.price:
            return "ENotTicketed"
        if self.state is ShowState.ON_AIR or now <= self.start_by:
            return "EStillRunning"
        self.state = ShowState.ENDED
        return ""

    def edges(self):
        """When something changes: slots that end, and the last moment to start."""
        return [self.due + SLOT * at for at in (0, 1, self.batch, 2 * self.batch)] + [self.start_by]

    def _pause(self):
        if self.state is ShowState.ON_AIR and self.rate and self.pot + self.prepaid < self.rate:
            self.state = ShowState.OFF


class Play:
    """One history: the node does what the model is told, and both are compared behind each step."""

    def __init__(self, played, clock, random):
        self.played, self.clock, self.random = played, clock, random
        self.shares, self.outcomes = {}, set()
        batch = random.choice([1, 2, 5])
        funded = random.random() < 0.6
        rate = random.choice([1, 7, 100]) if funded else 0
        self.model = Model(
            rate=rate,
            start_pot=rate * random.randint(1, 5),
            price=0 if funded else random.choice([1, 30, 101]),
            fewest=0 if funded else random.randint(1, 3),
            slots=0 if funded else random.randint(1, 6),
            start_by=0 if funded else clock[0] + random.randint(1, 8) * SLOT,
            batch=batch,
            prices=tuple(random.choice([0, 1, 50]) for _ in range(3)),
        )
        self.tolerance = 1
        made = self._send("producer", self._new)
        kinds = {each.type.name: "0x" + each.id.hex() for each in made.outputs if hasattr(each.type, "name")}
        self.show, self.cap = kinds["Show"], kinds["ProducerCap"]

    def _new(self, program):
        model = self.model
        common: dict[str, Any] = {"slot_ms": SLOT, "batch": model.batch, "prices": model.prices}
        if model.rate:
            terms: dict[str, Any] = {"rate": model.rate, "start_pot": model.start_pot}
            made, cap = show.new_funded(program, b"k" * 32, **terms, **common)
        else:
            terms = {"slots": model.slots, "ticket_price": model.price, "fewest": model.fewest}
            made, cap = show.new_ticketed(program, b"k" * 32, start_by_ms=model.start_by, **terms, **common)
        show.share(program, made)
        program.transfer([cap], self.played.who("producer"))

    def _send(self, sender, build):
        program = Program()
        build(program)
        return self.played.execute(sender, self.played.bound(program))

    def _do(self, sender, build, expected):
        """Run it; gives what happened if it was not refused, and holds refusals against the model's."""
        executed = self._send(sender, build)
        told = "" if executed.effects.ok else self._refusal(executed.effects.error)
        assert told == expected
        self.outcomes.add((build.__name__, told))
        return None if told else executed

    def _refusal(self, error):
        assert error.kind == "MoveAbort", error
        return packages.load("broadcast").describe_abort("show", error.content["code"]).name

    def step(self):
        """One random step."""
        self.clock[0] = self._next_time()
        steps = [self.pay, self.pay, self.post, self.post, self.take_back, self.take_back]
        steps += [self.ask, self.raise_, self.collect]
        if self.random.random() < 0.1:
            steps = [self.end, self.expire]
        self.random.choice(steps)()
        self.compare()

    def _next_time(self):
        """A while later, or just before, at or behind a moment at which something changes."""
        now = self.clock[0]
        near = [each + by for each in self.model.edges() for by in (-1, 0, 1) if each + by >= now]
        if near and self.random.random() < 0.4:
            return self.random.choice(near)
        return now + self.random.choice([0, 1, SLOT // 2, SLOT, SLOT, 3 * SLOT])

    def ask(self):
        kind, amount = self.random.choice([0, 0, 1, 2, 3]), self.random.choice([0, 1, 49, 50, 400])

        def asks(program):
            (money,) = program.split(program.gas, [amount])
            show.ask(program, self.show, kind, money, b"why?", sealed=self.random.random() < 0.5)

        self._do("carol", asks, self.model.ask(kind, amount))

    def raise_(self):
        number, amount = self.random.randint(0, self.model.asked), self.random.choice([0, 1, 49, 50, 400])

        def raises(program):
            (money,) = program.split(program.gas, [amount])
            show.raise_(program, self.show, number, money)

        self._do("bob", raises, self.model.raise_(number, amount))

    def collect(self):
        expected = self.model.earned

        def collects(program):
            program.transfer([show.collect(program, self.show, self.cap)], self.played.who("producer"))

        done = self._do("producer", collects, self.model.collect())
        (told,) = [each for each in done.events if each.type.name == "Collected"]
        assert show.SCHEMA.decode(show.Collected, told.contents).amount == expected

    def expire(self):
        def expires(program):
            show.expire(program, self.show)

        self._do("carol", expires, self.model.expire(self.clock[0]))

    def pay(self):
        owner = self.random.choice(ACCOUNTS[1:])
        amount = self.random.choice([1, 3, 100, 999, self.model.price or 5, self.model.price or 50])
        buys = self.random.random() < (0.1 if self.model.rate else 0.9)
        call = show.buy_ticket if buys else show.contribute
        name = f"part{len(self.shares)}"

        def pays(program):
            (money,) = program.split(program.gas, [amount])
            program.transfer([call(program, self.show, money)], self.played.who(owner))

        before = {key: self._value(key) for key in self.model.parts}
        expected = (self.model.buy_ticket if buys else self.model.contribute)(
            self.clock[0], name, owner, amount
        )
        done = self._do(owner, pays, expected)
        if done is not None:
            (made,) = [each for each in done.outputs if getattr(each.type, "name", "") == "Share"]
            self.shares[name] = "0x" + made.id.hex()
            self.tolerance += 1
            # Nobody who had money in loses or gains more than rounding by somebody else's coming.
            for key, value in before.items():
                assert abs(self._value(key) - value) <= 1

    def _value(self, name):
        share = self._read(show.ShowShare, self.shares[name])
        return self._read(show.Show, self.show).unspent_of(share)

    def post(self):
        count = self.random.choice([0, 1, 1, 1, 2, self.model.batch, self.model.batch + 1])

        def posts(program):
            show.post(program, self.show, self.cap, [HASH] * count)

        if self._do("producer", posts, self.model.post(self.clock[0], count)):
            self.tolerance += count

    def take_back(self):
        for name, part in self._some_part():

            def takes(program, name=name, part=part):
                money = show.take_back(program, self.show, self.shares[name])
                program.transfer([money], self.played.who(part.owner))

            exact = self.model.unspent(self.clock[0], name)
            done = self._do(part.owner, takes, self.model.may_take_back(self.clock[0]))
            if done is not None:
                (told,) = [each for each in done.events if each.type.name == "Returned"]
                back = show.SCHEMA.decode(show.Returned, told.contents)
                assert abs(back.amount - exact) <= self.tolerance
                assert abs(back.amount + back.paid - part.money) <= self.tolerance
                self.model.take_back(name, back.amount, back.paid)
                self.tolerance += 1

    def _some_part(self):
        """A part of the pot that somebody has, in a list; none where nobody has any."""
        names = sorted(self.model.parts)
        return [(name, self.model.parts[name]) for name in self.random.sample(names, min(1, len(names)))]

    def end(self):
        def ends(program):
            show.end(program, self.show, self.cap)

        self._do("producer", ends, self.model.end())

    def compare(self):
        """Hold the object against the model, and the money against itself."""
        found, model = self._read(show.Show, self.show), self.model
        told = (found.state, found.posted, found.tickets, found.pot, found.earned, found.contributed)
        assert found.prepaid == model.prepaid
        assert told == (
            model.state,
            model.posted,
            model.tickets,
            model.pot,
            model.earned,
            model.contributed,
        )
        assert found.contributed == found.released + found.returned + found.pot
        assert found.released + found.tipped == found.collected + found.earned
        assert (found.returned, found.tipped, found.collected, found.asked) == (
            model.returned,
            model.tipped,
            model.collected,
            model.asked,
        )
        if model.state is ShowState.ON_AIR:
            assert found.due_ms == model.due
        for name, part in model.parts.items():
            assert abs(self._value(name) - part.money) <= self.tolerance

    def finish(self):
        """End it: whoever has money in takes it all back, and nothing is left."""
        if self.model.state is not ShowState.ENDED:
            self.end()
        while self.model.parts:
            self.take_back()
        found = self._read(show.Show, self.show)
        # What no share is worth a MIST of can stay where a pot was spent and begun anew.
        assert found.pot <= self.tolerance
        self.destroy("ENotEmpty" if found.pot or found.earned else "")
        if found.earned:
            self.collect()
            self.destroy("ENotEmpty" if found.pot else "")

    def destroy(self, expected):
        def destroys(program):
            show.destroy(program, self.show, self.cap)

        self._do("producer", destroys, expected)

    def _read(self, cls, id):
        record = self.played.node.find_object(bytes.fromhex(id[2:]))
        return show.SCHEMA.decode(cls, record.contents)


def play_histories(seeds, steps):
    """Play histories of these seeds; gives the kinds of outcomes."""
    clock = [1_750_000_000_000]
    outcomes = set()
    with LocalNode.open(now=lambda: clock[0]) as node:
        played = Played(node, ACCOUNTS, ("broadcast",))
        for seed in seeds:
            play = Play(played, clock, Random(seed))
            try:
                for _ in range(steps):
                    play.step()
                play.finish()
            except AssertionError as error:
                raise AssertionError(f"seed {seed}") from error
            outcomes |= play.outcomes
    return outcomes


def test_the_money_of_shows_is_conserved():
    assert len(play_histories(range(12), 25)) >= 15


@pytest.mark.long
@pytest.mark.parametrize("first", range(1000, 3000, 100))
def test_the_money_of_shows_is_conserved_over_many_histories(first):
    assert len(play_histories(range(first, first + 100), 40)) >= 15
