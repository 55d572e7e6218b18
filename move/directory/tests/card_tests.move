#[test_only]
module directory::card_tests;

use directory::{
    card::{Self, Card, Directory},
    card_world::{
        begin,
        contents,
        contents_until,
        end,
        link,
        many,
        new_with,
        published,
        revoke,
        rotate_once,
        say,
        silent,
        text,
        turn,
        unlink,
        unlink_lost,
    },
    signed
};
use sui::{clock::Clock, event, test_scenario::{Self as ts, Scenario}};

/// Wallets that `signed::links` links.
const ALICE: address = @0x1;

const BOB: address = @0x2;

/// Whoever submits what others have signed.
const RELAY: address = @0xCAFE;

const SOON: u64 = 51_000;

fun is_current(s: &mut Scenario, clock: &Clock): bool {
    let card = s.take_shared<Card>();
    let current = card.is_current(clock);
    ts::return_shared(card);
    s.next_tx(RELAY);
    current
}

#[test]
fun a_card_says_what_its_account_has_signed_whoever_submits() {
    let (mut s, clock) = published();
    let card = s.take_shared<Card>();
    assert!(card.account() == signed::account() && card.generation() == 1 && card.sequence() == 1);
    assert!(card.key() == signed::key_a() && card.recovery() == signed::key_b());
    assert!(card.encryption_key().length() == 32 && card.prekeys().length() == 32);
    assert!(card.mailboxes() == vector[b"dtp+tcp://box:9000/mail"]);
    assert!(card.names_device(signed::device(), &clock));
    assert!(!card.names_device(signed::key_a(), &clock));
    assert!(card.is_current(&clock) && !card.is_revoked() && card.wallets().is_empty());
    ts::return_shared(card);
    s.next_tx(RELAY);
    end(s, clock);
}

#[test]
fun the_directory_finds_the_card_of_an_account() {
    let (mut s, clock) = published();
    let directory = s.take_shared<Directory>();
    let card = s.take_shared<Card>();
    assert!(directory.has_card(signed::account()));
    assert!(directory.card_of_account(signed::account()) == object::id(&card));
    assert!(!directory.has_card(signed::key_a()) && !directory.has_account(ALICE));
    ts::return_shared(card);
    ts::return_shared(directory);
    s.next_tx(RELAY);
    end(s, clock);
}

#[test]
fun an_account_that_has_said_nothing_names_nobody() {
    let (mut s, clock) = silent();
    let card = s.take_shared<Card>();
    assert!(!card.is_current(&clock) && !card.names_device(signed::device(), &clock));
    assert!(card.sequence() == 0 && card.key() == signed::key_a());
    ts::return_shared(card);
    s.next_tx(RELAY);
    end(s, clock);
}

#[test]
fun a_card_ends_by_itself() {
    let (mut s, mut clock) = published();
    say(&mut s, &clock, contents_until(SOON), signed::said_again());
    clock.set_for_testing(SOON);
    assert!(is_current(&mut s, &clock));
    clock.set_for_testing(SOON + 1);
    assert!(!is_current(&mut s, &clock));
    let card = s.take_shared<Card>();
    assert!(!card.names_device(signed::device(), &clock));
    ts::return_shared(card);
    s.next_tx(RELAY);
    end(s, clock);
}

#[test]
fun the_recovery_key_makes_another_key_the_accounts_and_voids_what_was_said() {
    let (mut s, clock) = published();
    rotate_once(&mut s);
    assert!(!is_current(&mut s, &clock));
    say(&mut s, &clock, contents(), signed::said_by_next());
    let card = s.take_shared<Card>();
    assert!(card.account() == signed::account() && card.generation() == 2 && card.sequence() == 2);
    assert!(card.key() == signed::key_c() && card.recovery() == signed::key_d());
    assert!(card.names_device(signed::device(), &clock));
    ts::return_shared(card);
    s.next_tx(RELAY);
    end(s, clock);
}

#[test]
fun an_account_has_several_wallets() {
    let (mut s, clock) = published();
    link(&mut s, ALICE, signed::links()[0]);
    link(&mut s, BOB, signed::links()[1]);
    let directory = s.take_shared<Directory>();
    let card = s.take_shared<Card>();
    assert!(card.wallets() == vector[ALICE, BOB] && card.sequence() == 3);
    assert!(directory.has_account(BOB) && directory.card_of_wallet(BOB) == object::id(&card));
    ts::return_shared(card);
    ts::return_shared(directory);
    s.next_tx(RELAY);
    end(s, clock);
}

#[test]
fun a_wallet_unlinks_itself_and_may_go_elsewhere() {
    let (mut s, clock) = published();
    link(&mut s, ALICE, signed::links()[0]);
    unlink(&mut s, ALICE);
    assert!(event::events_by_type<card::WalletChanged>().is_empty());
    let directory = s.take_shared<Directory>();
    assert!(!directory.has_account(ALICE));
    ts::return_shared(directory);
    s.next_tx(RELAY);
    end(s, clock);
}

#[test]
fun the_accounts_key_unlinks_a_wallet_that_is_lost() {
    let (mut s, clock) = published();
    link(&mut s, ALICE, signed::links()[0]);
    unlink_lost(&mut s, ALICE, signed::unlinked());
    let card = s.take_shared<Card>();
    assert!(card.wallets().is_empty() && card.sequence() == 3);
    ts::return_shared(card);
    s.next_tx(RELAY);
    end(s, clock);
}

#[test]
fun wallets_stay_linked_when_the_key_is_changed() {
    let (mut s, clock) = published();
    link(&mut s, ALICE, signed::links()[0]);
    rotate_once(&mut s);
    let directory = s.take_shared<Directory>();
    assert!(directory.has_account(ALICE));
    ts::return_shared(directory);
    s.next_tx(RELAY);
    end(s, clock);
}

#[test]
fun the_recovery_key_ends_an_account_and_wallets_leave_it() {
    let (mut s, clock) = published();
    link(&mut s, ALICE, signed::links()[0]);
    revoke(&mut s, signed::ended());
    assert!(!is_current(&mut s, &clock));
    unlink(&mut s, ALICE);
    let card = s.take_shared<Card>();
    assert!(card.is_revoked() && card.wallets().is_empty());
    ts::return_shared(card);
    s.next_tx(RELAY);
    end(s, clock);
}

#[test]
fun the_recovery_key_of_today_ends_an_account() {
    let (mut s, clock) = published();
    rotate_once(&mut s);
    revoke(&mut s, signed::ended_by_next());
    end(s, clock);
}

#[test]
fun an_account_may_be_rotated_before_it_says_anything() {
    let (mut s, clock) = silent();
    rotate_once(&mut s);
    assert!(!is_current(&mut s, &clock));
    end(s, clock);
}

#[test]
fun the_signed_bytes_are_the_documented_ones() {
    let id = object::id_from_address(@0xD);
    let mut rotation = b"\x14dtp.card.rotation.v1";
    rotation.append(signed::account());
    rotation.append(x"01020304");
    rotation.append(signed::key_c());
    rotation.append(signed::key_d());
    let (key, recovery) = (signed::key_c(), signed::key_d());
    assert!(card::rotation_bytes(signed::account(), 0x01020304, key, recovery) == rotation);
    let mut ended = b"\x0fdtp.card.end.v1";
    ended.append(std::bcs::to_bytes(&id));
    ended.append(std::bcs::to_bytes(&signed::account()));
    ended.append(x"0100000000000000");
    assert!(card::end_bytes(id, signed::account(), 1) == ended);
    let mut linked = b"\x0ddtp.wallet.v1";
    linked.append(std::bcs::to_bytes(&id));
    linked.append(std::bcs::to_bytes(&signed::account()));
    linked.append(x"01000000000000000200000000000000");
    linked.append(std::bcs::to_bytes(&ALICE));
    linked.append(x"01");
    assert!(card::wallet_bytes(id, signed::account(), 1, 2, ALICE, true) == linked);
    let mut said = b"\x10dtp.directory.v1";
    said.append(std::bcs::to_bytes(&id));
    said.append(std::bcs::to_bytes(&signed::account()));
    said.append(x"01000000000000000200000000000000");
    said.append(std::bcs::to_bytes(&contents()));
    assert!(card::statement_bytes(id, signed::account(), 1, 2, contents()) == said);
}

#[test]
fun all_that_fits_is_let_in() {
    let mut keys = vector[];
    let mut labels = vector[];
    let mut i = 0;
    while (i < 33) {
        keys.push_back(signed::turn_keys()[i]);
        labels.push_back(text(64));
        if (i < 31) {
            keys.push_back(signed::turn_recoveries()[i]);
            labels.push_back(b"");
        };
        i = i + 1;
    };
    assert!(keys.length() == 64);
    let mailboxes = many(text(256), 8);
    card::new_contents(vector[], vector[], keys, labels, mailboxes, 0);
}

#[test]
fun a_key_may_be_changed_32_times() {
    let (mut s, clock) = begin();
    new_with(&mut s, signed::turn_keys()[0], signed::turn_recoveries()[0]);
    turn(&mut s, 32);
    let card = s.take_shared<Card>();
    assert!(card.generation() == 33);
    ts::return_shared(card);
    s.next_tx(RELAY);
    end(s, clock);
}
