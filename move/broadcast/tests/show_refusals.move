#[test_only]
module broadcast::show_refusals;

use broadcast::{
    show::{Self, ProducerCap, Show},
    show_world::{
        ask,
        begin,
        buy,
        concert,
        contribute,
        end,
        end_show,
        hashes,
        key,
        new_funded,
        new_ticketed,
        post,
        prices,
        radio,
        raise,
        take_back,
        text,
    }
};
use sui::{clock::Clock, coin::{Self, Coin}, sui::SUI, test_scenario::{Self as ts, Scenario}};

const PRODUCER: address = @0xBEEF;

const ALICE: address = @0xA;

const BOB: address = @0xB;

const NOW: u64 = 1_000_000;

const SLOT: u64 = 10_000;

const START_BY: u64 = 2_000_000;

fun of_another_version(): (Scenario, Clock) {
    let (mut s, clock) = radio();
    let mut show = s.take_shared<Show<SUI>>();
    show.set_version_for_testing(2);
    ts::return_shared(show);
    s.next_tx(PRODUCER);
    (s, clock)
}

#[test, expected_failure(abort_code = show::EWrongVersion)]
fun wrong_version() {
    let (mut s, clock) = of_another_version();
    contribute(&mut s, &clock, ALICE, 1);
    end(s, clock);
}

#[test, expected_failure(abort_code = show::EWrongVersion)]
fun wrong_version_to_post() {
    let (mut s, clock) = of_another_version();
    post(&mut s, &clock, hashes(1));
    end(s, clock);
}

#[test, expected_failure(abort_code = show::EWrongVersion)]
fun wrong_version_to_ask() {
    let (mut s, clock) = of_another_version();
    ask(&mut s, ALICE, 0, 1, b"");
    end(s, clock);
}

#[test, expected_failure(abort_code = show::EUpToDate)]
fun up_to_date() {
    let (s, _clock) = radio();
    let mut show = s.take_shared<Show<SUI>>();
    show.migrate();
    abort 0
}

#[test, expected_failure(abort_code = show::EWrongCap)]
fun wrong_cap() {
    let (mut s, clock) = radio();
    let (other, cap) = show::new_funded<SUI>(key(), b"", SLOT, 1, 1, 1, prices(), s.ctx());
    other.share();
    let mut show = s.take_shared<Show<SUI>>();
    show.post(&cap, hashes(1), &clock);
    abort 0
}

#[test, expected_failure(abort_code = show::EBadKey)]
fun bad_key() {
    let mut s = ts::begin(PRODUCER);
    let (_show, _cap) = show::new_funded<SUI>(b"short", b"", SLOT, 1, 1, 1, prices(), s.ctx());
    abort 0
}

#[test, expected_failure(abort_code = show::EWeakKey)]
fun weak_key() {
    let mut s = ts::begin(PRODUCER);
    let weak = x"eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f";
    let (_show, _cap) = show::new_funded<SUI>(weak, b"", SLOT, 1, 1, 1, prices(), s.ctx());
    abort 0
}

#[test, expected_failure(abort_code = show::EBadSlot)]
fun bad_slot() {
    let mut s = ts::begin(PRODUCER);
    let (_show, _cap) = show::new_funded<SUI>(key(), b"", 999, 1, 1, 1, prices(), s.ctx());
    abort 0
}

#[test, expected_failure(abort_code = show::EBadSlot)]
fun bad_slot_that_is_too_long() {
    let mut s = ts::begin(PRODUCER);
    let (_show, _cap) = show::new_funded<SUI>(key(), b"", 3_600_001, 1, 1, 1, prices(), s.ctx());
    abort 0
}

#[test, expected_failure(abort_code = show::EBadBatch)]
fun bad_batch() {
    let mut s = ts::begin(PRODUCER);
    let (_show, _cap) = show::new_funded<SUI>(key(), b"", SLOT, 65, 1, 1, prices(), s.ctx());
    abort 0
}

#[test, expected_failure(abort_code = show::EBadBatch)]
fun bad_batch_to_post() {
    let (mut s, mut clock) = radio();
    contribute(&mut s, &clock, ALICE, 1_000);
    clock.increment_for_testing(100 * SLOT);
    post(&mut s, &clock, hashes(5));
    end(s, clock);
}

#[test, expected_failure(abort_code = show::EBadRate)]
fun bad_rate() {
    let (mut s, clock) = begin();
    new_funded(&mut s, 0, 10);
    end(s, clock);
}

#[test, expected_failure(abort_code = show::EBadRate)]
fun bad_rate_above_the_pot_to_start_with() {
    let (mut s, clock) = begin();
    new_funded(&mut s, 11, 10);
    end(s, clock);
}

#[test, expected_failure(abort_code = show::EBadTickets)]
fun bad_tickets() {
    let (mut s, clock) = begin();
    new_ticketed(&mut s, &clock, 0, 1, 1, START_BY);
    end(s, clock);
}

#[test, expected_failure(abort_code = show::EBadTickets)]
fun bad_tickets_for_nothing() {
    let (mut s, clock) = begin();
    new_ticketed(&mut s, &clock, 1, 1, 0, START_BY);
    end(s, clock);
}

#[test, expected_failure(abort_code = show::EBadStartBy)]
fun bad_start_by() {
    let (mut s, clock) = begin();
    new_ticketed(&mut s, &clock, 1, 1, 1, NOW);
    end(s, clock);
}

#[test, expected_failure(abort_code = show::EBadStartBy)]
fun bad_start_by_beyond_a_year() {
    let (mut s, clock) = begin();
    new_ticketed(&mut s, &clock, 1, 1, 1, NOW + 31_622_400_001);
    end(s, clock);
}

#[test, expected_failure(abort_code = show::EHintTooLong)]
fun hint_too_long() {
    let (s, _clock) = radio();
    let mut show = s.take_shared<Show<SUI>>();
    let cap = s.take_from_sender<ProducerCap>();
    show.set_hint(&cap, text(513));
    abort 0
}

#[test, expected_failure(abort_code = show::EEnded)]
fun ended() {
    let (mut s, clock) = radio();
    end_show(&mut s);
    contribute(&mut s, &clock, ALICE, 1);
    end(s, clock);
}

#[test, expected_failure(abort_code = show::EEnded)]
fun ended_twice() {
    let (mut s, clock) = radio();
    end_show(&mut s);
    end_show(&mut s);
    end(s, clock);
}

#[test, expected_failure(abort_code = show::EEnded)]
fun ended_and_nobody_tips() {
    let (mut s, clock) = radio();
    end_show(&mut s);
    ask(&mut s, ALICE, 0, 1, b"");
    end(s, clock);
}

#[test, expected_failure(abort_code = show::ETooLittle)]
fun too_little() {
    let (mut s, clock) = radio();
    contribute(&mut s, &clock, ALICE, 0);
    end(s, clock);
}

#[test, expected_failure(abort_code = show::ETooLittle)]
fun too_little_for_a_request() {
    let (mut s, clock) = radio();
    ask(&mut s, ALICE, 1, 19, b"play it again");
    end(s, clock);
}

#[test, expected_failure(abort_code = show::ETooLittle)]
fun too_little_to_raise() {
    let (mut s, clock) = radio();
    let number = ask(&mut s, ALICE, 2, 5, b"why?");
    raise(&mut s, BOB, number, 0);
    end(s, clock);
}

#[test, expected_failure(abort_code = show::EWrongPrice)]
fun wrong_price() {
    let (mut s, clock) = concert();
    buy(&mut s, &clock, ALICE, 301);
    end(s, clock);
}

#[test, expected_failure(abort_code = show::ENotTicketed)]
fun not_ticketed() {
    let (mut s, clock) = radio();
    buy(&mut s, &clock, ALICE, 300);
    end(s, clock);
}

#[test, expected_failure(abort_code = show::ETicketed)]
fun ticketed() {
    let (mut s, clock) = concert();
    contribute(&mut s, &clock, ALICE, 300);
    end(s, clock);
}

#[test, expected_failure(abort_code = show::EStartByPassed)]
fun start_by_passed() {
    let (mut s, mut clock) = concert();
    clock.set_for_testing(START_BY + 1);
    buy(&mut s, &clock, ALICE, 300);
    end(s, clock);
}

#[test, expected_failure(abort_code = show::ENotOnAir)]
fun not_on_air() {
    let (mut s, mut clock) = radio();
    contribute(&mut s, &clock, ALICE, 299);
    clock.increment_for_testing(SLOT);
    post(&mut s, &clock, hashes(1));
    end(s, clock);
}

#[test, expected_failure(abort_code = show::ENotOnAir)]
fun not_on_air_for_the_rest_of_a_batch() {
    let (mut s, mut clock) = radio();
    contribute(&mut s, &clock, ALICE, 300);
    clock.increment_for_testing(4 * SLOT);
    post(&mut s, &clock, hashes(4));
    end(s, clock);
}

#[test, expected_failure(abort_code = show::ETooEarly)]
fun too_early() {
    let (mut s, mut clock) = radio();
    contribute(&mut s, &clock, ALICE, 300);
    clock.increment_for_testing(SLOT - 1);
    post(&mut s, &clock, hashes(1));
    end(s, clock);
}

#[test, expected_failure(abort_code = show::ETooEarly)]
fun too_early_for_a_slot_more() {
    let (mut s, mut clock) = radio();
    contribute(&mut s, &clock, ALICE, 300);
    clock.increment_for_testing(2 * SLOT - 1);
    post(&mut s, &clock, hashes(2));
    end(s, clock);
}

#[test, expected_failure(abort_code = show::ENoHashes)]
fun no_hashes() {
    let (mut s, clock) = radio();
    post(&mut s, &clock, vector[]);
    end(s, clock);
}

#[test, expected_failure(abort_code = show::EBadHash)]
fun bad_hash() {
    let (mut s, mut clock) = radio();
    contribute(&mut s, &clock, ALICE, 300);
    clock.increment_for_testing(SLOT);
    post(&mut s, &clock, vector[b"short"]);
    end(s, clock);
}

#[test, expected_failure(abort_code = show::EForeignShare)]
fun foreign_share() {
    let (mut s, clock) = radio();
    let (mut other, _cap) = show::new_funded<SUI>(key(), b"", SLOT, 1, 1, 1, prices(), s.ctx());
    let payment = coin::mint_for_testing<SUI>(5, s.ctx());
    let share = other.contribute(payment, &clock, s.ctx());
    let mut show = s.take_shared<Show<SUI>>();
    let _money: Coin<SUI> = show.take_back(share, &clock, s.ctx());
    abort 0
}

#[test, expected_failure(abort_code = show::ETicketsStand)]
fun tickets_stand() {
    let (mut s, mut clock) = concert();
    buy(&mut s, &clock, ALICE, 300);
    clock.set_for_testing(START_BY);
    take_back(&mut s, &clock, ALICE);
    end(s, clock);
}

#[test, expected_failure(abort_code = show::ETicketsStand)]
fun tickets_stand_in_the_moment_of_the_start() {
    let (mut s, clock) = concert();
    buy(&mut s, &clock, ALICE, 300);
    buy(&mut s, &clock, BOB, 300);
    take_back(&mut s, &clock, BOB);
    end(s, clock);
}

#[test, expected_failure(abort_code = show::EBadKind)]
fun bad_kind() {
    let (mut s, clock) = radio();
    ask(&mut s, ALICE, 3, 100, b"");
    end(s, clock);
}

#[test, expected_failure(abort_code = show::EBadPrices)]
fun bad_prices() {
    let mut s = ts::begin(PRODUCER);
    let (_show, _cap) = show::new_funded<SUI>(key(), b"", SLOT, 1, 1, 1, vector[1, 2], s.ctx());
    abort 0
}

#[test, expected_failure(abort_code = show::ETextTooLong)]
fun text_too_long() {
    let (mut s, clock) = radio();
    ask(&mut s, ALICE, 0, 100, text(4_097));
    end(s, clock);
}

#[test, expected_failure(abort_code = show::ENothingAsked)]
fun nothing_asked() {
    let (mut s, clock) = radio();
    ask(&mut s, ALICE, 0, 100, b"");
    raise(&mut s, BOB, 1, 100);
    end(s, clock);
}

#[test, expected_failure(abort_code = show::EStillRunning)]
fun still_running() {
    let (s, mut clock) = concert();
    clock.set_for_testing(START_BY);
    let mut show = s.take_shared<Show<SUI>>();
    show.expire(&clock);
    abort 0
}

#[test, expected_failure(abort_code = show::ENotTicketed)]
fun not_ticketed_and_never_late() {
    let (s, clock) = radio();
    let mut show = s.take_shared<Show<SUI>>();
    show.expire(&clock);
    abort 0
}

#[test, expected_failure(abort_code = show::ENotEmpty)]
fun not_empty() {
    let (mut s, clock) = radio();
    contribute(&mut s, &clock, ALICE, 5);
    end_show(&mut s);
    let show = s.take_shared<Show<SUI>>();
    let cap = s.take_from_sender<ProducerCap>();
    show.destroy(cap);
    abort 0
}
