/// What tests of shows share.
#[test_only]
module broadcast::show_world;

use broadcast::show::{Self, ProducerCap, Share, Show};
use sui::{clock::{Self, Clock}, coin, sui::SUI, test_scenario::{Self as ts, Scenario}};

const PRODUCER: address = @0xBEEF;

const NOW: u64 = 1_000_000;

const SLOT: u64 = 10_000;

const RATE: u64 = 100;

const BATCH: u64 = 4;

const START_BY: u64 = 2_000_000;

public fun key(): vector<u8> { x"ed4928c628d1c2c6eae90338905995612959273a5c63f93636c14614ac8737d1" }

public fun slot_hash(): vector<u8> {
    x"4bb06f8e4e3a7715d201d573d0aa423762e55dabd61a2c02278fa56cc6d294e0"
}

public fun prices(): vector<u64> { vector[1, 20, 5] }

public fun text(bytes: u64): vector<u8> {
    let mut made = vector[];
    while (made.length() < bytes) made.push_back(0x61);
    made
}

public fun hashes(count: u64): vector<vector<u8>> {
    let mut made = vector[];
    while (made.length() < count) made.push_back(slot_hash());
    made
}

public fun begin(): (Scenario, Clock) {
    let mut s = ts::begin(PRODUCER);
    let mut clock = clock::create_for_testing(s.ctx());
    clock.set_for_testing(NOW);
    s.next_tx(PRODUCER);
    (s, clock)
}

public fun end(s: Scenario, clock: Clock) {
    clock.destroy_for_testing();
    s.end();
}

public fun new_funded(s: &mut Scenario, rate: u64, start_pot: u64) {
    let (made, cap) = show::new_funded<SUI>(
        key(),
        b"dtp://dtp1.../radio",
        SLOT,
        BATCH,
        rate,
        start_pot,
        prices(),
        s.ctx(),
    );
    made.share();
    transfer::public_transfer(cap, PRODUCER);
    s.next_tx(PRODUCER);
}

public fun new_ticketed(
    s: &mut Scenario,
    clock: &Clock,
    price: u64,
    fewest: u64,
    slots: u64,
    by: u64,
) {
    let (made, cap) = show::new_ticketed<SUI>(
        key(),
        b"",
        SLOT,
        BATCH,
        price,
        fewest,
        slots,
        by,
        prices(),
        clock,
        s.ctx(),
    );
    made.share();
    transfer::public_transfer(cap, PRODUCER);
    s.next_tx(PRODUCER);
}

/// A funded show, on air from 300 on.
public fun radio(): (Scenario, Clock) {
    let (mut s, clock) = begin();
    new_funded(&mut s, RATE, 300);
    (s, clock)
}

/// A ticketed show of three slots, on air from two tickets of 300 on.
public fun concert(): (Scenario, Clock) {
    let (mut s, clock) = begin();
    new_ticketed(&mut s, &clock, 300, 2, 3, START_BY);
    (s, clock)
}

public fun contribute(s: &mut Scenario, clock: &Clock, who: address, amount: u64) {
    s.next_tx(who);
    let mut show = s.take_shared<Show<SUI>>();
    let payment = coin::mint_for_testing<SUI>(amount, s.ctx());
    let share = show.contribute(payment, clock, s.ctx());
    transfer::public_transfer(share, who);
    ts::return_shared(show);
    s.next_tx(who);
}

public fun buy(s: &mut Scenario, clock: &Clock, who: address, amount: u64) {
    s.next_tx(who);
    let mut show = s.take_shared<Show<SUI>>();
    let payment = coin::mint_for_testing<SUI>(amount, s.ctx());
    let share = show.buy_ticket(payment, clock, s.ctx());
    transfer::public_transfer(share, who);
    ts::return_shared(show);
    s.next_tx(who);
}

public fun take_back(s: &mut Scenario, clock: &Clock, who: address): u64 {
    s.next_tx(who);
    let mut show = s.take_shared<Show<SUI>>();
    let share = s.take_from_sender<Share<SUI>>();
    let amount = show.take_back(share, clock, s.ctx()).burn_for_testing();
    assert_conserved(&show);
    ts::return_shared(show);
    s.next_tx(who);
    amount
}

public fun post(s: &mut Scenario, clock: &Clock, hashes: vector<vector<u8>>) {
    s.next_tx(PRODUCER);
    let mut show = s.take_shared<Show<SUI>>();
    let cap = s.take_from_sender<ProducerCap>();
    show.post(&cap, hashes, clock);
    assert_conserved(&show);
    s.return_to_sender(cap);
    ts::return_shared(show);
    s.next_tx(PRODUCER);
}

public fun end_show(s: &mut Scenario) {
    s.next_tx(PRODUCER);
    let mut show = s.take_shared<Show<SUI>>();
    let cap = s.take_from_sender<ProducerCap>();
    show.end(&cap);
    s.return_to_sender(cap);
    ts::return_shared(show);
    s.next_tx(PRODUCER);
}

public fun ask(s: &mut Scenario, who: address, kind: u8, amount: u64, said: vector<u8>): u64 {
    s.next_tx(who);
    let mut show = s.take_shared<Show<SUI>>();
    let payment = coin::mint_for_testing<SUI>(amount, s.ctx());
    let number = show.ask(kind, payment, said, false, s.ctx());
    assert_conserved(&show);
    ts::return_shared(show);
    s.next_tx(who);
    number
}

public fun raise(s: &mut Scenario, who: address, number: u64, amount: u64) {
    s.next_tx(who);
    let mut show = s.take_shared<Show<SUI>>();
    let payment = coin::mint_for_testing<SUI>(amount, s.ctx());
    show.raise(number, payment, s.ctx());
    assert_conserved(&show);
    ts::return_shared(show);
    s.next_tx(who);
}

public fun assert_conserved(show: &Show<SUI>) {
    let (contributed, released, returned, tipped, collected) = show.sums();
    assert!(contributed == released + returned + show.pot());
    assert!(released + tipped == collected + show.earned());
}
