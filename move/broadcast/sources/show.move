/// A live broadcast that is on air for as long as it is paid for.
///
/// A show is funded or ticketed. A funded show goes on air when its pot has enough, each slot takes the rate, and it
/// pauses by itself when the pot is below one slot. A ticketed show goes on air when enough tickets are sold by its
/// start-by; each slot takes an equal part of what is left, so the last slot takes the rest.
///
/// The producer posts a hash for each slot that is over, never faster than time passes, and so extends the show's hash
/// chain. Contributors hold shares of the pot: who joins late doesn't pay for what is past, and whoever leaves takes
/// back its part of what is unspent, by itself and at once. Slots that have begun then are paid.
module broadcast::show;

use std::type_name::{Self, TypeName};
use sui::{balance::{Self, Balance}, clock::Clock, coin::{Self, Coin}, event, hash};

// === Constants ===

/// Version of the shared objects that this code works on.
const VERSION: u16 = 1;

/// Bounds of a slot: one second to one hour.
const MIN_SLOT_MS: u64 = 1_000;
const MAX_SLOT_MS: u64 = 3_600_000;
/// Slots that may be posted at once. A producer who sends nothing takes a batch and a slot from whoever leaves as soon as
/// nothing comes.
const MAX_BATCH: u64 = 64;
/// Slots of a ticketed show.
const MAX_SLOTS: u64 = 100_000;
/// Farthest start-by: 366 days, so that a slip of the pen doesn't bury the money.
const MAX_WAIT_MS: u64 = 31_622_400_000;
/// Bytes of what is said of where a show is heard.
const MAX_HINT_BYTES: u64 = 512;
/// Bytes of a tip's, request's or question's text.
const MAX_TEXT_BYTES: u64 = 4_096;
/// Length of an Ed25519 public key, and of a hash.
const KEY_BYTES: u64 = 32;
/// Once a MIST of the pot is so many shares, its holders have spent it: the next contribution begins a new round.
const SPENT: u256 = 1 << 40;
const MAX_U64: u64 = 0xffff_ffff_ffff_ffff;
/// Last byte of an Ed25519 public key without the sign of x.
const SIGN_MASK: u8 = 0x7f;
/// y of the eight points of small order, without the sign of x.
const SMALL_ORDER: vector<vector<u8>> = vector[
    x"0000000000000000000000000000000000000000000000000000000000000000",
    x"0100000000000000000000000000000000000000000000000000000000000000",
    x"26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
    x"c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
    x"ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
];
/// First byte of the smallest y that isn't reduced, 2^255 - 19; its last is `SIGN_MASK`, the others are 0xff.
const UNREDUCED: u8 = 0xed;

/// Waits for money or tickets, or was paused by itself.
const STATE_OFF: u8 = 0;
/// Slots are paid.
const STATE_ON_AIR: u8 = 1;
/// Over: all that is unspent goes back.
const STATE_ENDED: u8 = 2;

/// A tip, with or without a text. Further kinds are 1, a request to the producer, and 2, a question or message for the
/// audience line.
const KIND_TIP: u64 = 0;
const KINDS: u64 = 3;

// === Errors ===

#[error(code = 0)]
const EWrongVersion: vector<u8> =
    b"object is of another version: call the package's newest release";
#[error(code = 1)]
const EUpToDate: vector<u8> = b"the object is of this version already";
#[error(code = 2)]
const EWrongCap: vector<u8> = b"this cap belongs to another show";
#[error(code = 3)]
const EBadKey: vector<u8> = b"an Ed25519 public key is 32 bytes";
#[error(code = 4)]
const EWeakKey: vector<u8> =
    b"anyone can sign for this key: it is a point of small order, or not in its one encoding";
#[error(code = 5)]
const EBadSlot: vector<u8> = b"a slot is between one second and one hour";
#[error(code = 6)]
const EBadBatch: vector<u8> = b"between 1 and 64 slots may be posted at once";
#[error(code = 7)]
const EBadRate: vector<u8> = b"a slot costs something, and the pot starts with one slot at least";
#[error(code = 8)]
const EBadTickets: vector<u8> =
    b"a ticket costs something, at least one is sold, and a show has 1 to 100,000 slots";
#[error(code = 9)]
const EBadStartBy: vector<u8> = b"a show starts within 366 days from now";
#[error(code = 10)]
const EHintTooLong: vector<u8> = b"a hint is at most 512 bytes";
#[error(code = 11)]
const EEnded: vector<u8> = b"the show is over";
#[error(code = 12)]
const ETooLittle: vector<u8> = b"the payment is below the least that the show takes";
#[error(code = 13)]
const EWrongPrice: vector<u8> = b"pay exactly what a ticket costs";
#[error(code = 14)]
const ENotTicketed: vector<u8> = b"this show sells no tickets: contribute to it";
#[error(code = 15)]
const ETicketed: vector<u8> = b"this show is paid by tickets: buy one";
#[error(code = 16)]
const EStartByPassed: vector<u8> = b"too few tickets were sold in time: no more are";
#[error(code = 17)]
const ENotOnAir: vector<u8> = b"the show isn't on air: what is posted would not be paid";
#[error(code = 18)]
const ETooEarly: vector<u8> = b"the slot isn't over yet";
#[error(code = 19)]
const ENoHashes: vector<u8> = b"there is no slot to post";
#[error(code = 20)]
const EBadHash: vector<u8> = b"a hash is 32 bytes";
#[error(code = 21)]
const EForeignShare: vector<u8> = b"this share is of another show";
#[error(code = 22)]
const ETicketsStand: vector<u8> =
    b"tickets stand until the show has started, its start-by has passed or it has ended";
#[error(code = 23)]
const EBadKind: vector<u8> = b"kind is 0 (tip), 1 (request) or 2 (question)";
#[error(code = 24)]
const ETextTooLong: vector<u8> = b"a text is at most 4,096 bytes";
#[error(code = 25)]
const ENothingAsked: vector<u8> = b"nothing of that number was asked";
#[error(code = 26)]
const EStillRunning: vector<u8> = b"the show has started, or its start-by has not passed yet";
#[error(code = 27)]
const ENotEmpty: vector<u8> = b"the show isn't over, or somebody's money is in it still";
#[error(code = 28)]
const EBadPrices: vector<u8> = b"there is a price for a tip, for a request and for a question";

// === Types ===

/// A show. Shared; deleted by its producer when it is over and empty.
public struct Show<phantom T> has key {
    id: UID,
    version: u16,
    /// Ed25519 key that signs the segments.
    key: vector<u8>,
    /// Where it is heard, as the producer says: an address, a topic.
    hint: vector<u8>,
    slot_ms: u64,
    /// Slots that may be posted at once.
    batch: u64,
    /// Of a funded show: what a slot costs, and the pot with which it goes on air. 0 for ticketed ones.
    rate: u64,
    start_pot: u64,
    /// Of a ticketed show: price, fewest tickets, slots in all. 0 for funded ones.
    ticket_price: u64,
    fewest: u64,
    slots: u64,
    /// Last ms at which a ticketed show can start; 0 for funded ones.
    start_by_ms: u64,
    /// Least that is taken with a tip, a request and a question.
    prices: vector<u64>,
    state: u8,
    pot: Balance<T>,
    earned: Balance<T>,
    /// What those who left a funded show have paid for slots that aren't posted yet. The pot pays the rest of them.
    prepaid: u64,
    /// Shares of the pot, and the round that they are of: those of earlier rounds have been spent.
    shares: u256,
    round: u64,
    /// Tickets that were bought and not taken back.
    tickets: u64,
    posted: u64,
    /// Head of the hash chain: blake2b-256 of the head before and the slot's hash. Begins with 32 zero bytes.
    head: vector<u8>,
    /// When the next slot is over.
    due_ms: u64,
    asked: u64,
    /// Sums since the beginning: contributed = released + returned + pot; released + tipped = collected + earned.
    contributed: u64,
    released: u64,
    returned: u64,
    tipped: u64,
    collected: u64,
}

/// Who has it is the producer of the show.
public struct ProducerCap has key, store {
    id: UID,
    show: ID,
}

/// A part of a show's pot, and a ticket to it where tickets are sold.
public struct Share<phantom T> has key, store {
    id: UID,
    show: ID,
    round: u64,
    shares: u256,
}

// === Events ===

/// A show was made.
public struct ShowCreated has copy, drop {
    show: ID,
    cap: ID,
    key: vector<u8>,
    coin: TypeName,
}

/// Somebody has put money into the pot, or bought a ticket.
public struct Contributed has copy, drop {
    show: ID,
    share: ID,
    contributor: address,
    amount: u64,
    pot: u64,
    tickets: u64,
}

/// The show is on air, or isn't any more, or is over: the new state.
public struct StateChanged has copy, drop {
    show: ID,
    state: u8,
    pot: u64,
}

/// Slots were posted and paid. `first` is the number of the first one, from 0; `released` what the pot paid.
public struct SlotsPosted has copy, drop {
    show: ID,
    first: u64,
    hashes: vector<vector<u8>>,
    head: vector<u8>,
    released: u64,
    pot: u64,
}

/// Somebody has taken back what was unspent. `paid` is its part of slots that have begun and aren't posted yet.
public struct Returned has copy, drop {
    show: ID,
    share: ID,
    amount: u64,
    paid: u64,
    pot: u64,
}

/// A tip, a request or a question, by number, from 0. `sealed` says that the text is for the producer alone.
public struct Asked has copy, drop {
    show: ID,
    number: u64,
    kind: u8,
    from: address,
    amount: u64,
    text: vector<u8>,
    sealed: bool,
}

/// Somebody has added to what was asked.
public struct Raised has copy, drop {
    show: ID,
    number: u64,
    from: address,
    amount: u64,
}

/// The producer has taken what was earned.
public struct Collected has copy, drop {
    show: ID,
    amount: u64,
}

/// A show was moved to this version.
public struct Migrated has copy, drop {
    show: ID,
    from: u16,
    to: u16,
}

// === Making ===

/// A funded show: on air from a pot of `start_pot` on, for `rate` a slot. `prices` are the least for a tip, a request
/// and a question. Share it with `share`.
public fun new_funded<T>(
    key: vector<u8>,
    hint: vector<u8>,
    slot_ms: u64,
    batch: u64,
    rate: u64,
    start_pot: u64,
    prices: vector<u64>,
    ctx: &mut TxContext,
): (Show<T>, ProducerCap) {
    assert!(rate > 0 && start_pot >= rate, EBadRate);
    let (mut show, cap) = new<T>(key, hint, slot_ms, batch, prices, ctx);
    show.rate = rate;
    show.start_pot = start_pot;
    (show, cap)
}

/// A ticketed show of `slots` slots: on air when `fewest` tickets are sold by `start_by_ms`. Share it with `share`.
public fun new_ticketed<T>(
    key: vector<u8>,
    hint: vector<u8>,
    slot_ms: u64,
    batch: u64,
    ticket_price: u64,
    fewest: u64,
    slots: u64,
    start_by_ms: u64,
    prices: vector<u64>,
    clock: &Clock,
    ctx: &mut TxContext,
): (Show<T>, ProducerCap) {
    assert!(ticket_price > 0 && fewest > 0 && slots > 0 && slots <= MAX_SLOTS, EBadTickets);
    let now = clock.timestamp_ms();
    assert!(start_by_ms > now && start_by_ms - now <= MAX_WAIT_MS, EBadStartBy);
    let (mut show, cap) = new<T>(key, hint, slot_ms, batch, prices, ctx);
    show.ticket_price = ticket_price;
    show.fewest = fewest;
    show.slots = slots;
    show.start_by_ms = start_by_ms;
    (show, cap)
}

/// Share a new show.
public fun share<T>(show: Show<T>) { transfer::share_object(show) }

/// Say anew where the show is heard.
public fun set_hint<T>(show: &mut Show<T>, cap: &ProducerCap, hint: vector<u8>) {
    show.assert_producer(cap);
    assert!(hint.length() <= MAX_HINT_BYTES, EHintTooLong);
    show.hint = hint;
}

/// Move a show to this version. Anyone may call it: it changes nothing else.
public fun migrate<T>(show: &mut Show<T>) {
    assert!(show.version < VERSION, EUpToDate);
    event::emit(Migrated { show: object::id(show), from: show.version, to: VERSION });
    show.version = VERSION;
}

// === Paying ===

/// Put money into the pot of a funded show, for a share of it.
public fun contribute<T>(
    show: &mut Show<T>,
    payment: Coin<T>,
    clock: &Clock,
    ctx: &mut TxContext,
): Share<T> {
    show.assert_running();
    assert!(show.rate > 0, ETicketed);
    let share = show.take(payment, ctx);
    if (show.state == STATE_OFF && show.pot.value() >= show.start_pot) show.go_on_air(clock);
    share
}

/// Buy a ticket: a share of the pot, too. Before the show starts tickets stand until its start-by.
public fun buy_ticket<T>(
    show: &mut Show<T>,
    payment: Coin<T>,
    clock: &Clock,
    ctx: &mut TxContext,
): Share<T> {
    show.assert_running();
    assert!(show.ticket_price > 0, ENotTicketed);
    assert!(payment.value() == show.ticket_price, EWrongPrice);
    assert!(show.state == STATE_ON_AIR || !show.is_late(clock), EStartByPassed);
    show.tickets = show.tickets + 1;
    let share = show.take(payment, ctx);
    if (show.state == STATE_OFF && show.tickets >= show.fewest) show.go_on_air(clock);
    share
}

/// Take back what is unspent of a share. Of a show that is on air its part of slots that have begun is paid: of the one
/// that runs, and of at most a batch that is over and not posted. A producer who is silent for two batches has none.
/// Tickets stand until the show has started, and it goes on with whoever stays.
public fun take_back<T>(
    show: &mut Show<T>,
    share: Share<T>,
    clock: &Clock,
    ctx: &mut TxContext,
): Coin<T> {
    show.assert_share(&share);
    if (show.ticket_price > 0) {
        assert!(!show.do_tickets_stand(clock), ETicketsStand);
        show.tickets = show.tickets - 1;
    };
    let Share { id, round, shares, .. } = share;
    let pot = show.pot.value();
    let begun = show.begun(clock);
    let amount = show.part_of(pot - begun, round, shares);
    let paid = show.part_of(pot, round, shares) - amount;
    if (round == show.round) show.shares = show.shares - shares;
    show.returned = show.returned + amount;
    let money = show.pot.split(amount);
    show.release(paid);
    // A slot of a funded show costs what it costs, so those who stay pay the rest of it. One of a ticketed show costs a
    // part of the pot, of which they still have theirs.
    if (show.rate > 0) show.prepaid = show.prepaid + paid;
    event::emit(Returned {
        show: object::id(show),
        share: id.to_inner(),
        amount,
        paid,
        pot: show.pot.value(),
    });
    id.delete();
    show.pause_if_unpaid();
    coin::from_balance(money, ctx)
}

/// Tip, request or ask. `sealed` says that the text is for the producer alone. Returns its number.
public fun ask<T>(
    show: &mut Show<T>,
    kind: u8,
    payment: Coin<T>,
    text: vector<u8>,
    sealed: bool,
    ctx: &mut TxContext,
): u64 {
    show.assert_running();
    assert!((kind as u64) < KINDS, EBadKind);
    assert!(text.length() <= MAX_TEXT_BYTES, ETextTooLong);
    let least = show.prices[kind as u64];
    let amount = show.take_tip(payment, least);
    let number = show.asked;
    show.asked = number + 1;
    let from = ctx.sender();
    event::emit(Asked { show: object::id(show), number, kind, from, amount, text, sealed });
    number
}

/// Add to what was asked, so that the producer sees it sooner. Costs at least as much as a tip.
public fun raise<T>(show: &mut Show<T>, number: u64, payment: Coin<T>, ctx: &mut TxContext) {
    show.assert_running();
    assert!(number < show.asked, ENothingAsked);
    let least = show.prices[KIND_TIP];
    let amount = show.take_tip(payment, least);
    event::emit(Raised { show: object::id(show), number, from: ctx.sender(), amount });
}

// === Producing ===

/// Post the hashes of slots that are over, in order: each extends the hash chain and is paid.
public fun post<T>(
    show: &mut Show<T>,
    cap: &ProducerCap,
    hashes: vector<vector<u8>>,
    clock: &Clock,
) {
    show.assert_producer(cap);
    let count = hashes.length();
    assert!(count > 0, ENoHashes);
    assert!(count <= show.batch, EBadBatch);
    let now = clock.timestamp_ms();
    // Who was silent can't make up for it: of the time that has passed, a batch counts.
    let backlog = (show.batch - 1) * show.slot_ms;
    if (now > show.due_ms + backlog) show.due_ms = now - backlog;
    let first = show.posted;
    let mut released = 0;
    let mut i = 0;
    while (i < count) {
        assert!(hashes[i].length() == KEY_BYTES, EBadHash);
        assert!(show.state == STATE_ON_AIR, ENotOnAir);
        assert!(now >= show.due_ms, ETooEarly);
        released = released + show.release_slot(hashes[i]);
        i = i + 1;
    };
    event::emit(SlotsPosted {
        show: object::id(show),
        first,
        hashes,
        head: show.head,
        released,
        pot: show.pot.value(),
    });
}

/// Take what was earned.
public fun collect<T>(show: &mut Show<T>, cap: &ProducerCap, ctx: &mut TxContext): Coin<T> {
    show.assert_producer(cap);
    let amount = show.earned.value();
    show.collected = show.collected + amount;
    event::emit(Collected { show: object::id(show), amount });
    coin::from_balance(show.earned.withdraw_all(), ctx)
}

/// End a show, or cancel one that has not begun: what is unspent goes back to those who have shares.
public fun end<T>(show: &mut Show<T>, cap: &ProducerCap) {
    show.assert_producer(cap);
    assert!(show.state != STATE_ENDED, EEnded);
    show.change(STATE_ENDED);
}

/// End a ticketed show whose start-by has passed with too few tickets. Anyone may call it.
public fun expire<T>(show: &mut Show<T>, clock: &Clock) {
    show.assert_running();
    assert!(show.ticket_price > 0, ENotTicketed);
    assert!(show.state == STATE_OFF && show.is_late(clock), EStillRunning);
    show.change(STATE_ENDED);
}

/// Delete a show that is over and empty, and its cap.
public fun destroy<T>(show: Show<T>, cap: ProducerCap) {
    show.assert_producer(&cap);
    let empty = show.pot.value() == 0 && show.earned.value() == 0;
    assert!(show.state == STATE_ENDED && empty, ENotEmpty);
    let Show { id, pot, earned, .. } = show;
    id.delete();
    pot.destroy_zero();
    earned.destroy_zero();
    let ProducerCap { id, .. } = cap;
    id.delete();
}

// === Reading ===

/// 0 off, 1 on air, 2 ended.
public fun state<T>(show: &Show<T>): u8 { show.state }

/// Ed25519 key that signs the segments.
public fun key<T>(show: &Show<T>): vector<u8> { show.key }

/// Where it is heard.
public fun hint<T>(show: &Show<T>): vector<u8> { show.hint }

/// What those who left have paid for slots that aren't posted yet.
public fun prepaid<T>(show: &Show<T>): u64 { show.prepaid }

/// What is unspent.
public fun pot<T>(show: &Show<T>): u64 { show.pot.value() }

/// What the producer can collect.
public fun earned<T>(show: &Show<T>): u64 { show.earned.value() }

/// Tickets that were bought and not taken back.
public fun tickets<T>(show: &Show<T>): u64 { show.tickets }

/// Slots that were posted.
public fun posted<T>(show: &Show<T>): u64 { show.posted }

/// Head of the hash chain.
public fun head<T>(show: &Show<T>): vector<u8> { show.head }

/// When the next slot is over, in ms.
public fun due_ms<T>(show: &Show<T>): u64 { show.due_ms }

/// What the next slot costs; 0 when the show isn't on air.
public fun next_slot<T>(show: &Show<T>): u64 {
    if (show.state != STATE_ON_AIR) 0 else show.slot_price()
}

/// Sums since the beginning: contributed, released, returned, tipped, collected.
public fun sums<T>(show: &Show<T>): (u64, u64, u64, u64, u64) {
    (show.contributed, show.released, show.returned, show.tipped, show.collected)
}

/// The show that a share is of.
public fun show<T>(share: &Share<T>): ID { share.show }

/// What is unspent of a share, now: what `take_back` would give.
public fun value<T>(show: &Show<T>, share: &Share<T>, clock: &Clock): u64 {
    show.assert_share(share);
    show.part_of(show.pot.value() - show.begun(clock), share.round, share.shares)
}

/// Whether a share counts as a ticket: whether it is of this show.
public fun is_ticket<T>(show: &Show<T>, share: &Share<T>): bool { share.show == object::id(show) }

/// The head of a hash chain behind `head` and a slot's hash.
public fun next_head(head: vector<u8>, slot: vector<u8>): vector<u8> {
    let mut joined = head;
    joined.append(slot);
    hash::blake2b256(&joined)
}

// === Private ===

fun new<T>(
    key: vector<u8>,
    hint: vector<u8>,
    slot_ms: u64,
    batch: u64,
    prices: vector<u64>,
    ctx: &mut TxContext,
): (Show<T>, ProducerCap) {
    assert!(key.length() == KEY_BYTES, EBadKey);
    assert!(!is_weak_key(&key), EWeakKey);
    assert!(slot_ms >= MIN_SLOT_MS && slot_ms <= MAX_SLOT_MS, EBadSlot);
    assert!(batch > 0 && batch <= MAX_BATCH, EBadBatch);
    assert!(hint.length() <= MAX_HINT_BYTES, EHintTooLong);
    assert!(prices.length() == KINDS, EBadPrices);
    let show = Show<T> {
        id: object::new(ctx),
        version: VERSION,
        key,
        hint,
        slot_ms,
        batch,
        rate: 0,
        start_pot: 0,
        ticket_price: 0,
        fewest: 0,
        slots: 0,
        start_by_ms: 0,
        prices,
        state: STATE_OFF,
        pot: balance::zero(),
        earned: balance::zero(),
        prepaid: 0,
        shares: 0,
        round: 0,
        tickets: 0,
        posted: 0,
        head: x"0000000000000000000000000000000000000000000000000000000000000000",
        due_ms: 0,
        asked: 0,
        contributed: 0,
        released: 0,
        returned: 0,
        tipped: 0,
        collected: 0,
    };
    let cap = ProducerCap { id: object::new(ctx), show: object::id(&show) };
    event::emit(ShowCreated {
        show: object::id(&show),
        cap: object::id(&cap),
        key: show.key,
        coin: type_name::with_defining_ids<T>(),
    });
    (show, cap)
}

/// Put money into the pot, for a share of it.
fun take<T>(show: &mut Show<T>, payment: Coin<T>, ctx: &mut TxContext): Share<T> {
    let amount = payment.value();
    assert!(amount > 0, ETooLittle);
    let pot = show.pot.value() as u256;
    // A pot that has been spent, but for what no share is worth a MIST of, begins anew.
    if (show.shares >= pot * SPENT) {
        show.round = show.round + 1;
        show.shares = 0;
    };
    let shares = if (show.shares == 0) amount as u256 else (amount as u256) * show.shares / pot;
    assert!(shares > 0, ETooLittle);
    show.shares = show.shares + shares;
    show.contributed = show.contributed + amount;
    show.pot.join(payment.into_balance());
    let share = Share<T> {
        id: object::new(ctx),
        show: object::id(show),
        round: show.round,
        shares,
    };
    event::emit(Contributed {
        show: object::id(show),
        share: object::id(&share),
        contributor: ctx.sender(),
        amount,
        pot: show.pot.value(),
        tickets: show.tickets,
    });
    share
}

fun take_tip<T>(show: &mut Show<T>, payment: Coin<T>, least: u64): u64 {
    let amount = payment.value();
    assert!(amount > 0 && amount >= least, ETooLittle);
    show.tipped = show.tipped + amount;
    show.earned.join(payment.into_balance());
    amount
}

/// The part of `amount`, which is in the pot, that a number of shares has. The last one has all of it.
fun part_of<T>(show: &Show<T>, amount: u64, round: u64, shares: u256): u64 {
    if (round != show.round || show.shares == 0) 0
    else ((amount as u256) * shares / show.shares) as u64
}

fun slot_price<T>(show: &Show<T>): u64 {
    if (show.rate > 0) show.rate else show.pot.value() / (show.slots - show.posted)
}

/// What slots take of the pot that have begun and may still be posted: those that are over, at most a batch, and the one
/// that runs. Nothing once two batches are over.
fun begun<T>(show: &Show<T>, clock: &Clock): u64 {
    if (show.state != STATE_ON_AIR) return 0;
    let now = clock.timestamp_ms();
    let over = if (now < show.due_ms) 0 else (now - show.due_ms) / show.slot_ms + 1;
    if (over > 2 * show.batch) return 0;
    let mut count = min(over, show.batch) + 1;
    if (show.slots > 0) count = min(count, show.slots - show.posted);
    let price = show.slot_price();
    let cost = if (price > MAX_U64 / count) MAX_U64 else price * count;
    min(show.pot.value(), cost - min(cost, show.prepaid))
}

fun min(a: u64, b: u64): u64 { if (a < b) a else b }

/// Pay the producer out of the pot.
fun release<T>(show: &mut Show<T>, amount: u64) {
    let money = show.pot.split(amount);
    show.earned.join(money);
    show.released = show.released + amount;
}

fun release_slot<T>(show: &mut Show<T>, slot: vector<u8>): u64 {
    let price = show.slot_price();
    let prepaid = min(price, show.prepaid);
    show.prepaid = show.prepaid - prepaid;
    let amount = price - prepaid;
    show.release(amount);
    show.head = next_head(show.head, slot);
    show.posted = show.posted + 1;
    show.due_ms = show.due_ms + show.slot_ms;
    if (show.slots > 0 && show.posted == show.slots) show.change(STATE_ENDED)
    else show.pause_if_unpaid();
    amount
}

fun go_on_air<T>(show: &mut Show<T>, clock: &Clock) {
    show.due_ms = clock.timestamp_ms() + show.slot_ms;
    show.change(STATE_ON_AIR);
}

fun pause_if_unpaid<T>(show: &mut Show<T>) {
    let pot = show.pot.value();
    let unpaid = show.rate > 0 && pot < show.rate && show.prepaid < show.rate - pot;
    if (show.state == STATE_ON_AIR && unpaid) show.change(STATE_OFF);
}

fun change<T>(show: &mut Show<T>, state: u8) {
    show.state = state;
    event::emit(StateChanged { show: object::id(show), state, pot: show.pot.value() });
}

/// Whether tickets can't be taken back: before the show starts, but where it can't any more; and when it does, so that
/// nobody starts it with money that was borrowed for one transaction.
fun do_tickets_stand<T>(show: &Show<T>, clock: &Clock): bool {
    if (show.state == STATE_OFF) !show.is_late(clock)
    else
        show.state == STATE_ON_AIR && show.posted == 0
        && show.due_ms == clock.timestamp_ms() + show.slot_ms
}

/// Whether the start-by of a ticketed show that has not started has passed.
fun is_late<T>(show: &Show<T>, clock: &Clock): bool { clock.timestamp_ms() > show.start_by_ms }

/// True when signatures of the key can be made without its secret, or when it is not in the one encoding of its point.
/// The chain checks Ed25519 by ZIP-215: it takes such keys, and any message is signed by a point of small order.
fun is_weak_key(key: &vector<u8>): bool {
    let mut y = *key;
    let last = KEY_BYTES - 1;
    let top = y[last] & SIGN_MASK;
    *(&mut y[last]) = top;
    let small = SMALL_ORDER;
    small.contains(&y) || is_unreduced(&y)
}

/// True when y is 2^255 - 19 or more: its point has another encoding.
fun is_unreduced(y: &vector<u8>): bool {
    if (y[0] < UNREDUCED || y[KEY_BYTES - 1] != SIGN_MASK) return false;
    let mut i = 1;
    while (i < KEY_BYTES - 1) {
        if (y[i] != 0xff) return false;
        i = i + 1;
    };
    true
}

fun assert_version<T>(show: &Show<T>) { assert!(show.version == VERSION, EWrongVersion); }

fun assert_running<T>(show: &Show<T>) {
    show.assert_version();
    assert!(show.state != STATE_ENDED, EEnded);
}

fun assert_producer<T>(show: &Show<T>, cap: &ProducerCap) {
    show.assert_version();
    assert!(cap.show == object::id(show), EWrongCap);
}

fun assert_share<T>(show: &Show<T>, share: &Share<T>) {
    show.assert_version();
    assert!(share.show == object::id(show), EForeignShare);
}

// === Tests ===

#[test_only]
public fun set_version_for_testing<T>(show: &mut Show<T>, version: u16) { show.version = version }
