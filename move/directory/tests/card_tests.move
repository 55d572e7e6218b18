#[test_only]
module directory::card_tests;

use directory::{card::{Self, Card, Contents, Directory}, signed};
use sui::{clock::{Self, Clock}, event, test_scenario::{Self as ts, Scenario}};

/// Wallets that `signed::links` links.
const ALICE: address = @0x1;
const BOB: address = @0x2;
/// Whoever submits what others have signed.
const RELAY: address = @0xCAFE;
const NOW: u64 = 50_000;
const SOON: u64 = 51_000;

fun begin(): (Scenario, Clock) {
    let mut s = ts::begin(RELAY);
    card::init_for_testing(s.ctx());
    let mut clock = clock::create_for_testing(s.ctx());
    clock.set_for_testing(NOW);
    s.next_tx(RELAY);
    (s, clock)
}

fun end(s: Scenario, clock: Clock) {
    clock.destroy_for_testing();
    s.end();
}

fun contents_until(expires_ms: u64): Contents {
    card::new_contents(
        x"0505050505050505050505050505050505050505050505050505050505050505",
        x"0606060606060606060606060606060606060606060606060606060606060606",
        vector[signed::device()],
        vector[b"laptop"],
        vector[b"dtp+tcp://box:9000/mail"],
        expires_ms,
    )
}

fun contents(): Contents { contents_until(0) }

fun new_with(s: &mut Scenario, key: vector<u8>, recovery: vector<u8>) {
    let mut directory = s.take_shared<Directory>();
    directory.new(key, recovery, s.ctx()).share();
    ts::return_shared(directory);
    s.next_tx(RELAY);
}

/// A card that has said nothing.
fun silent(): (Scenario, Clock) {
    let (mut s, clock) = begin();
    new_with(&mut s, signed::key_a(), signed::key_b());
    (s, clock)
}

/// A card that holds for good.
fun published(): (Scenario, Clock) {
    let (mut s, clock) = silent();
    say(&mut s, &clock, contents(), signed::said());
    (s, clock)
}

fun say(s: &mut Scenario, clock: &Clock, contents: Contents, signature: vector<u8>) {
    let mut card = s.take_shared<Card>();
    card.update(contents, signature, clock);
    ts::return_shared(card);
    s.next_tx(RELAY);
}

fun rotate(s: &mut Scenario, key: vector<u8>, recovery: vector<u8>, signature: vector<u8>) {
    let mut card = s.take_shared<Card>();
    card.rotate(key, recovery, signature);
    ts::return_shared(card);
    s.next_tx(RELAY);
}

fun rotate_once(s: &mut Scenario) {
    rotate(s, signed::key_c(), signed::key_d(), signed::rotated());
}

fun revoke(s: &mut Scenario, signature: vector<u8>) {
    let mut card = s.take_shared<Card>();
    card.revoke(signature);
    ts::return_shared(card);
    s.next_tx(RELAY);
}

fun link(s: &mut Scenario, wallet: address, signature: vector<u8>) {
    s.next_tx(wallet);
    let mut directory = s.take_shared<Directory>();
    let mut card = s.take_shared<Card>();
    directory.link_wallet(&mut card, signature, s.ctx());
    ts::return_shared(card);
    ts::return_shared(directory);
    s.next_tx(RELAY);
}

fun unlink(s: &mut Scenario, wallet: address) {
    s.next_tx(wallet);
    let mut directory = s.take_shared<Directory>();
    let mut card = s.take_shared<Card>();
    directory.unlink_wallet(&mut card, s.ctx());
    ts::return_shared(card);
    ts::return_shared(directory);
    s.next_tx(RELAY);
}

fun unlink_lost(s: &mut Scenario, wallet: address, signature: vector<u8>) {
    let mut directory = s.take_shared<Directory>();
    let mut card = s.take_shared<Card>();
    directory.unlink_lost_wallet(&mut card, wallet, signature);
    ts::return_shared(card);
    ts::return_shared(directory);
    s.next_tx(RELAY);
}

fun text(bytes: u64): vector<u8> {
    let mut made = vector[];
    while (made.length() < bytes) made.push_back(0x61);
    made
}

fun many(value: vector<u8>, count: u64): vector<vector<u8>> {
    let mut made = vector[];
    while (made.length() < count) made.push_back(value);
    made
}

fun is_current(s: &mut Scenario, clock: &Clock): bool {
    let card = s.take_shared<Card>();
    let current = card.is_current(clock);
    ts::return_shared(card);
    s.next_tx(RELAY);
    current
}

// === Ways through ===

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

fun turn(s: &mut Scenario, times: u64) {
    let mut i = 0;
    while (i < times) {
        let key = signed::turn_keys()[i + 1];
        rotate(s, key, signed::turn_recoveries()[i + 1], signed::turn_signatures()[i]);
        i = i + 1;
    };
}

// === Refusals, each by the name of its error ===

fun of_another_version(): (Scenario, Clock) {
    let (mut s, clock) = silent();
    let mut card = s.take_shared<Card>();
    card.set_version_for_testing(2);
    ts::return_shared(card);
    s.next_tx(RELAY);
    (s, clock)
}

fun directory_of_another_version(): (Scenario, Clock) {
    let (mut s, clock) = published();
    let mut directory = s.take_shared<Directory>();
    directory.set_directory_version_for_testing(2);
    ts::return_shared(directory);
    s.next_tx(RELAY);
    (s, clock)
}

#[test, expected_failure(abort_code = card::EWrongVersion)]
fun wrong_version() {
    let (mut s, clock) = of_another_version();
    say(&mut s, &clock, contents(), signed::said());
    end(s, clock);
}

#[test, expected_failure(abort_code = card::EWrongVersion)]
fun wrong_version_to_rotate() {
    let (mut s, clock) = of_another_version();
    rotate_once(&mut s);
    end(s, clock);
}

#[test, expected_failure(abort_code = card::EWrongVersion)]
fun wrong_version_to_revoke() {
    let (mut s, clock) = of_another_version();
    revoke(&mut s, signed::ended());
    end(s, clock);
}

#[test, expected_failure(abort_code = card::EWrongVersion)]
fun wrong_version_to_unlink() {
    let (mut s, clock) = of_another_version();
    unlink(&mut s, ALICE);
    end(s, clock);
}

#[test, expected_failure(abort_code = card::EWrongVersion)]
fun wrong_version_of_the_directory() {
    let (mut s, clock) = directory_of_another_version();
    link(&mut s, ALICE, signed::links()[0]);
    end(s, clock);
}

#[test, expected_failure(abort_code = card::EWrongVersion)]
fun wrong_version_of_the_directory_of_a_new_card() {
    let (mut s, clock) = directory_of_another_version();
    new_with(&mut s, signed::key_c(), signed::key_d());
    end(s, clock);
}

#[test]
fun older_objects_are_migrated_by_anyone() {
    let (mut s, clock) = published();
    let mut directory = s.take_shared<Directory>();
    let mut card = s.take_shared<Card>();
    directory.set_directory_version_for_testing(0);
    card.set_version_for_testing(0);
    directory.migrate_directory();
    card.migrate();
    assert!(event::events_by_type<card::Migrated>().length() == 2);
    ts::return_shared(card);
    ts::return_shared(directory);
    link(&mut s, ALICE, signed::links()[0]);
    end(s, clock);
}

#[test, expected_failure(abort_code = card::EUpToDate)]
fun up_to_date() {
    let (mut s, clock) = silent();
    let mut card = s.take_shared<Card>();
    card.migrate();
    ts::return_shared(card);
    s.next_tx(RELAY);
    end(s, clock);
}

#[test, expected_failure(abort_code = card::EUpToDate)]
fun up_to_date_directory() {
    let (mut s, clock) = begin();
    let mut directory = s.take_shared<Directory>();
    directory.migrate_directory();
    ts::return_shared(directory);
    s.next_tx(RELAY);
    end(s, clock);
}

#[test, expected_failure(abort_code = card::EBadKey)]
fun bad_key() {
    let (mut s, clock) = begin();
    new_with(&mut s, b"short", signed::key_b());
    end(s, clock);
}

#[test, expected_failure(abort_code = card::EBadKey)]
fun bad_key_for_encryption() {
    card::new_contents(b"short", vector[], vector[], vector[], vector[], 0);
}

#[test, expected_failure(abort_code = card::EBadKey)]
fun bad_key_of_a_device() {
    card::new_contents(vector[], vector[], vector[b"short"], vector[b""], vector[], 0);
}

#[test, expected_failure(abort_code = card::EWeakKey)]
fun weak_key() {
    let (mut s, clock) = begin();
    let weak = x"0100000000000000000000000000000000000000000000000000000000000000";
    new_with(&mut s, weak, signed::key_b());
    end(s, clock);
}

#[test, expected_failure(abort_code = card::EWeakKey)]
fun weak_key_to_recover() {
    let (mut s, clock) = begin();
    let weak = x"eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f";
    new_with(&mut s, signed::key_a(), weak);
    end(s, clock);
}

#[test, expected_failure(abort_code = card::EWeakKey)]
fun weak_key_of_a_rotation() {
    let (mut s, clock) = silent();
    let weak = x"0000000000000000000000000000000000000000000000000000000000000080";
    rotate(&mut s, weak, signed::key_d(), signed::rotated());
    end(s, clock);
}

#[test, expected_failure(abort_code = card::EKeyUsed)]
fun key_used() {
    let (mut s, clock) = silent();
    rotate(&mut s, signed::key_a(), signed::key_d(), signed::rotated());
    end(s, clock);
}

#[test, expected_failure(abort_code = card::EKeyUsed)]
fun key_used_to_recover_before() {
    let (mut s, clock) = silent();
    rotate(&mut s, signed::key_c(), signed::key_b(), signed::rotated());
    end(s, clock);
}

#[test, expected_failure(abort_code = card::EKeyUsed)]
fun key_used_in_a_rotation_before() {
    let (mut s, clock) = begin();
    new_with(&mut s, signed::turn_keys()[0], signed::turn_recoveries()[0]);
    turn(&mut s, 2);
    let signature = signed::turn_signatures()[2];
    rotate(&mut s, signed::turn_keys()[1], signed::turn_recoveries()[3], signature);
    end(s, clock);
}

#[test, expected_failure(abort_code = card::EKeyUsed)]
fun key_used_for_both() {
    let (mut s, clock) = begin();
    new_with(&mut s, signed::key_a(), signed::key_a());
    end(s, clock);
}

#[test, expected_failure(abort_code = card::EBadSignature)]
fun bad_signature() {
    let (mut s, clock) = silent();
    say(&mut s, &clock, contents(), signed::said_by_recovery());
    end(s, clock);
}

#[test, expected_failure(abort_code = card::EBadSignature)]
fun bad_signature_of_other_contents() {
    let (mut s, clock) = silent();
    say(&mut s, &clock, contents_until(SOON), signed::said());
    end(s, clock);
}

#[test, expected_failure(abort_code = card::EBadSignature)]
fun bad_signature_for_another_directory() {
    let (mut s, clock) = silent();
    say(&mut s, &clock, contents(), signed::said_elsewhere());
    end(s, clock);
}

#[test, expected_failure(abort_code = card::EBadSignature)]
fun bad_signature_that_was_used_before() {
    let (mut s, clock) = published();
    say(&mut s, &clock, contents(), signed::said());
    end(s, clock);
}

#[test, expected_failure(abort_code = card::EBadSignature)]
fun bad_signature_by_the_key_before() {
    let (mut s, clock) = published();
    rotate_once(&mut s);
    say(&mut s, &clock, contents(), signed::said_by_replaced());
    end(s, clock);
}

#[test, expected_failure(abort_code = card::EBadSignature)]
fun bad_signature_of_a_rotation_by_the_accounts_key() {
    let (mut s, clock) = published();
    rotate(&mut s, signed::key_c(), signed::key_d(), signed::rotated_by_key());
    end(s, clock);
}

#[test, expected_failure(abort_code = card::EBadSignature)]
fun bad_signature_of_an_end_by_the_accounts_key() {
    let (mut s, clock) = published();
    revoke(&mut s, signed::ended_by_key());
    end(s, clock);
}

#[test, expected_failure(abort_code = card::EBadSignature)]
fun bad_signature_of_an_end_by_the_recovery_key_before() {
    let (mut s, clock) = published();
    rotate_once(&mut s);
    revoke(&mut s, signed::ended());
    end(s, clock);
}

#[test, expected_failure(abort_code = card::EBadSignature)]
fun bad_signature_for_another_wallet() {
    let (mut s, clock) = published();
    link(&mut s, BOB, signed::links()[0]);
    end(s, clock);
}

#[test, expected_failure(abort_code = card::EBadSignature)]
fun bad_signature_that_linked_a_wallet_before() {
    let (mut s, clock) = published();
    link(&mut s, ALICE, signed::links()[0]);
    unlink(&mut s, ALICE);
    link(&mut s, ALICE, signed::links()[0]);
    end(s, clock);
}

#[test, expected_failure(abort_code = card::EBadSignature)]
fun bad_signature_that_linked_taken_to_unlink() {
    let (mut s, clock) = published();
    unlink_lost(&mut s, ALICE, signed::links()[0]);
    end(s, clock);
}

#[test, expected_failure(abort_code = card::ECardExists)]
fun card_exists() {
    let (mut s, clock) = silent();
    new_with(&mut s, signed::key_a(), signed::key_b());
    end(s, clock);
}

#[test, expected_failure(abort_code = card::ENoCard)]
fun no_card() {
    let (s, _clock) = begin();
    let directory = s.take_shared<Directory>();
    directory.card_of_account(signed::account());
    abort 0
}

#[test, expected_failure(abort_code = card::ENoCard)]
fun no_card_of_a_wallet() {
    let (s, _clock) = published();
    let directory = s.take_shared<Directory>();
    directory.card_of_wallet(ALICE);
    abort 0
}

#[test, expected_failure(abort_code = card::EForeignDirectory)]
fun foreign_directory() {
    let (mut s, _clock) = published();
    let ours = ts::most_recent_id_shared<Directory>().destroy_some();
    card::init_for_testing(s.ctx());
    s.next_tx(ALICE);
    let other = ts::most_recent_id_shared<Directory>().destroy_some();
    assert!(other != ours);
    let mut directory = s.take_shared_by_id<Directory>(other);
    let mut card = s.take_shared<Card>();
    directory.link_wallet(&mut card, signed::links()[0], s.ctx());
    abort 0
}

fun after_the_end(): (Scenario, Clock) {
    let (mut s, clock) = published();
    revoke(&mut s, signed::ended());
    (s, clock)
}

#[test, expected_failure(abort_code = card::ERevoked)]
fun revoked() {
    let (mut s, clock) = after_the_end();
    say(&mut s, &clock, contents_until(SOON), signed::said_again());
    end(s, clock);
}

#[test, expected_failure(abort_code = card::ERevoked)]
fun revoked_and_no_key_begins_anew() {
    let (mut s, clock) = after_the_end();
    rotate_once(&mut s);
    end(s, clock);
}

#[test, expected_failure(abort_code = card::ERevoked)]
fun revoked_twice() {
    let (mut s, clock) = after_the_end();
    revoke(&mut s, signed::ended());
    end(s, clock);
}

#[test, expected_failure(abort_code = card::ERevoked)]
fun revoked_and_no_wallet_comes() {
    let (mut s, clock) = after_the_end();
    link(&mut s, ALICE, signed::links()[0]);
    end(s, clock);
}

#[test, expected_failure(abort_code = card::EExpired)]
fun expired() {
    let (mut s, clock) = silent();
    say(&mut s, &clock, contents_until(NOW), signed::said_briefly());
    end(s, clock);
}

#[test, expected_failure(abort_code = card::ETooManyDevices)]
fun too_many_devices() {
    let keys = many(signed::device(), 65);
    let labels = many(b"", 65);
    card::new_contents(vector[], vector[], keys, labels, vector[], 0);
}

#[test, expected_failure(abort_code = card::EUnequalDevices)]
fun unequal_devices() {
    card::new_contents(vector[], vector[], vector[signed::device()], vector[], vector[], 0);
}

#[test, expected_failure(abort_code = card::EDeviceTwice)]
fun device_twice() {
    let keys = vector[signed::device(), signed::key_c(), signed::device()];
    card::new_contents(vector[], vector[], keys, vector[b"a", b"b", b"c"], vector[], 0);
}

#[test, expected_failure(abort_code = card::ELabelTooLong)]
fun label_too_long() {
    let label = text(65);
    card::new_contents(vector[], vector[], vector[signed::device()], vector[label], vector[], 0);
}

#[test, expected_failure(abort_code = card::ETooManyMailboxes)]
fun too_many_mailboxes() {
    let mailboxes = many(b"", 9);
    card::new_contents(vector[], vector[], vector[], vector[], mailboxes, 0);
}

#[test, expected_failure(abort_code = card::EMailboxTooLong)]
fun mailbox_too_long() {
    let mailboxes = vector[b"", text(257)];
    card::new_contents(vector[], vector[], vector[], vector[], mailboxes, 0);
}

#[test, expected_failure(abort_code = card::EBadPrekeys)]
fun bad_prekeys() {
    card::new_contents(vector[], b"short", vector[], vector[], vector[], 0);
}

#[test, expected_failure(abort_code = card::ETooManyWallets)]
fun too_many_wallets() {
    let (mut s, clock) = published();
    let links = signed::links();
    let mut i = 0;
    while (i < 33) {
        link(&mut s, sui::address::from_u256((i + 1) as u256), links[i]);
        i = i + 1;
    };
    end(s, clock);
}

#[test, expected_failure(abort_code = card::EWalletTaken)]
fun wallet_taken() {
    let (mut s, clock) = published();
    link(&mut s, ALICE, signed::links()[0]);
    link(&mut s, ALICE, signed::links()[1]);
    end(s, clock);
}

#[test, expected_failure(abort_code = card::EWalletNotLinked)]
fun wallet_not_linked() {
    let (mut s, clock) = published();
    link(&mut s, ALICE, signed::links()[0]);
    unlink(&mut s, BOB);
    end(s, clock);
}

#[test, expected_failure(abort_code = card::EWalletNotLinked)]
fun wallet_not_linked_that_is_lost() {
    let (mut s, clock) = published();
    unlink_lost(&mut s, BOB, signed::unlinked_unknown());
    end(s, clock);
}

#[test, expected_failure(abort_code = card::ETooManyRotations)]
fun too_many_rotations() {
    let (mut s, clock) = begin();
    new_with(&mut s, signed::turn_keys()[0], signed::turn_recoveries()[0]);
    turn(&mut s, 32);
    rotate_once(&mut s);
    end(s, clock);
}
