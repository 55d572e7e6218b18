/// What tests of cards share.
#[test_only]
module directory::card_world;

use directory::{card::{Self, Card, Contents, Directory}, signed};
use sui::{clock::{Self, Clock}, test_scenario::{Self as ts, Scenario}};

/// Whoever submits what others have signed.
const RELAY: address = @0xCAFE;

const NOW: u64 = 50_000;

public fun begin(): (Scenario, Clock) {
    let mut s = ts::begin(RELAY);
    card::init_for_testing(s.ctx());
    let mut clock = clock::create_for_testing(s.ctx());
    clock.set_for_testing(NOW);
    s.next_tx(RELAY);
    (s, clock)
}

public fun end(s: Scenario, clock: Clock) {
    clock.destroy_for_testing();
    s.end();
}

public fun contents_until(expires_ms: u64): Contents {
    card::new_contents(
        x"0505050505050505050505050505050505050505050505050505050505050505",
        x"0606060606060606060606060606060606060606060606060606060606060606",
        vector[signed::device()],
        vector[b"laptop"],
        vector[b"dtp+tcp://box:9000/mail"],
        expires_ms,
    )
}

public fun contents(): Contents { contents_until(0) }

public fun new_with(s: &mut Scenario, key: vector<u8>, recovery: vector<u8>) {
    let mut directory = s.take_shared<Directory>();
    directory.new(key, recovery, s.ctx()).share();
    ts::return_shared(directory);
    s.next_tx(RELAY);
}

/// A card that has said nothing.
public fun silent(): (Scenario, Clock) {
    let (mut s, clock) = begin();
    new_with(&mut s, signed::key_a(), signed::key_b());
    (s, clock)
}

/// A card that holds for good.
public fun published(): (Scenario, Clock) {
    let (mut s, clock) = silent();
    say(&mut s, &clock, contents(), signed::said());
    (s, clock)
}

public fun say(s: &mut Scenario, clock: &Clock, contents: Contents, signature: vector<u8>) {
    let mut card = s.take_shared<Card>();
    card.update(contents, signature, clock);
    ts::return_shared(card);
    s.next_tx(RELAY);
}

public fun rotate(s: &mut Scenario, key: vector<u8>, recovery: vector<u8>, signature: vector<u8>) {
    let mut card = s.take_shared<Card>();
    card.rotate(key, recovery, signature);
    ts::return_shared(card);
    s.next_tx(RELAY);
}

public fun rotate_once(s: &mut Scenario) {
    rotate(s, signed::key_c(), signed::key_d(), signed::rotated());
}

public fun revoke(s: &mut Scenario, signature: vector<u8>) {
    let mut card = s.take_shared<Card>();
    card.revoke(signature);
    ts::return_shared(card);
    s.next_tx(RELAY);
}

public fun link(s: &mut Scenario, wallet: address, signature: vector<u8>) {
    s.next_tx(wallet);
    let mut directory = s.take_shared<Directory>();
    let mut card = s.take_shared<Card>();
    directory.link_wallet(&mut card, signature, s.ctx());
    ts::return_shared(card);
    ts::return_shared(directory);
    s.next_tx(RELAY);
}

public fun unlink(s: &mut Scenario, wallet: address) {
    s.next_tx(wallet);
    let mut directory = s.take_shared<Directory>();
    let mut card = s.take_shared<Card>();
    directory.unlink_wallet(&mut card, s.ctx());
    ts::return_shared(card);
    ts::return_shared(directory);
    s.next_tx(RELAY);
}

public fun unlink_lost(s: &mut Scenario, wallet: address, signature: vector<u8>) {
    let mut directory = s.take_shared<Directory>();
    let mut card = s.take_shared<Card>();
    directory.unlink_lost_wallet(&mut card, wallet, signature);
    ts::return_shared(card);
    ts::return_shared(directory);
    s.next_tx(RELAY);
}

public fun text(bytes: u64): vector<u8> {
    let mut made = vector[];
    while (made.length() < bytes) made.push_back(0x61);
    made
}

public fun many(value: vector<u8>, count: u64): vector<vector<u8>> {
    let mut made = vector[];
    while (made.length() < count) made.push_back(value);
    made
}

public fun turn(s: &mut Scenario, times: u64) {
    let mut i = 0;
    while (i < times) {
        let key = signed::turn_keys()[i + 1];
        rotate(s, key, signed::turn_recoveries()[i + 1], signed::turn_signatures()[i]);
        i = i + 1;
    };
}
