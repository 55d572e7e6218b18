#[test_only]
module directory::card_refusals;

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
        rotate,
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

const NOW: u64 = 50_000;

const SOON: u64 = 51_000;

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
