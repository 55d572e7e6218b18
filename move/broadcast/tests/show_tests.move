#[test_only]
module broadcast::show_tests;

use broadcast::{
    show::{Self, ProducerCap, Share, Show},
    show_world::{
        ask,
        assert_conserved,
        begin,
        buy,
        concert,
        contribute,
        end,
        end_show,
        hashes,
        key,
        new_funded,
        post,
        radio,
        raise,
        slot_hash,
        take_back,
        text,
    }
};
use sui::{clock::Clock, event, sui::SUI, test_scenario::{Self as ts, Scenario}};

const PRODUCER: address = @0xBEEF;

const ALICE: address = @0xA;

const BOB: address = @0xB;

const NOW: u64 = 1_000_000;

const SLOT: u64 = 10_000;

const START_BY: u64 = 2_000_000;

const OFF: u8 = 0;

const ON_AIR: u8 = 1;

const ENDED: u8 = 2;

/// Posts so many slots, each when it is over.
fun play(s: &mut Scenario, clock: &mut Clock, slots: u64) {
    let mut i = 0;
    while (i < slots) {
        clock.increment_for_testing(SLOT);
        post(s, clock, hashes(1));
        i = i + 1;
    };
}

fun collect(s: &mut Scenario): u64 {
    s.next_tx(PRODUCER);
    let mut show = s.take_shared<Show<SUI>>();
    let cap = s.take_from_sender<ProducerCap>();
    let amount = show.collect(&cap, s.ctx()).burn_for_testing();
    assert_conserved(&show);
    s.return_to_sender(cap);
    ts::return_shared(show);
    s.next_tx(PRODUCER);
    amount
}

fun state(s: &mut Scenario): u8 {
    s.next_tx(PRODUCER);
    let show = s.take_shared<Show<SUI>>();
    let state = show.state();
    ts::return_shared(show);
    s.next_tx(PRODUCER);
    state
}

fun tickets(s: &mut Scenario): u64 {
    s.next_tx(PRODUCER);
    let show = s.take_shared<Show<SUI>>();
    let tickets = show.tickets();
    ts::return_shared(show);
    s.next_tx(PRODUCER);
    tickets
}

fun value(s: &mut Scenario, clock: &Clock, who: address): u64 {
    s.next_tx(who);
    let show = s.take_shared<Show<SUI>>();
    let share = s.take_from_sender<Share<SUI>>();
    let value = show.value(&share, clock);
    s.return_to_sender(share);
    ts::return_shared(show);
    s.next_tx(who);
    value
}

#[test]
fun a_show_says_what_it_is() {
    let (mut s, clock) = radio();
    let show = s.take_shared<Show<SUI>>();
    assert!(show.key() == key() && show.hint() == b"dtp://dtp1.../radio");
    assert!(show.state() == OFF && show.pot() == 0 && show.earned() == 0);
    assert!(show.tickets() == 0 && show.posted() == 0 && show.next_slot() == 0);
    ts::return_shared(show);
    s.next_tx(PRODUCER);
    end(s, clock);
}

#[test]
fun a_funded_show_goes_on_air_when_the_pot_suffices_and_pauses_by_itself() {
    let (mut s, mut clock) = radio();
    contribute(&mut s, &clock, ALICE, 299);
    assert!(state(&mut s) == OFF);
    contribute(&mut s, &clock, BOB, 1);
    assert!(state(&mut s) == ON_AIR);
    play(&mut s, &mut clock, 2);
    assert!(state(&mut s) == ON_AIR);
    play(&mut s, &mut clock, 1);
    assert!(state(&mut s) == OFF);
    assert!(collect(&mut s) == 300);
    end(s, clock);
}

#[test]
fun what_was_paused_goes_on_from_the_same_pot_as_at_first() {
    let (mut s, mut clock) = radio();
    contribute(&mut s, &clock, ALICE, 350);
    play(&mut s, &mut clock, 3);
    assert!(state(&mut s) == OFF);
    contribute(&mut s, &clock, BOB, 200);
    assert!(state(&mut s) == OFF);
    contribute(&mut s, &clock, BOB, 50);
    assert!(state(&mut s) == ON_AIR);
    end(s, clock);
}

#[test]
fun who_joins_late_does_not_pay_for_what_is_past() {
    let (mut s, mut clock) = radio();
    contribute(&mut s, &clock, ALICE, 400);
    play(&mut s, &mut clock, 2);
    contribute(&mut s, &clock, BOB, 200);
    assert!(value(&mut s, &clock, ALICE) == 150 && value(&mut s, &clock, BOB) == 150);
    play(&mut s, &mut clock, 2);
    assert!(value(&mut s, &clock, ALICE) == 50 && value(&mut s, &clock, BOB) == 50);
    end_show(&mut s);
    assert!(take_back(&mut s, &clock, ALICE) == 100);
    assert!(take_back(&mut s, &clock, BOB) == 100);
    assert!(collect(&mut s) == 400);
    end(s, clock);
}

#[test]
fun the_last_to_leave_takes_what_rounding_has_left() {
    let (mut s, clock) = begin();
    let mut s = s;
    new_funded(&mut s, 1, 1_000);
    let mut clock = clock;
    contribute(&mut s, &clock, ALICE, 700);
    contribute(&mut s, &clock, BOB, 301);
    play(&mut s, &mut clock, 2);
    end_show(&mut s);
    assert!(take_back(&mut s, &clock, ALICE) == 698);
    assert!(take_back(&mut s, &clock, BOB) == 301);
    end(s, clock);
}

#[test]
fun a_pot_that_was_spent_begins_anew() {
    let (mut s, mut clock) = radio();
    contribute(&mut s, &clock, ALICE, 300);
    play(&mut s, &mut clock, 3);
    contribute(&mut s, &clock, BOB, 50);
    assert!(value(&mut s, &clock, ALICE) == 0 && value(&mut s, &clock, BOB) == 50);
    assert!(take_back(&mut s, &clock, ALICE) == 0);
    assert!(take_back(&mut s, &clock, BOB) == 50);
    end(s, clock);
}

#[test]
fun a_pot_of_dust_begins_anew_and_no_number_overflows() {
    let (mut s, mut clock) = begin();
    let all = 2_000_000_000_000;
    new_funded(&mut s, all - 1, all);
    let mut i = 0;
    while (i < 8) {
        contribute(&mut s, &clock, if (i % 2 == 0) ALICE else BOB, all);
        play(&mut s, &mut clock, 1);
        i = i + 1;
    };
    assert!(collect(&mut s) == 8 * (all - 1));
    end(s, clock);
}

#[test]
fun each_slot_extends_the_hash_chain() {
    let (mut s, mut clock) = radio();
    contribute(&mut s, &clock, ALICE, 1_000);
    play(&mut s, &mut clock, 2);
    let show = s.take_shared<Show<SUI>>();
    let none = x"0000000000000000000000000000000000000000000000000000000000000000";
    let first = show::next_head(none, slot_hash());
    let mut joined = none;
    joined.append(slot_hash());
    assert!(first == sui::hash::blake2b256(&joined));
    assert!(show.head() == show::next_head(first, slot_hash()) && show.posted() == 2);
    ts::return_shared(show);
    s.next_tx(PRODUCER);
    end(s, clock);
}

#[test]
fun slots_may_be_posted_in_batches() {
    let (mut s, mut clock) = radio();
    contribute(&mut s, &clock, ALICE, 1_000);
    clock.increment_for_testing(4 * SLOT);
    post(&mut s, &clock, hashes(4));
    assert!(event::events_by_type<show::SlotsPosted>().is_empty());
    assert!(collect(&mut s) == 400);
    end(s, clock);
}

#[test]
fun who_was_silent_is_paid_a_batch_of_it() {
    let (mut s, mut clock) = radio();
    contribute(&mut s, &clock, ALICE, 10_000);
    clock.increment_for_testing(100 * SLOT);
    post(&mut s, &clock, hashes(4));
    clock.increment_for_testing(SLOT - 1);
    assert!(collect(&mut s) == 400);
    clock.increment_for_testing(1);
    post(&mut s, &clock, hashes(1));
    end(s, clock);
}

#[test]
fun who_leaves_pays_what_had_begun() {
    let (mut s, mut clock) = radio();
    contribute(&mut s, &clock, ALICE, 1_000);
    clock.increment_for_testing(SLOT + SLOT / 2);
    assert!(value(&mut s, &clock, ALICE) == 800);
    assert!(take_back(&mut s, &clock, ALICE) == 800);
    assert!(state(&mut s) == ON_AIR);
    clock.increment_for_testing(SLOT / 2);
    post(&mut s, &clock, hashes(2));
    assert!(state(&mut s) == OFF);
    assert!(collect(&mut s) == 200);
    end(s, clock);
}

#[test]
fun who_leaves_at_the_end_of_a_batch_pays_all_of_it() {
    let (mut s, mut clock) = radio();
    contribute(&mut s, &clock, ALICE, 1_000);
    contribute(&mut s, &clock, BOB, 1_000);
    clock.increment_for_testing(4 * SLOT);
    assert!(take_back(&mut s, &clock, ALICE) == 750);
    post(&mut s, &clock, hashes(4));
    assert!(value(&mut s, &clock, BOB) == 750);
    assert!(collect(&mut s) == 400);
    end(s, clock);
}

#[test]
fun whoever_leaves_first_pays_the_same() {
    let (mut s, mut clock) = radio();
    contribute(&mut s, &clock, ALICE, 600);
    contribute(&mut s, &clock, BOB, 300);
    clock.increment_for_testing(SLOT + SLOT / 2);
    assert!(value(&mut s, &clock, ALICE) == 466 && value(&mut s, &clock, BOB) == 233);
    assert!(take_back(&mut s, &clock, BOB) == 233);
    assert!(value(&mut s, &clock, ALICE) == 467);
    assert!(take_back(&mut s, &clock, ALICE) == 467);
    end(s, clock);
}

#[test]
fun who_leaves_and_comes_at_once_pays_the_slot_that_begins() {
    let (mut s, clock) = radio();
    contribute(&mut s, &clock, ALICE, 300);
    assert!(take_back(&mut s, &clock, ALICE) == 200);
    assert!(state(&mut s) == ON_AIR);
    contribute(&mut s, &clock, BOB, 300);
    assert!(value(&mut s, &clock, BOB) == 300);
    end(s, clock);
}

#[test]
fun who_leaves_a_silent_producer_pays_a_batch_and_a_slot_and_then_nothing() {
    let (mut s, mut clock) = radio();
    contribute(&mut s, &clock, ALICE, 1_000);
    clock.increment_for_testing(4 * SLOT);
    assert!(value(&mut s, &clock, ALICE) == 500);
    clock.increment_for_testing(5 * SLOT - 1);
    assert!(value(&mut s, &clock, ALICE) == 500);
    clock.increment_for_testing(1);
    assert!(take_back(&mut s, &clock, ALICE) == 1_000);
    assert!(state(&mut s) == OFF);
    end(s, clock);
}

#[test]
fun nobody_pays_more_than_the_pot_for_slots_that_have_begun() {
    let (mut s, mut clock) = radio();
    contribute(&mut s, &clock, ALICE, 350);
    clock.increment_for_testing(4 * SLOT);
    assert!(take_back(&mut s, &clock, ALICE) == 0);
    post(&mut s, &clock, hashes(3));
    assert!(state(&mut s) == OFF);
    end(s, clock);
}

#[test]
fun what_who_left_has_paid_makes_no_share_dearer() {
    let (mut s, clock) = radio();
    contribute(&mut s, &clock, ALICE, 1);
    contribute(&mut s, &clock, BOB, 1_000_000);
    assert!(take_back(&mut s, &clock, BOB) == 999_900);
    contribute(&mut s, &clock, BOB, 150);
    assert!(value(&mut s, &clock, BOB) == 150);
    end_show(&mut s);
    assert!(take_back(&mut s, &clock, BOB) == 150);
    assert!(take_back(&mut s, &clock, ALICE) == 1);
    assert!(collect(&mut s) == 100);
    let show = s.take_shared<Show<SUI>>();
    assert!(show.prepaid() == 100);
    let cap = s.take_from_sender<ProducerCap>();
    show.destroy(cap);
    s.next_tx(PRODUCER);
    end(s, clock);
}

#[test]
fun a_slot_of_any_price_is_no_more_than_the_pot() {
    let (mut s, clock) = begin();
    let rate = 0x7fff_ffff_ffff_ffff;
    new_funded(&mut s, rate, rate);
    contribute(&mut s, &clock, ALICE, rate);
    let mut clock = clock;
    clock.increment_for_testing(4 * SLOT);
    assert!(take_back(&mut s, &clock, ALICE) == 0);
    end(s, clock);
}

#[test]
fun what_is_off_air_is_taken_back_at_once() {
    let (mut s, clock) = radio();
    contribute(&mut s, &clock, ALICE, 200);
    assert!(take_back(&mut s, &clock, ALICE) == 200);
    end(s, clock);
}

#[test]
fun a_ticketed_show_starts_with_enough_tickets_and_ends_with_its_last_slot() {
    let (mut s, mut clock) = concert();
    buy(&mut s, &clock, ALICE, 300);
    assert!(state(&mut s) == OFF);
    buy(&mut s, &clock, BOB, 300);
    assert!(state(&mut s) == ON_AIR);
    play(&mut s, &mut clock, 1);
    assert!(value(&mut s, &clock, ALICE) == 100);
    play(&mut s, &mut clock, 2);
    assert!(state(&mut s) == ENDED);
    assert!(collect(&mut s) == 600);
    assert!(take_back(&mut s, &clock, ALICE) == 0);
    end(s, clock);
}

#[test]
fun who_gives_a_ticket_back_pays_its_part_of_slots_that_have_begun() {
    let (mut s, mut clock) = concert();
    buy(&mut s, &clock, ALICE, 300);
    buy(&mut s, &clock, BOB, 300);
    s.next_tx(BOB);
    let show = s.take_shared<Show<SUI>>();
    let share = s.take_from_sender<Share<SUI>>();
    assert!(show.is_ticket(&share) && share.show() == object::id(&show) && show.tickets() == 2);
    assert!(show.next_slot() == 200 && show.due_ms() == NOW + SLOT);
    s.return_to_sender(share);
    ts::return_shared(show);
    s.next_tx(BOB);
    clock.increment_for_testing(1);
    assert!(take_back(&mut s, &clock, BOB) == 200);
    assert!(collect(&mut s) == 100);
    assert!(value(&mut s, &clock, ALICE) == 200);
    play(&mut s, &mut clock, 1);
    assert!(collect(&mut s) == 100);
    assert!(value(&mut s, &clock, ALICE) == 100);
    clock.increment_for_testing(SLOT);
    assert!(value(&mut s, &clock, ALICE) == 0);
    post(&mut s, &clock, hashes(1));
    assert!(take_back(&mut s, &clock, ALICE) == 0);
    play(&mut s, &mut clock, 1);
    assert!(collect(&mut s) == 200);
    assert!(state(&mut s) == ENDED);
    end(s, clock);
}

#[test]
fun a_show_goes_on_with_who_stays_and_says_how_many_tickets_are_left() {
    let (mut s, mut clock) = concert();
    buy(&mut s, &clock, ALICE, 300);
    buy(&mut s, &clock, BOB, 300);
    assert!(tickets(&mut s) == 2);
    clock.increment_for_testing(1);
    take_back(&mut s, &clock, BOB);
    assert!(tickets(&mut s) == 1 && state(&mut s) == ON_AIR);
    buy(&mut s, &clock, BOB, 300);
    assert!(tickets(&mut s) == 2);
    end_show(&mut s);
    take_back(&mut s, &clock, BOB);
    take_back(&mut s, &clock, ALICE);
    assert!(tickets(&mut s) == 0);
    end(s, clock);
}

#[test]
fun tickets_of_a_show_that_never_starts_come_back() {
    let (mut s, mut clock) = concert();
    buy(&mut s, &clock, ALICE, 300);
    clock.set_for_testing(START_BY + 1);
    assert!(take_back(&mut s, &clock, ALICE) == 300);
    end(s, clock);
}

#[test]
fun anyone_ends_a_show_that_never_started() {
    let (mut s, mut clock) = concert();
    buy(&mut s, &clock, ALICE, 300);
    clock.set_for_testing(START_BY + 1);
    s.next_tx(BOB);
    let mut show = s.take_shared<Show<SUI>>();
    show.expire(&clock);
    ts::return_shared(show);
    assert!(state(&mut s) == ENDED);
    assert!(take_back(&mut s, &clock, ALICE) == 300);
    end(s, clock);
}

#[test]
fun tickets_are_sold_at_the_last_moment_and_while_it_is_on_air() {
    let (mut s, mut clock) = concert();
    buy(&mut s, &clock, ALICE, 300);
    clock.set_for_testing(START_BY);
    buy(&mut s, &clock, ALICE, 300);
    play(&mut s, &mut clock, 1);
    buy(&mut s, &clock, BOB, 300);
    assert!(value(&mut s, &clock, BOB) == 150);
    end(s, clock);
}

#[test]
fun a_cancelled_show_gives_all_back() {
    let (mut s, clock) = concert();
    buy(&mut s, &clock, ALICE, 300);
    end_show(&mut s);
    assert!(take_back(&mut s, &clock, ALICE) == 300);
    end(s, clock);
}

#[test]
fun tips_requests_and_questions_are_the_producers_at_once() {
    let (mut s, clock) = radio();
    assert!(ask(&mut s, ALICE, 0, 1, b"") == 0);
    assert!(ask(&mut s, ALICE, 1, 20, b"play it again") == 1);
    assert!(ask(&mut s, BOB, 2, 5, text(4_096)) == 2);
    raise(&mut s, ALICE, 2, 7);
    assert!(collect(&mut s) == 33);
    end(s, clock);
}

#[test]
fun the_hint_may_change() {
    let (mut s, clock) = radio();
    let mut show = s.take_shared<Show<SUI>>();
    let cap = s.take_from_sender<ProducerCap>();
    show.set_hint(&cap, text(512));
    assert!(show.hint().length() == 512);
    s.return_to_sender(cap);
    ts::return_shared(show);
    s.next_tx(PRODUCER);
    end(s, clock);
}

#[test]
fun an_empty_show_that_is_over_is_deleted() {
    let (mut s, clock) = radio();
    end_show(&mut s);
    let show = s.take_shared<Show<SUI>>();
    let cap = s.take_from_sender<ProducerCap>();
    show.destroy(cap);
    s.next_tx(PRODUCER);
    assert!(!ts::has_most_recent_shared<Show<SUI>>());
    end(s, clock);
}

#[test]
fun an_older_show_is_migrated_by_anyone() {
    let (mut s, clock) = radio();
    s.next_tx(BOB);
    let mut show = s.take_shared<Show<SUI>>();
    show.set_version_for_testing(0);
    show.migrate();
    ts::return_shared(show);
    contribute(&mut s, &clock, ALICE, 5);
    end(s, clock);
}
