"""Who listens with a ticket: one at a time, whoever it is sold to, copied or passed on to."""

import asyncio
import itertools
import os
import time
from contextlib import AsyncExitStack
from dataclasses import replace
from types import SimpleNamespace

import pytest
from chain_resolver.hosts import run as chain_run
from shows import ME
from test_show_air import FUNDED

from dtp.broadcast.kept_position import KeptPosition
from dtp.broadcast.messages import MAX_CLAIMS
from dtp.broadcast.money import shows
from dtp.broadcast.money.bought import BoughtTickets, bought_here
from dtp.broadcast.money.shows import ShowTerms
from dtp.broadcast.money.tickets import (
    AHEAD_MS,
    MOVE_MS,
    MOVES,
    PassHolders,
    Seats,
    TicketHolders,
    is_good,
    seat_claim,
)
from dtp.broadcast.money.watching import Dismissed
from dtp.broadcast.sealed.admission import Refusal
from dtp.broadcast.sealed.issuing import KeyIssuer
from dtp.broadcast.sealed.keys import open_key
from dtp.chain import Program
from dtp.chain import show as show_module
from dtp.chain.model import SUI_COIN, id_bytes
from dtp.chain.pass_ import PassAccount
from dtp.chain.show import Contributed, ShowShare
from dtp.chain.signer import KeySigner
from dtp.cli.shows_sealing import claims_of
from dtp.identity import Identity
from dtp.pay import passes

ALICE, BOB, CAROL = (Identity(bytes([each]) * 32) for each in (1, 2, 3))


class Sold(Seats):
    """Tickets in memory: who has bought how many."""

    def __init__(self, **tickets):
        self.now_ms = 10**12
        super().__init__(bytes(32), lambda: self.now_ms)
        #: By the ticket's id the account that holds it.
        self.holders = {
            f"{name} {at}": globals()[name].id.sui_address
            for name, count in tickets.items()
            for at in range(count)
        }

    async def _list_tickets(self, accounts):
        return {each: [id for id, holder in self.holders.items() if holder == each] for each in accounts}

    def sell(self, ticket, buyer):
        self.holders[ticket] = buyer.id.sui_address


def claim(account, listener, time_ms, show=bytes(32)):
    return seat_claim(KeySigner.from_identity(account), show, listener.id, time_ms)


def asked(tickets, **asking):
    told = asyncio.run(tickets.refused({globals()[name].id: claims for name, claims in asking.items()}))
    return {each: told.get(globals()[each].id) for each in asking}


def test_an_identity_listens_with_its_own_ticket_or_with_one_of_an_account_that_says_so():
    assert asked(Sold(ALICE=1), ALICE=[], BOB=[]) == {"ALICE": None, "BOB": Refusal.NO_TICKET}
    assert asked(Sold(ALICE=1), BOB=[claim(ALICE, BOB, 5)]) == {"BOB": None}


def test_a_ticket_is_used_once_by_whom_its_holder_has_named_last():
    both = {"BOB": [claim(ALICE, BOB, 5)], "CAROL": [claim(ALICE, CAROL, 6)]}
    assert asked(Sold(ALICE=1), **both) == {"BOB": Refusal.TICKET_IN_USE, "CAROL": None}
    assert asked(Sold(ALICE=2), **both) == {"BOB": None, "CAROL": None}
    assert asked(Sold(ALICE=1), ALICE=[], **both)["ALICE"] == Refusal.TICKET_IN_USE
    assert asked(Sold(ALICE=1), ALICE=[claim(ALICE, ALICE, 7)], **both)["ALICE"] is None


@pytest.mark.parametrize("count", [1, 2])
def test_a_ticket_that_several_share_is_heard_by_as_many_as_there_are_tickets(count):
    """Each key's time all who have a copy name themselves again, though `dtp show listen` doesn't."""
    tickets, listeners = Sold(ALICE=count), ["ALICE", "BOB", "CAROL"]
    heard = dict.fromkeys(listeners, 0)
    for _minute in range(240):
        tickets.now_ms += 60_000
        for at, name in enumerate(listeners):
            told = asked(tickets, **{name: [claim(ALICE, globals()[name], tickets.now_ms + at)]})
            heard[name] += told[name] is None
    assert 240 <= sum(heard.values()) / count <= 240 + MOVES + 240 * 60_000 // MOVE_MS


def test_who_listens_goes_from_device_to_device_with_a_ticket():
    tickets = Sold(ALICE=1)
    for at in range(8):
        device = "BOB" if at % 2 else "CAROL"
        tickets.now_ms += 1000
        assert asked(tickets, **{device: [claim(ALICE, globals()[device], tickets.now_ms)]})[device] is None
    for _ in range(3):  # an hour later, by a clock that was set back meanwhile as well
        tickets.now_ms -= 10 * MOVE_MS
        asked(tickets, BOB=[claim(ALICE, BOB, tickets.now_ms)])
        tickets.now_ms += 16 * MOVE_MS
        assert asked(tickets, CAROL=[claim(ALICE, CAROL, tickets.now_ms)])["CAROL"] is None
        assert asked(tickets, BOB=[claim(ALICE, BOB, tickets.now_ms + 1)])["BOB"] is None


def test_a_ticket_goes_on_to_others_after_a_clock_that_was_ahead_is_set():
    tickets = Sold(ALICE=1)
    tickets.now_ms += 144 * MOVE_MS
    for name in ("BOB", "CAROL"):
        tickets.now_ms += 1
        assert asked(tickets, **{name: [claim(ALICE, globals()[name], tickets.now_ms)]})[name] is None
    tickets.now_ms -= 144 * MOVE_MS
    for name in ("BOB", "CAROL"):
        asked(tickets, **{name: [claim(ALICE, globals()[name], tickets.now_ms)]})
        tickets.now_ms += MOVE_MS
        assert asked(tickets, **{name: [claim(ALICE, globals()[name], tickets.now_ms)]})[name] is None


def test_one_who_sells_a_ticket_of_two_keeps_the_seat_that_was_named_last():
    tickets = Sold(ALICE=2)
    both = {"BOB": [claim(ALICE, BOB, 5)], "CAROL": [claim(ALICE, CAROL, 6)]}
    assert asked(tickets, **both) == {"BOB": None, "CAROL": None}
    tickets.sell("ALICE 0", Identity(bytes([9]) * 32))
    assert asked(tickets, **both) == {"BOB": Refusal.TICKET_IN_USE, "CAROL": None}


def test_a_ticket_that_was_sold_is_the_buyers():
    tickets = Sold(ALICE=1)
    assert asked(tickets, ALICE=[])["ALICE"] is None
    tickets.sell("ALICE 0", BOB)
    assert asked(tickets, ALICE=[claim(ALICE, ALICE, 9)], BOB=[]) == {"ALICE": Refusal.NO_TICKET, "BOB": None}


def passed_on(through):
    """One who has a ticket, and those through whom it goes, each with an account of its own."""
    return [Identity(bytes([7, each] * 16)) for each in range(through + 1)]


async def ask_for_keys(issuer, listener):
    """Ask with the ticket of the listener's own account; return why it gets no key, None where it gets some."""
    told = await issuer.issue_keys(listener.id, ())
    return None if isinstance(told, dict) else told


@pytest.mark.parametrize("back_to_the_first", [False, True])
def test_a_ticket_that_is_passed_on_quickly_through_20_accounts_is_heard_by_nine(back_to_the_first):
    """Each transfer costs gas alone. What counts is how often the ticket has gone on, whoever's it was."""
    tickets, accounts = Sold(ALICE=1), passed_on(20)
    issuer = KeyIssuer(bytes(32), tickets)

    async def test():
        heard = []
        for each in accounts:
            tickets.sell("ALICE 0", each)
            heard.append(await ask_for_keys(issuer, each) is None)
            tickets.now_ms += 1000
            if back_to_the_first:
                tickets.sell("ALICE 0", ALICE)
                await tickets.refused({each.id: ()})  # it is looked at while it has none
        assert heard == [True] * (1 + MOVES) + [False] * (20 - MOVES)
        tickets.sell("ALICE 0", accounts[-1])
        assert await ask_for_keys(issuer, accounts[-1]) == Refusal.TICKET_IN_USE
        tickets.now_ms += MOVE_MS
        assert (
            await ask_for_keys(issuer, accounts[-1]) is None
        )  # who has it in the end hears ten minutes later
        await issuer.rotate_key()
        assert issuer.listeners == 1

    asyncio.run(test())


def test_who_has_sold_a_ticket_has_no_key_that_is_made_later():
    tickets = Sold(ALICE=1)
    issuer = KeyIssuer(bytes(32), tickets)

    async def test():
        await issuer.rotate_key()
        issuer.begin_epoch()
        assert await ask_for_keys(issuer, ALICE) is None
        tickets.sell("ALICE 0", BOB)
        assert await ask_for_keys(issuer, BOB) is None
        await issuer.rotate_key()
        made = issuer.begin_epoch()
        assert open_key(made.body, bytes(32), made.epoch, BOB) == made.key
        assert open_key(made.body, bytes(32), made.epoch, ALICE) is None
        assert await ask_for_keys(issuer, ALICE) == Refusal.NO_TICKET

    asyncio.run(test())


def test_a_ticket_that_is_sold_while_holders_are_read_is_one_listeners():
    """Accounts are read one after another: it may seem to be of both."""

    class Both(Sold):
        async def _list_tickets(self, accounts):
            return {each: ["ALICE 0"] for each in accounts}

    told = asked(Both(), ALICE=[], BOB=[])
    assert sorted(told.values(), key=str) == [None, Refusal.TICKET_IN_USE]


def test_a_ticket_that_is_bought_beside_one_is_a_seat_more():
    """Also where the same listener had both: each has been heard with alone."""
    tickets = Sold(ALICE=1, BOB=1)
    named = {"CAROL": [claim(ALICE, CAROL, 5), claim(BOB, CAROL, 5)]}
    assert asked(tickets, **named) == {"CAROL": None}
    tickets.sell("BOB 0", ALICE)
    named["BOB"] = [claim(ALICE, BOB, 4)]
    assert asked(tickets, **named) == {"CAROL": None, "BOB": None}


def test_a_refund_frees_the_seat_and_a_new_ticket_begins_anew():
    tickets = Sold(ALICE=1)
    for at in range(1 + MOVES):
        tickets.now_ms += 1
        listener = passed_on(MOVES)[at]
        told = asyncio.run(tickets.refused({listener.id: [claim(ALICE, listener, tickets.now_ms)]}))
        assert told == {}
    del tickets.holders["ALICE 0"]
    assert asked(tickets, BOB=[claim(ALICE, BOB, tickets.now_ms)]) == {"BOB": Refusal.NO_TICKET}
    tickets.sell("another", ALICE)
    assert asked(tickets, BOB=[claim(ALICE, BOB, tickets.now_ms)]) == {"BOB": None}


def test_who_names_many_with_one_ticket_has_the_newest_remembered():
    async def test():
        issuer = KeyIssuer(bytes(32), Sold(ALICE=1))
        for each in range(20):
            listener = Identity(bytes([2, each] * 16))
            told = await issuer.issue_keys(listener.id, [claim(ALICE, listener, each)])
            assert told == ({} if each <= MOVES else Refusal.TICKET_IN_USE)
            assert issuer.listeners == 1

    asyncio.run(test())


def test_a_claim_that_is_copied_is_of_no_use():
    stolen = claim(ALICE, BOB, 5)
    assert asked(Sold(ALICE=1), CAROL=[stolen]) == {"CAROL": Refusal.NO_TICKET}
    other = claim(ALICE, CAROL, 5, show=bytes([1]) * 32)
    assert asked(Sold(ALICE=1), CAROL=[other]) == {"CAROL": Refusal.NO_TICKET}


def test_a_claim_of_the_command_line_names_the_ticket_that_was_said():
    said = claims_of(SimpleNamespace(wallet=None), ALICE, BOB.id, bytes([7]) * 32)
    (named,) = said(bytes(32))
    assert named.ticket == bytes([7]) * 32
    assert asked(Sold(ALICE=1), BOB=[named]) == {"BOB": Refusal.CLOCK}  # by today's clock
    assert claims_of(SimpleNamespace(wallet=None), ALICE, BOB.id, None)(bytes(32))[0].ticket == b""


def test_a_claim_of_the_command_line_names_what_was_bought_on_this_machine():
    """Else a stranger's gifts would hide it, unless one knew to say which ticket it is."""
    show, account = bytes([17]) * 32, ALICE.id.sui_address
    said = claims_of(SimpleNamespace(wallet=None), ALICE, BOB.id, None)
    bought = bought_here(show)
    tickets = [bytes([at]) * 32 for at in range(1, MAX_CLAIMS + 2)]
    for at, each in enumerate(tickets):
        bought.add_ticket(account, each)
        os.utime(bought.path_of(account, each), (at, at))
    bought.add_ticket(CAROL.id.sui_address, bytes([99]) * 32)
    claims = said(show)
    assert [each.ticket for each in claims] == tickets[:0:-1]  # the newest
    assert [
        each.ticket for each in claims_of(SimpleNamespace(wallet=None), ALICE, BOB.id, tickets[0])(show)
    ] == [tickets[0]]
    assert [each.ticket for each in said(bytes(32))] == [b""]  # of another show nothing
    for each in tickets:
        bought.remove_ticket(account, each)
    bought.remove_ticket(account, tickets[0])
    assert [each.ticket for each in said(show)] == [b""]


def test_a_ticket_that_another_command_has_just_removed_is_left_out(tmp_path):
    bought, account = BoughtTickets(tmp_path, bytes(32)), ALICE.id.sui_address
    bought.add_ticket(account, bytes([1]) * 32)
    bought.path_of(account, bytes([2]) * 32).symlink_to(
        tmp_path / "nowhere"
    )  # listed, and not there any more
    assert bought.list_newest(account) == ["0x" + "01" * 32]


def test_what_is_kept_of_shows_makes_no_folder_that_others_may_look_into(tmp_path):
    """It may be the first that makes the folder in which all programs keep what is theirs."""
    above = os.umask(0o022)
    try:
        KeptPosition(tmp_path / "a" / "shows", bytes(32)).close()
        Dismissed(tmp_path / "b" / "shows" / "x.dismissed").add_number(1)
        BoughtTickets(tmp_path / "c" / "shows", bytes(32)).add_ticket(ALICE.id.sui_address, bytes([1]) * 32)
    finally:
        os.umask(above)
    made = [each for each in tmp_path.rglob("*") if each.is_dir()]
    assert len(made) == 7
    assert [each.stat().st_mode & 0o777 for each in made] == [0o700] * 7


def test_a_device_that_lost_its_seat_to_another_one_does_not_take_it_back_by_itself():
    """Two of one owner took it from each other with each key, until neither could be chosen for ten minutes."""
    tickets, wallet, now_ms = Sold(ALICE=1), SimpleNamespace(wallet=None), itertools.count(10**12)
    laptop, phone = (claims_of(wallet, ALICE, each.id, None, now_ms.__next__) for each in (BOB, CAROL))
    show = bytes(32)
    assert asked(tickets, BOB=laptop(show)) == {"BOB": None}
    for _key in range(3 * MOVES):
        told = asked(tickets, BOB=laptop(show), CAROL=phone(show))
        assert told == {"BOB": Refusal.TICKET_IN_USE, "CAROL": None}
    again = claims_of(wallet, ALICE, BOB.id, None, now_ms.__next__)  # its owner begins there anew
    assert asked(tickets, BOB=again(show), CAROL=phone(show)) == {
        "BOB": None,
        "CAROL": Refusal.TICKET_IN_USE,
    }


def test_whose_clock_was_ahead_is_admitted_when_it_was_set():
    """Also by the command that runs, which said that the clock is wrong and had to be started again."""
    tickets, now_ms = Sold(ALICE=1), [10**12 + 2 * AHEAD_MS]
    sign = claims_of(SimpleNamespace(wallet=None), ALICE, BOB.id, None, lambda: now_ms[0])
    assert asked(tickets, BOB=sign(bytes(32))) == {"BOB": Refusal.CLOCK}
    now_ms[0] = 10**12
    assert asked(tickets, BOB=sign(bytes(32))) == {"BOB": None}


@pytest.mark.parametrize(
    ("terms", "state", "unspent"),
    [
        ({}, {"pot": 5, "shares": 10}, True),
        ({}, {"pot": 0, "shares": 10}, False),  # all of it was spent
        ({}, {"pot": 5, "shares": 10, "round": 1}, False),  # it was of a round before
        ({"rate": 0}, {"pot": 0, "shares": 10}, True),  # a ticket, to the last slot
    ],
)
def test_a_share_admits_while_something_of_it_is_unspent_and_a_ticket_to_the_end(terms, state, unspent):
    show = replace(FUNDED, **terms, **state)
    assert is_good(show, ShowShare("0x7", "0x1", 0, 10)) == unspent


def test_clocks_may_differ_and_the_future_may_not_be_claimed():
    assert asked(Sold(ALICE=1), BOB=[claim(ALICE, BOB, 10**12 + AHEAD_MS)]) == {"BOB": None}
    assert asked(Sold(ALICE=1), BOB=[claim(ALICE, BOB, 10**12 + 1 + AHEAD_MS)]) == {"BOB": Refusal.CLOCK}
    assert asked(Sold(ALICE=1), BOB=[claim(ALICE, BOB, 0)]) == {"BOB": None}


def test_a_pass_admits_its_holder_while_it_is_good(monkeypatch):
    hour = 3_600_000

    async def plan_of(chain, plan):
        return SimpleNamespace(period_ms=hour), "0x2::sui::SUI"

    async def passes_of(chain, plan):
        held = ((ALICE, 0, 2, False), (BOB, 0, 1, False), (CAROL, 0, 9, True))
        return {
            each: PassAccount(who.id.sui_address, start, periods, 0, revoked)
            for each, (who, start, periods, revoked) in enumerate(held)
        }

    async def epoch():
        return SimpleNamespace(epoch=1)

    async def service_info():
        return SimpleNamespace(timestamp_ms=None)

    monkeypatch.setattr(passes, "read_plan", plan_of)
    monkeypatch.setattr(passes, "accounts_of", passes_of)
    chain = SimpleNamespace(epoch=epoch, service_info=service_info)
    holders = PassHolders(chain, "0x9", bytes(32), lambda: hour)
    told = {"ALICE": None, "BOB": Refusal.NO_PASS, "CAROL": Refusal.NO_PASS}
    assert asked(holders, ALICE=[], BOB=[], CAROL=[]) == told


@pytest.mark.slow
def test_a_ticket_that_goes_through_20_accounts_of_the_chain_counts_as_one(client, net):
    """By `take_back` it is gone, and a new one is bought."""
    accounts = passed_on(20)

    async def work():
        async with AsyncExitStack() as stack:
            chains = []
            for each in accounts:
                signer = KeySigner.from_identity(each)
                net.fund(signer.address)
                chains.append(await stack.enter_async_context(client(signer)))
            now_ms = int(time.time() * 1000)
            terms = ShowTerms(
                slot_ms=3_600_000, ticket_price=70, fewest=1, slots=5, start_by_ms=now_ms + 10**7
            )
            id, _ = await shows.create(chains[-1], ME.id.key, terms)
            ticket, _ = await shows.buy(chains[0], id)
            holders = TicketHolders(chains[-1], id, lambda: now_ms)
            issuer = KeyIssuer(bytes(32), holders)
            heard = [await ask_for_keys(issuer, accounts[0])]
            for at, (chain, following) in enumerate(itertools.pairwise(chains)):
                program = Program()
                program.transfer([ticket], following.address)
                await chain.execute(program)
                heard.append(await ask_for_keys(issuer, accounts[at + 1]))
            assert heard == [None] * (1 + MOVES) + [Refusal.TICKET_IN_USE] * (20 - MOVES)
            assert [each.amount for each in await shows.refund(chains[-1], id)] == [56]
            assert await ask_for_keys(issuer, accounts[-1]) == Refusal.NO_TICKET
            await shows.buy(chains[-1], id)
            assert await ask_for_keys(issuer, accounts[-1]) is None

    chain_run(work())


@pytest.mark.slow
@pytest.mark.parametrize("behind_ms", [600_000, 366 * 86_400_000])
def test_a_producer_whose_clock_is_behind_admits_who_comes_at_the_chains_time(client, wallet, behind_ms):
    """It refused all that have a ticket, and told them that their clocks were wrong."""

    async def work():
        async with client(wallet()) as chain:
            id, _ = await shows.create(chain, ME.id.key, ShowTerms(slot_ms=3_600_000, rate=100))
            program = Program()
            (coin,) = program.split(program.gas, [10])
            program.transfer([show_module.contribute(program, id, coin)], ALICE.id.sui_address)
            await chain.execute(program)
            time_ms = (await chain.service_info()).timestamp_ms
            holders = TicketHolders(chain, id, lambda: time_ms - behind_ms)
            for ahead, why in (AHEAD_MS - 60_000, None), (AHEAD_MS + 600_000, Refusal.CLOCK):
                said = claim(ALICE, BOB, time_ms + ahead, show=id_bytes(id))
                assert (await holders.refused({BOB.id: [said]})).get(BOB.id) == why

    chain_run(work())


@pytest.mark.slow
def test_of_an_account_with_thousands_of_shares_the_first_ones_are_read(client, wallet):
    async def work():
        async with client(wallet()) as listener:
            id, _ = await shows.create(listener, ME.id.key, ShowTerms(slot_ms=3_600_000, rate=100))
            for _ in range(5):
                await shows.fund(listener, id, 1)
            held = await shows.shares_of(listener, id, listener.address)
            assert len(held) == 5
            assert await shows.shares_of(listener, id, listener.address, most=3) == held[:3]

    chain_run(work())


@pytest.mark.slow
def test_who_is_sent_thousands_of_shares_hears_with_the_ticket_that_it_names(client, wallet):
    """Sending them is cheap, and the chain may list them before the one that was paid."""
    alice, signer = ALICE.id.sui_address, KeySigner.from_identity(ALICE)

    async def make_shares(chain, show, count, to):
        program = Program()
        coins = program.split(program.gas, [1] * count)
        program.transfer([show_module.contribute(program, show, each) for each in coins], to)
        executed = await chain.execute(program)
        return [each.share for each in chain.events_in(executed, show_module.SCHEMA, Contributed)]

    async def work():
        async with client(wallet(20 * 10**9)) as chain:
            terms = ShowTerms(slot_ms=3_600_000, rate=10**6)
            (id, _), (other, _) = [await shows.create(chain, ME.id.key, terms) for _ in range(2)]
            for _ in range(9):
                await make_shares(chain, other, 500, alice)
            paid = max(await make_shares(chain, id, 250, chain.address))  # the last of very many
            program = Program()
            program.transfer([paid], alice)
            await chain.execute(program)
            assert await shows.shares_of(chain, id, alice, most=4096) == []
            holders = TicketHolders(chain, id)

            async def ask_with(ticket, listener=BOB):
                named = seat_claim(signer, id_bytes(id), listener.id, 5, ticket)
                return (await holders.refused({listener.id: [named]})).get(listener.id)

            assert await ask_with(None) == Refusal.NO_TICKET
            assert await ask_with(paid) is None
            (another,) = await make_shares(chain, id, 1, chain.address)
            (worthless,) = await make_shares(chain, other, 1, alice)
            for each in another, worthless, id, "0x5":  # nobody's, of another show, none
                assert await ask_with(each, CAROL) == Refusal.NO_TICKET

    chain_run(work())


@pytest.mark.slow
def test_very_many_shares_come_back_by_few_transactions(client, wallet, calls):
    """One for each took an hour for those who had paid in a MIST at a time."""

    async def work():
        async with client(wallet()) as listener:
            id, _ = await shows.create(listener, ME.id.key, ShowTerms(slot_ms=3_600_000, rate=10**6))
            program = Program()
            coins = program.split(program.gas, range(1, 131))
            held = [show_module.contribute(program, id, each) for each in coins]
            program.transfer(held, listener.address)
            await listener.execute(program)
            shares = [each.id for each in await shows.shares_of(listener, id, listener.address)]
            before = calls.count["execute"]
            back = await shows.refund(listener, id)
            assert calls.count["execute"] - before == 3
            coins = [
                each
                async for each in listener.owned_objects(listener.address, f"0x2::coin::Coin<{SUI_COIN}>")
            ]
            assert len(coins) <= 4  # not one for each share
            assert [each.share for each in back] == shares
            assert sorted(each.amount for each in back) == list(range(1, 131))
            assert (await shows.read_show(listener, id)).show.pot == 0

    chain_run(work())
