"""What every store of a mailbox has to do: `CHECKS`, which each engine's test calls."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Protocol

from dtp.identity import Identity
from dtp.messaging.ends.device import LocalDevice
from dtp.messaging.ends.keys import LIFETIME_MS
from dtp.messaging.mailbox import MailboxLimits, MailboxStore, Refusal, Tray
from dtp.messaging.mailbox.stamps import make_stamp, paid_hash, stamp_bits
from dtp.messaging.mailbox.store import NOTED, Deposit, StampFacts, access_hash, piece_hash

ALICE, BOB = (Identity(bytes([each]) * 32, bytes([each + 9]) * 32) for each in (1, 2))
NOW = 1_700_000_000
ACCESS = b"a" * 16


def envelope(number: int = 0, size: int = 512) -> bytes:
    return number.to_bytes(8, "big").ljust(size, b"\1")


def local(identity: Identity, now_ms: int = NOW * 1000, instance: bytes = b"i" * 16) -> LocalDevice:
    return LocalDevice.create_instance(identity, instance, now_ms)


class Registered(Protocol):
    """Returns an empty store that Alice's device collects from."""

    def __call__(self, limits: MailboxLimits | None = None, *, bits: int = 0) -> MailboxStore: ...


def register_alice(store: MailboxStore, bits: int = 0) -> None:
    """Have a store keep things for Alice's device."""
    device = local(ALICE)
    store.publish_keys(ALICE.id.key, device.keys.sequence, device.keys.encoded, device.make_one_time_keys(3))
    store.set_access(ALICE.id.key, access_hash(ACCESS), bits)


def known(number: int, size: int = 512, seconds: int = 1000) -> Deposit:
    return Deposit(ALICE.id.key, envelope(number, size), seconds, ACCESS)


def check_each_envelope_is_kept_once_in_order_until_it_is_acknowledged(registered: Registered) -> None:
    store = registered()
    outcomes = store.add_envelopes([known(1), known(2), known(1)], NOW)
    assert [each.refusal for each in outcomes] == [Refusal.DONE] * 3
    kept = store.fetch_envelopes(ALICE.id.key, Tray.KNOWN, 0, 10, 1 << 20)
    assert [each.envelope for each in kept] == [envelope(1), envelope(2)]
    assert store.fetch_envelopes(ALICE.id.key, Tray.KNOWN, kept[0].id, 10, 1 << 20) == kept[1:]
    store.acknowledge_envelopes(BOB.id.key, [kept[0].id])  # which isn't Bob's
    assert len(store.fetch_envelopes(ALICE.id.key, Tray.KNOWN, 0, 10, 1 << 20)) == 2
    store.acknowledge_envelopes(ALICE.id.key, [kept[0].id, kept[0].id, 999])
    assert store.fetch_envelopes(ALICE.id.key, Tray.KNOWN, 0, 10, 1 << 20) == kept[1:]
    status = store.device_status(ALICE.id.key)
    assert status is not None
    assert (status.count, status.bytes, status.one_time_keys) == (1, 512, 3)


def check_quotas_are_for_each_device_and_less_for_strangers(registered: Registered) -> None:
    store = registered(MailboxLimits(envelopes=4, strangers=2))
    stranger = [Deposit(ALICE.id.key, envelope(each), 1000) for each in range(10, 13)]
    refused = [each.refusal for each in store.add_envelopes(stranger, NOW)]
    assert refused == [Refusal.DONE, Refusal.DONE, Refusal.FULL]
    refused = [each.refusal for each in store.add_envelopes([known(1), known(2), known(3)], NOW)]
    assert refused == [Refusal.DONE, Refusal.DONE, Refusal.FULL]
    assert [each.envelope for each in store.fetch_envelopes(ALICE.id.key, Tray.STRANGERS, 0, 9, 1 << 20)] == [
        envelope(10),
        envelope(11),
    ]
    (found,) = store.add_envelopes([Deposit(BOB.id.key, envelope(), 9)], NOW)
    assert found.refusal is Refusal.UNKNOWN_RECIPIENT


def check_strangers_need_a_stamp_for_just_this_envelope(registered: Registered) -> None:
    store = registered(bits=8)
    (refused,) = store.add_envelopes([Deposit(ALICE.id.key, envelope(1), 9)], NOW)
    assert (refused.refusal, refused.detail) == (Refusal.STAMP_NEEDED, 8)
    stamp = make_stamp(ALICE.id.key, envelope(1), 8)
    assert stamp_bits(ALICE.id.key, envelope(1), stamp) >= 8
    others = [Deposit(ALICE.id.key, envelope(each), 9, stamp=stamp) for each in range(2, 40)]
    assert sum(each.refusal is Refusal.DONE for each in store.add_envelopes(others, NOW)) <= 3
    wrong = Deposit(ALICE.id.key, envelope(1), 9, b"x" * 16, stamp)  # a wrong access is none
    assert store.add_envelopes([wrong], NOW)[0].refusal is Refusal.DONE
    assert store.fetch_envelopes(ALICE.id.key, Tray.STRANGERS, 0, 1, 1)[0].envelope == envelope(1)


def check_a_mailbox_may_ask_strangers_for_more_work_than_its_owners_do(registered: Registered) -> None:
    store = registered(MailboxLimits(stamp_bits=9), bits=4)
    (refused,) = store.add_envelopes([Deposit(ALICE.id.key, envelope(1), 9)], NOW)
    assert (refused.refusal, refused.detail) == (Refusal.STAMP_NEEDED, 9)
    stamp = make_stamp(ALICE.id.key, envelope(1), 9)
    assert (
        store.add_envelopes([Deposit(ALICE.id.key, envelope(1), 9, stamp=stamp)], NOW)[0].refusal
        is Refusal.DONE
    )
    assert store.add_envelopes([known(2)], NOW)[0].refusal is Refusal.DONE  # whoever is known needs none


STAMP = b"s" * 16
STAMPED = MailboxLimits(price_mib_month=1, stamp_uses=2, stamps=2, lifetime=100)


def paid(number: int, device: bytes = ALICE.id.key) -> Deposit:
    return Deposit(device, envelope(number), 9, stamp=STAMP)


def find_stamp(store: MailboxStore, now: int = NOW, device: bytes = ALICE.id.key) -> StampFacts | None:
    return store.look_up_stamp(device, paid_hash(STAMP), now)


def pay_stamp(store: MailboxStore, now: int = NOW, stamp: bytes = STAMP) -> None:
    store.reserve_room(ALICE.id.key, 1 << 20, 50, now, paid_hash(stamp))


def check_a_paid_stamp_lets_so_many_envelopes_of_strangers_in(registered: Registered) -> None:
    store = registered(STAMPED)
    store.set_access(ALICE.id.key, access_hash(ACCESS), 4, 3)
    work = Deposit(ALICE.id.key, envelope(1), 9, stamp=make_stamp(ALICE.id.key, envelope(1), 8))
    for each in (work, paid(1)):  # work is none, and what nobody has paid
        (refused,) = store.add_envelopes([each], NOW)
        assert (refused.refusal, refused.detail, refused.stamp_mib) == (Refusal.STAMP_NEEDED, 0, 3)
    assert find_stamp(store) == StampFacts(3, 0, True)
    assert find_stamp(store, device=BOB.id.key) is None
    pay_stamp(store)
    assert find_stamp(store) == StampFacts(3, 2, True)
    of_friend = Deposit(ALICE.id.key, envelope(9), 9, ACCESS, STAMP)
    refusals = [each.refusal for each in store.add_envelopes([of_friend, paid(1), paid(2), paid(3)], NOW)]
    assert refusals == [Refusal.DONE] * 3 + [Refusal.STAMP_NEEDED]
    assert find_stamp(store) == StampFacts(3, 0, True)
    kept = store.fetch_envelopes(ALICE.id.key, Tray.STRANGERS, 0, 9, 1 << 20)
    assert [each.envelope for each in kept] == [envelope(1), envelope(2)]


def check_a_paid_stamp_is_of_one_recipient_and_ends(registered: Registered) -> None:
    store = registered(STAMPED)
    bob = local(BOB)
    store.publish_keys(BOB.id.key, bob.keys.sequence, bob.keys.encoded, [])
    for each in (ALICE, BOB):
        store.set_access(each.id.key, access_hash(ACCESS), 0, 1)
    pay_stamp(store)
    assert store.add_envelopes([paid(1, BOB.id.key)], NOW)[0].refusal is Refusal.STAMP_NEEDED
    assert store.add_envelopes([paid(1)], NOW + 99)[0].refusal is Refusal.DONE
    assert store.add_envelopes([paid(2)], NOW + 100)[0].refusal is Refusal.STAMP_NEEDED
    assert find_stamp(store, NOW + 100) == StampFacts(1, 0, True)


def check_paid_stamps_are_bounded_and_leave_with_their_device(registered: Registered) -> None:
    store = registered(STAMPED)
    store.set_access(ALICE.id.key, access_hash(ACCESS), 0, 1)
    pay_stamp(store)
    pay_stamp(store, NOW + 50, b"t" * 16)
    assert find_stamp(store, NOW + 50) == StampFacts(1, 2, False)
    store.expire_envelopes(NOW + 100)
    assert find_stamp(store, NOW + 100) == StampFacts(1, 0, True)
    pay_stamp(store, NOW + 100)
    store.forget_device(ALICE.id.key)
    register_alice(store)
    assert find_stamp(store, NOW + 100) == StampFacts(0, 0, True)


def check_what_is_kept_for_long_enough_goes_and_makes_room(registered: Registered) -> None:
    store = registered(MailboxLimits(lifetime=50, envelopes=2))
    store.add_envelopes([known(1, seconds=10), known(2, seconds=10**9)], NOW)
    store.put_piece(ALICE.id.key, b"piece", 10, ACCESS, NOW)
    assert store.expire_envelopes(NOW + 9) == 0
    assert store.expire_envelopes(NOW + 10) == 2
    assert store.get_piece(piece_hash(b"piece")) is None
    assert store.add_envelopes([known(3)], NOW)[0].refusal is Refusal.DONE
    assert store.expire_envelopes(NOW + 50) == 2
    status = store.device_status(ALICE.id.key)
    assert status is not None
    assert (status.count, status.bytes, status.strangers) == (0, 0, 0)


def check_up_to_when_things_were_forgotten_is_noted(registered: Registered) -> None:
    store = registered()
    assert store.last_expiry() is None
    store.add_envelopes([known(1)], NOW)
    assert store.last_expiry() == 0
    for told, noted in ((NOW, NOW), (NOW + NOTED - 1, NOW), (NOW - 10**6, NOW), (NOW + NOTED, NOW + NOTED)):
        assert store.expire_envelopes(told) == 0
        assert store.last_expiry() == noted
    assert store.expire_envelopes(NOW + 2 * NOTED) == 1
    assert store.last_expiry() is None
    store.put_piece(ALICE.id.key, b"piece", 10, ACCESS, NOW)
    assert store.last_expiry() == NOW + 2 * NOTED


def check_a_one_time_key_is_given_once_and_older_keys_are_refused(registered: Registered) -> None:
    store = registered()
    keys, first = store.take_keys(ALICE.id.key) or (b"", b"")
    given = {first} | {(store.take_keys(ALICE.id.key) or (b"", b""))[1] for _ in range(2)}
    assert len(given) == 3
    assert store.take_keys(ALICE.id.key) == (keys, b"")
    older = local(ALICE, NOW * 1000 - 1)
    refused = store.publish_keys(ALICE.id.key, older.keys.sequence, older.keys.encoded, [])
    assert refused.refusal is Refusal.OLDER_KEYS
    told = older.keys.sequence, older.keys.encoded, older.make_one_time_keys(1)
    assert store.publish_keys(ALICE.id.key, *told, NOW * 1000).refusal is Refusal.OLDER_KEYS
    assert not store.publish_keys(
        ALICE.id.key, *told, NOW * 1000 - 1
    ).refusal  # what is there is from the future
    assert store.take_keys(ALICE.id.key)[0] == older.keys.encoded  # type: ignore[index]
    newer = local(ALICE, NOW * 1000 + 1, b"j" * 16)
    store.publish_keys(ALICE.id.key, newer.keys.sequence, newer.keys.encoded, newer.make_one_time_keys(1))
    assert store.take_keys(ALICE.id.key)[0] == newer.keys.encoded  # type: ignore[index]
    assert store.take_keys(BOB.id.key) is None


def check_one_time_keys_of_an_instance_before_are_not_given_out(registered: Registered) -> None:
    store = registered()
    newer = local(ALICE, NOW * 1000 + 1, b"j" * 16)
    (one,) = newer.make_one_time_keys(1)
    store.publish_keys(ALICE.id.key, newer.keys.sequence, newer.keys.encoded, [one])
    assert store.take_keys(ALICE.id.key) == (newer.keys.encoded, one)
    assert store.take_keys(ALICE.id.key) == (newer.keys.encoded, b"")


def check_a_device_that_leaves_leaves_nothing(registered: Registered) -> None:
    store = registered()
    store.add_envelopes([known(1)], NOW)
    store.put_piece(ALICE.id.key, b"piece", 10, ACCESS, NOW)
    store.forget_device(ALICE.id.key)
    store.forget_device(ALICE.id.key)
    assert store.device_status(ALICE.id.key) is None
    assert store.get_piece(piece_hash(b"piece")) is None
    registered_again = local(ALICE)
    store.publish_keys(ALICE.id.key, 1, registered_again.keys.encoded, [])
    assert store.fetch_envelopes(ALICE.id.key, Tray.KNOWN, 0, 9, 99999) == []


def check_a_mailbox_with_enough_recipients_takes_no_more(registered: Registered) -> None:
    store = registered(MailboxLimits(recipients=1))
    bob = local(BOB)
    assert store.publish_keys(BOB.id.key, 1, bob.keys.encoded, []).refusal is Refusal.FULL


def check_devices_whose_keys_have_ended_make_room_unless_something_waits(registered: Registered) -> None:
    store = registered(MailboxLimits(recipients=1))
    later = local(BOB, NOW * 1000 + LIFETIME_MS + 1)
    store.add_envelopes([known(1)], NOW)
    assert store.publish_keys(BOB.id.key, later.keys.sequence, later.keys.encoded, []).refusal is Refusal.FULL
    store.acknowledge_envelopes(
        ALICE.id.key, [store.fetch_envelopes(ALICE.id.key, Tray.KNOWN, 0, 1, 1 << 20)[0].id]
    )
    soon = local(BOB, NOW * 1000 + LIFETIME_MS)
    assert store.publish_keys(BOB.id.key, soon.keys.sequence, soon.keys.encoded, []).refusal is Refusal.FULL
    assert not store.publish_keys(BOB.id.key, later.keys.sequence, later.keys.encoded, []).refusal
    assert store.device_status(ALICE.id.key) is None
    alice = local(ALICE, later.keys.sequence)
    told = (alice.keys.sequence, alice.keys.encoded, [])
    assert store.publish_keys(ALICE.id.key, *told).refusal is Refusal.FULL


def check_pieces_are_for_who_is_known_and_within_the_quota(registered: Registered) -> None:
    store = registered(MailboxLimits(recipient_bytes=1000))
    put = store.put_piece
    assert put(ALICE.id.key, b"x" * 600, 9, b"b" * 16, NOW).refusal is Refusal.UNKNOWN_RECIPIENT
    assert put(ALICE.id.key, b"x" * 600, 9, ACCESS, NOW).refusal is Refusal.DONE
    assert put(ALICE.id.key, b"x" * 600, 9, ACCESS, NOW).refusal is Refusal.DONE  # the same one
    assert put(ALICE.id.key, b"y" * 600, 9, ACCESS, NOW).refusal is Refusal.FULL
    assert store.has_pieces([piece_hash(b"x" * 600), piece_hash(b"y" * 600)]) == [True, False]


def check_who_pays_for_no_room_has_little_and_loses_nothing_that_is_there(registered: Registered) -> None:
    limits = MailboxLimits(price_mib_month=1, free_bytes=1024, recipient_bytes=4096, grace=100)
    store = registered(limits)

    def refusals(now: int, *numbers: int) -> list[Refusal]:
        return [
            each.refusal
            for each in store.add_envelopes([known(each, seconds=10**6) for each in numbers], now)
        ]

    assert refusals(NOW, 1, 2, 3) == [Refusal.DONE, Refusal.DONE, Refusal.NOT_PAID]
    assert store.put_piece(ALICE.id.key, b"x", 9, ACCESS, NOW).refusal is Refusal.NOT_PAID
    assert store.reserve_room(BOB.id.key, 2048, 50, NOW) is None  # of whom nothing is known
    status = store.reserve_room(ALICE.id.key, 2048, 50, NOW)
    assert status is not None
    assert (status.reserved, status.paid_until) == (2048, NOW + 50)
    assert refusals(NOW + 149, 3) == [Refusal.DONE]  # within the grace
    assert refusals(NOW + 150, 4) == [Refusal.NOT_PAID]
    assert len(store.fetch_envelopes(ALICE.id.key, Tray.KNOWN, 0, 9, 1 << 20)) == 3
    store.reserve_room(ALICE.id.key, 8192, 50, NOW + 150)
    assert refusals(NOW + 150, *range(4, 10)) == [Refusal.DONE] * 5 + [Refusal.FULL]  # all that anybody has
    assert registered_again(store, limits) == (8192, NOW + 200)


def registered_again(store: MailboxStore, limits: MailboxLimits) -> tuple[int, int]:
    """Return what a device has paid for once it has published its keys again."""
    register_alice(store)
    status = store.device_status(ALICE.id.key)
    assert status is not None
    return status.reserved, status.paid_until


def check_what_is_left_of_room_counts_for_another_size(registered: Registered) -> None:
    store = registered(MailboxLimits(price_mib_month=1))
    store.reserve_room(ALICE.id.key, 1000, 100, NOW)
    for size, room in (
        (1000, (1000, NOW + 200)),
        (4000, (4000, NOW + 60 + 100 + 35)),
        (1000, (4000, NOW + 60 + 100 + 35 + 25)),  # nobody makes another's room smaller
    ):
        status = store.reserve_room(ALICE.id.key, size, 100, NOW + 60)
        assert status is not None
        assert (status.reserved, status.paid_until) == room
    status = store.reserve_room(ALICE.id.key, 1000, 100, NOW + 220)  # when that is over
    assert status is not None
    assert (status.reserved, status.paid_until) == (1000, NOW + 320)


def check_strangers_leave_half_of_the_room_to_who_is_known(registered: Registered) -> None:
    store = registered(MailboxLimits(price_mib_month=1, free_bytes=2048))
    strangers = [Deposit(ALICE.id.key, envelope(each), 1000) for each in range(10, 14)]
    refused = [each.refusal for each in store.add_envelopes(strangers, NOW)]
    assert refused == [Refusal.DONE, Refusal.DONE, Refusal.FULL, Refusal.FULL]
    refused = [each.refusal for each in store.add_envelopes([known(1), known(2), known(3)], NOW)]
    assert refused == [Refusal.DONE, Refusal.DONE, Refusal.NOT_PAID]


def check_who_has_paid_is_not_forgotten_for_another(registered: Registered) -> None:
    store = registered(MailboxLimits(recipients=1, price_mib_month=1))
    later = local(BOB, NOW * 1000 + LIFETIME_MS + 1)
    until = NOW + LIFETIME_MS // 1000 + 1
    store.reserve_room(ALICE.id.key, 512, until - NOW, NOW)
    assert store.publish_keys(BOB.id.key, later.keys.sequence, later.keys.encoded, []).refusal is Refusal.FULL
    after = local(BOB, (until + 1) * 1000)
    assert not store.publish_keys(BOB.id.key, after.keys.sequence, after.keys.encoded, []).refusal


def check_a_card_is_kept_for_a_device_that_is_known(registered: Registered) -> None:
    store = registered()
    assert (store.get_card(ALICE.id.key), store.get_card(BOB.id.key)) == (b"", None)
    assert store.put_card(BOB.id.key, b"card").refusal is Refusal.UNKNOWN_RECIPIENT
    for card in (b"card", b"another"):
        assert store.put_card(ALICE.id.key, card).refusal is Refusal.DONE
        assert store.get_card(ALICE.id.key) == card
    store.forget_device(ALICE.id.key)
    assert store.get_card(ALICE.id.key) is None


def check_no_quota_is_passed(stores: Sequence[MailboxStore], most: int) -> None:
    """Have several writers of one mailbox fill it at once: `most` envelopes of 512 bytes fit."""
    outcomes: list[Refusal] = []

    def write(store: MailboxStore, number: int) -> None:
        for at in range(0, 60, 3):
            kept = store.add_envelopes([known(1000 * number + at + each) for each in range(3)], NOW)
            outcomes.extend(each.refusal for each in kept)

    writers = [threading.Thread(target=write, args=(store, at)) for at, store in enumerate(stores)]
    for each in writers:
        each.start()
    for each in writers:
        each.join()
    status = stores[0].device_status(ALICE.id.key)
    assert status is not None
    assert (status.count, status.bytes) == (most, 512 * most)
    assert outcomes.count(Refusal.DONE) == most
    assert outcomes.count(Refusal.FULL) == 60 * len(stores) - most


def check_a_stamp_is_used_up_once(stores: Sequence[MailboxStore], uses: int) -> None:
    """Have several processes of one mailbox let strangers in by one stamp at once: it is good for `uses`."""
    stores[0].set_access(ALICE.id.key, access_hash(ACCESS), 0, 1)
    pay_stamp(stores[0])
    while any(find_stamp(each) != StampFacts(1, uses, True) for each in stores):
        pass  # until each of them has heard of it
    outcomes: list[Refusal] = []

    def write(store: MailboxStore, number: int) -> None:
        outcomes.extend(store.add_envelopes([paid(1000 * number + at)], NOW)[0].refusal for at in range(uses))

    writers = [threading.Thread(target=write, args=(store, at)) for at, store in enumerate(stores)]
    for each in writers:
        each.start()
    for each in writers:
        each.join()
    assert outcomes.count(Refusal.DONE) == uses
    assert outcomes.count(Refusal.STAMP_NEEDED) == uses * (len(stores) - 1)


CHECKS: tuple[Callable[[Registered], None], ...] = (
    check_each_envelope_is_kept_once_in_order_until_it_is_acknowledged,
    check_quotas_are_for_each_device_and_less_for_strangers,
    check_strangers_need_a_stamp_for_just_this_envelope,
    check_a_mailbox_may_ask_strangers_for_more_work_than_its_owners_do,
    check_a_paid_stamp_lets_so_many_envelopes_of_strangers_in,
    check_a_paid_stamp_is_of_one_recipient_and_ends,
    check_paid_stamps_are_bounded_and_leave_with_their_device,
    check_what_is_kept_for_long_enough_goes_and_makes_room,
    check_up_to_when_things_were_forgotten_is_noted,
    check_a_one_time_key_is_given_once_and_older_keys_are_refused,
    check_one_time_keys_of_an_instance_before_are_not_given_out,
    check_a_device_that_leaves_leaves_nothing,
    check_a_mailbox_with_enough_recipients_takes_no_more,
    check_devices_whose_keys_have_ended_make_room_unless_something_waits,
    check_pieces_are_for_who_is_known_and_within_the_quota,
    check_a_card_is_kept_for_a_device_that_is_known,
    check_who_pays_for_no_room_has_little_and_loses_nothing_that_is_there,
    check_what_is_left_of_room_counts_for_another_size,
    check_strangers_leave_half_of_the_room_to_who_is_known,
    check_who_has_paid_is_not_forgotten_for_another,
)


def check_store(
    check: Callable[[Registered], None], open_empty: Callable[[MailboxLimits | None], MailboxStore]
) -> None:
    """Run one of `CHECKS` with the stores that `open_empty` opens, which are closed behind it."""
    made: list[MailboxStore] = []

    def registered(limits: MailboxLimits | None = None, *, bits: int = 0) -> MailboxStore:
        made.append(open_empty(limits))
        register_alice(made[-1], bits)
        return made[-1]

    try:
        check(registered)
    finally:
        for each in made:
            each.close()
