#[test_only]
module escrow::lock_tests;

use escrow::{lock::{Self, Lock}, signed};
use sui::{
    clock::{Self, Clock},
    coin::{Self, Coin},
    event,
    sui::SUI,
    test_scenario::{Self as ts, Scenario}
};

const PAYER: address = @0xA11CE;
/// The recipient that `signed::release` names; also the payee of the hash locks.
const BOB: address = @0xB0B;
const RELAY: address = @0xCAFE;
const AMOUNT: u64 = 1_000;
const FEE: u64 = 30;
const NOW: u64 = 50_000;
const DEADLINE: u64 = 60_000;

fun begin(): (Scenario, Clock) {
    let mut s = ts::begin(PAYER);
    let mut clock = clock::create_for_testing(s.ctx());
    clock.set_for_testing(NOW);
    s.next_tx(PAYER);
    (s, clock)
}

fun end(s: Scenario, clock: Clock) {
    clock.destroy_for_testing();
    s.end();
}

fun by_hash(amount: u64, hash: vector<u8>, fee: u64, deadline: u64): (Scenario, Clock) {
    let (mut s, clock) = begin();
    let payment = coin::mint_for_testing<SUI>(amount, s.ctx());
    lock::new_hash_lock(payment, hash, BOB, fee, deadline, &clock, s.ctx()).share();
    s.next_tx(RELAY);
    (s, clock)
}

fun by_key(key: vector<u8>, fee: u64): (Scenario, Clock) {
    let (mut s, clock) = begin();
    let payment = coin::mint_for_testing<SUI>(AMOUNT, s.ctx());
    lock::new_key_lock(payment, key, fee, DEADLINE, &clock, s.ctx()).share();
    s.next_tx(RELAY);
    (s, clock)
}

fun hash_lock(): (Scenario, Clock) { by_hash(AMOUNT, signed::hash(), FEE, DEADLINE) }

fun key_lock(): (Scenario, Clock) { by_key(signed::key_a(), FEE) }

fun open_with_preimage(s: &mut Scenario, clock: &Clock, preimage: vector<u8>) {
    let lock = s.take_shared<Lock<SUI>>();
    lock.claim_by_preimage(preimage, clock, s.ctx());
}

fun open_with_key(s: &mut Scenario, clock: &Clock, recipient: address, signature: vector<u8>) {
    let lock = s.take_shared<Lock<SUI>>();
    lock.claim_by_key(recipient, signature, clock, s.ctx());
}

fun refund(s: &mut Scenario, clock: &Clock) {
    let lock = s.take_shared<Lock<SUI>>();
    lock.refund(clock, s.ctx());
}

fun received(s: &mut Scenario, who: address): u64 {
    s.next_tx(who);
    let mut total = 0;
    while (ts::has_most_recent_for_address<Coin<SUI>>(who)) {
        total = total + s.take_from_sender<Coin<SUI>>().burn_for_testing();
    };
    total
}

// === Ways through ===

#[test]
fun a_hash_lock_says_what_it_is() {
    let (mut s, clock) = hash_lock();
    let lock = s.take_shared<Lock<SUI>>();
    assert!(object::id(&lock) == signed::lock_id());
    assert!(lock.payer() == PAYER && lock.payee() == BOB && lock.amount() == AMOUNT);
    assert!(lock.condition() == 0 && lock.commitment() == signed::hash());
    assert!(lock.relay_fee() == FEE && lock.deadline_ms() == DEADLINE);
    ts::return_shared(lock);
    s.next_tx(PAYER);
    end(s, clock);
}

#[test]
fun a_preimage_pays_the_payee_whoever_submits() {
    let (mut s, mut clock) = hash_lock();
    clock.set_for_testing(DEADLINE);
    open_with_preimage(&mut s, &clock, signed::preimage());
    assert!(event::events_by_type<lock::Claimed>().length() == 1);
    assert!(received(&mut s, BOB) == AMOUNT - FEE);
    assert!(received(&mut s, RELAY) == FEE);
    assert!(!ts::has_most_recent_shared<Lock<SUI>>());
    end(s, clock);
}

#[test]
fun a_signature_pays_whom_it_names_whoever_submits() {
    let (mut s, clock) = key_lock();
    open_with_key(&mut s, &clock, BOB, signed::release());
    assert!(received(&mut s, BOB) == AMOUNT - FEE);
    assert!(received(&mut s, RELAY) == FEE);
    end(s, clock);
}

#[test]
fun without_a_fee_the_submitter_gets_nothing() {
    let (mut s, clock) = by_hash(AMOUNT, signed::hash(), 0, DEADLINE);
    open_with_preimage(&mut s, &clock, signed::preimage());
    assert!(received(&mut s, BOB) == AMOUNT);
    assert!(received(&mut s, RELAY) == 0);
    end(s, clock);
}

#[test]
fun all_of_it_may_be_the_fee() {
    let (mut s, clock) = by_hash(AMOUNT, signed::hash(), AMOUNT, DEADLINE);
    open_with_preimage(&mut s, &clock, signed::preimage());
    assert!(received(&mut s, BOB) == 0);
    assert!(received(&mut s, RELAY) == AMOUNT);
    end(s, clock);
}

#[test]
fun after_the_deadline_the_payer_gets_all_of_it_whoever_submits() {
    let (mut s, mut clock) = key_lock();
    clock.set_for_testing(DEADLINE + 1);
    refund(&mut s, &clock);
    assert!(received(&mut s, PAYER) == AMOUNT);
    assert!(received(&mut s, RELAY) == 0);
    end(s, clock);
}

#[test]
fun the_farthest_deadline_is_two_years_away() {
    let (s, clock) = by_hash(AMOUNT, signed::hash(), FEE, NOW + 63_244_800_000);
    end(s, clock);
}

#[test]
fun the_signed_bytes_are_the_documented_ones() {
    let mut expected = b"\x0bdtp.lock.v1";
    expected.append(std::bcs::to_bytes(&signed::lock_id()));
    expected.append(std::bcs::to_bytes(&BOB));
    assert!(lock::release_bytes(signed::lock_id(), BOB) == expected);
}

// === Refusals, each by the name of its error ===

fun of_another_version(): (Scenario, Clock) {
    let (mut s, clock) = hash_lock();
    let mut lock = s.take_shared<Lock<SUI>>();
    lock.set_version_for_testing(2);
    ts::return_shared(lock);
    s.next_tx(RELAY);
    (s, clock)
}

#[test, expected_failure(abort_code = lock::EWrongVersion)]
fun wrong_version() {
    let (mut s, clock) = of_another_version();
    open_with_preimage(&mut s, &clock, signed::preimage());
    end(s, clock);
}

#[test, expected_failure(abort_code = lock::EWrongVersion)]
fun wrong_version_to_refund() {
    let (mut s, mut clock) = of_another_version();
    clock.set_for_testing(DEADLINE + 1);
    refund(&mut s, &clock);
    end(s, clock);
}

#[test, expected_failure(abort_code = lock::EZeroAmount)]
fun zero_amount() {
    let (s, clock) = by_hash(0, signed::hash(), 0, DEADLINE);
    end(s, clock);
}

#[test, expected_failure(abort_code = lock::EFeeTooLarge)]
fun fee_too_large() {
    let (s, clock) = by_hash(AMOUNT, signed::hash(), AMOUNT + 1, DEADLINE);
    end(s, clock);
}

#[test, expected_failure(abort_code = lock::EBadHash)]
fun bad_hash() {
    let (s, clock) = by_hash(AMOUNT, b"short", FEE, DEADLINE);
    end(s, clock);
}

#[test, expected_failure(abort_code = lock::EBadKey)]
fun bad_key() {
    let (s, clock) = by_key(b"short", FEE);
    end(s, clock);
}

#[test, expected_failure(abort_code = lock::EDeadlinePassed)]
fun deadline_passed() {
    let (mut s, mut clock) = hash_lock();
    clock.set_for_testing(DEADLINE + 1);
    open_with_preimage(&mut s, &clock, signed::preimage());
    end(s, clock);
}

#[test, expected_failure(abort_code = lock::EDeadlinePassed)]
fun deadline_passed_for_a_key() {
    let (mut s, mut clock) = key_lock();
    clock.set_for_testing(DEADLINE + 1);
    open_with_key(&mut s, &clock, BOB, signed::release());
    end(s, clock);
}

#[test, expected_failure(abort_code = lock::EDeadlinePassed)]
fun deadline_passed_at_the_start() {
    let (s, clock) = by_hash(AMOUNT, signed::hash(), FEE, NOW);
    end(s, clock);
}

#[test, expected_failure(abort_code = lock::EDeadlineTooFar)]
fun deadline_too_far() {
    let (s, clock) = by_hash(AMOUNT, signed::hash(), FEE, NOW + 63_244_800_001);
    end(s, clock);
}

#[test, expected_failure(abort_code = lock::ETooEarly)]
fun too_early() {
    let (mut s, mut clock) = hash_lock();
    clock.set_for_testing(DEADLINE);
    refund(&mut s, &clock);
    end(s, clock);
}

#[test, expected_failure(abort_code = lock::ENotHashLock)]
fun not_hash_lock() {
    let (mut s, clock) = key_lock();
    open_with_preimage(&mut s, &clock, signed::preimage());
    end(s, clock);
}

#[test, expected_failure(abort_code = lock::ENotKeyLock)]
fun not_key_lock() {
    let (mut s, clock) = hash_lock();
    open_with_key(&mut s, &clock, BOB, signed::release());
    end(s, clock);
}

#[test, expected_failure(abort_code = lock::EWrongPreimage)]
fun wrong_preimage() {
    let (mut s, clock) = hash_lock();
    open_with_preimage(&mut s, &clock, signed::key_a());
    end(s, clock);
}

#[test, expected_failure(abort_code = lock::EWrongPreimage)]
fun wrong_preimage_of_another_length() {
    let short = b"secret";
    let (mut s, clock) = by_hash(AMOUNT, std::hash::sha2_256(short), FEE, DEADLINE);
    open_with_preimage(&mut s, &clock, short);
    end(s, clock);
}

#[test, expected_failure(abort_code = lock::EBadSignature)]
fun bad_signature() {
    let (mut s, clock) = key_lock();
    open_with_key(&mut s, &clock, BOB, signed::forged());
    end(s, clock);
}

#[test, expected_failure(abort_code = lock::EBadSignature)]
fun bad_signature_when_the_submitter_names_itself() {
    let (mut s, clock) = key_lock();
    open_with_key(&mut s, &clock, RELAY, signed::release());
    end(s, clock);
}

#[test, expected_failure(abort_code = lock::EBadSignature)]
fun bad_signature_in_another_lock_of_the_same_key() {
    let (mut s, mut clock) = key_lock();
    clock.set_for_testing(DEADLINE + 1);
    refund(&mut s, &clock);
    s.next_tx(PAYER);
    let payment = coin::mint_for_testing<SUI>(AMOUNT, s.ctx());
    lock::new_key_lock(payment, signed::key_a(), FEE, 2 * DEADLINE, &clock, s.ctx()).share();
    s.next_tx(RELAY);
    open_with_key(&mut s, &clock, BOB, signed::release());
    end(s, clock);
}

#[test, expected_failure(abort_code = lock::EWeakKey)]
fun weak_key() {
    let identity = x"0100000000000000000000000000000000000000000000000000000000000000";
    let (s, clock) = by_key(identity, FEE);
    end(s, clock);
}

#[test, expected_failure(abort_code = lock::EWeakKey)]
fun weak_key_that_is_not_reduced() {
    let identity = x"eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f";
    let (s, clock) = by_key(identity, FEE);
    end(s, clock);
}

#[test, expected_failure(abort_code = lock::EWeakKey)]
fun weak_key_with_the_sign_of_x_set() {
    let order_four = x"0000000000000000000000000000000000000000000000000000000000000080";
    let (s, clock) = by_key(order_four, FEE);
    end(s, clock);
}

#[test, expected_failure(abort_code = lock::ENoPayee)]
fun no_payee() {
    let (mut s, clock) = begin();
    let payment = coin::mint_for_testing<SUI>(AMOUNT, s.ctx());
    lock::new_hash_lock(payment, signed::hash(), @0x0, FEE, DEADLINE, &clock, s.ctx()).share();
    end(s, clock);
}

#[test, expected_failure(abort_code = lock::ENoPayee)]
fun no_payee_named_by_the_key() {
    let (mut s, clock) = key_lock();
    open_with_key(&mut s, &clock, @0x0, signed::release());
    end(s, clock);
}
