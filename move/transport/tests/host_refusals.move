#[test_only]
module transport::host_refusals;

use sui::{coin, event, sui::SUI, test_scenario as ts};
use transport::{host::{Self, Host, Beacon, HostCap}, signed, world};

public struct OTHER has drop {}

#[test, expected_failure(abort_code = host::EHeardSince)]
fun heard_since() {
    let mut w = world::new();
    world::host!(&mut w, |_, beacon, _, operator, clock, _| {
        beacon.heartbeat(operator, signed::key_c(), 7, 0, clock);
        beacon.suspect(operator, signed::key_c(), 7, world::start_ms() - 1);
    });
    w.end();
}

#[test, expected_failure(abort_code = host::EHeardSince)]
fun heard_since_by_another_generation() {
    let mut w = world::new();
    world::host!(&mut w, |_, beacon, _, operator, clock, _| {
        beacon.heartbeat(operator, signed::key_c(), 7, 0, clock);
        beacon.suspect(operator, signed::key_c(), 6, world::start_ms());
    });
    w.end();
}

#[test, expected_failure(abort_code = host::EMissingRight)]
fun missing_right_to_suspect() {
    let mut w = world::new();
    world::host!(&mut w, |host, beacon, cap, _, clock, ctx| {
        let weak = host.new_operator(cap, 1, ctx);
        beacon.heartbeat(&weak, signed::key_c(), 7, 0, clock);
        beacon.suspect(&weak, signed::key_c(), 7, world::start_ms());
        weak.destroy_operator();
    });
    w.end();
}

#[test, expected_failure(abort_code = host::EWrongVersion)]
fun wrong_version() {
    let mut w = world::new();
    world::host!(&mut w, |host, _, cap, _, _, _| {
        host.set_version_for_testing(2);
        host.set_open(cap, 1, false);
    });
    w.end();
}

#[test, expected_failure(abort_code = host::EWrongVersion)]
fun wrong_version_of_a_beacon() {
    let mut w = world::new();
    world::host!(&mut w, |_, beacon, _, operator, clock, _| {
        beacon.set_beacon_version_for_testing(2);
        beacon.heartbeat(operator, signed::key_c(), 1, 0, clock);
    });
    w.end();
}

/// Make a second host and hand its parts on; its cap has nothing to say over the first.
fun second(w: &mut world::World): (Host, Beacon, HostCap) {
    w.as_server();
    let (s, _) = w.parts();
    host::new(60_000, s.ctx())
}

#[test, expected_failure(abort_code = host::EWrongCap)]
fun wrong_cap() {
    let mut w = world::new();
    let (other, beacon, cap) = second(&mut w);
    world::host!(&mut w, |host, _, _, _, _, _| host.set_open(&cap, 1, false));
    other.destroy(beacon, &cap);
    cap.destroy_cap();
    w.end();
}

#[test, expected_failure(abort_code = host::EWrongCap)]
fun wrong_cap_for_the_time_to_live() {
    let mut w = world::new();
    let (other, beacon, cap) = second(&mut w);
    world::host!(&mut w, |_, beacon, _, _, _, _| beacon.set_ttl(&cap, 10_000));
    other.destroy(beacon, &cap);
    cap.destroy_cap();
    w.end();
}

#[test, expected_failure(abort_code = host::EWrongCap)]
fun wrong_cap_for_a_heartbeat() {
    let mut w = world::new();
    let (other, beacon, cap) = second(&mut w);
    let (s, _) = w.parts();
    let operator = other.new_operator(&cap, 1, s.ctx());
    world::host!(&mut w, |_, beacon, _, _, clock, _| {
        beacon.heartbeat(&operator, signed::key_c(), 1, 0, clock);
    });
    operator.destroy_operator();
    other.destroy(beacon, &cap);
    cap.destroy_cap();
    w.end();
}

#[test, expected_failure(abort_code = host::EWrongCap)]
fun wrong_cap_for_the_lists() {
    let mut w = world::new();
    let (other, beacon, cap) = second(&mut w);
    let (s, _) = w.parts();
    let operator = other.new_operator(&cap, 4, s.ctx());
    world::host!(&mut w, |host, _, _, _, _, _| host.deny(&operator, vector[@0x1]));
    operator.destroy_operator();
    other.destroy(beacon, &cap);
    cap.destroy_cap();
    w.end();
}

#[test, expected_failure(abort_code = host::EForeignBeacon)]
fun foreign_beacon() {
    let mut w = world::new();
    let (other, mut beacon, cap) = second(&mut w);
    world::host!(&mut w, |host, _, cap, _, _, _| host.revoke_operators(&mut beacon, cap));
    other.destroy(beacon, &cap);
    cap.destroy_cap();
    w.end();
}

#[test, expected_failure(abort_code = host::ENoService)]
fun no_service() {
    let mut w = world::new();
    world::host!(&mut w, |host, _, cap, _, _, _| host.set_open(cap, 2, true));
    w.end();
}

#[test, expected_failure(abort_code = host::ENoService)]
fun no_service_to_remove() {
    let mut w = world::new();
    world::host!(&mut w, |host, _, cap, _, _, _| host.remove_service(cap, 2));
    w.end();
}

#[test, expected_failure(abort_code = host::ENoService)]
fun no_service_to_read() {
    let mut w = world::new();
    world::host!(&mut w, |host, _, _, _, _, _| assert!(host.service(2).is_open()));
    w.end();
}

#[test, expected_failure(abort_code = host::EServiceExists)]
fun service_exists() {
    let mut w = world::new();
    world::host!(&mut w, |host, _, cap, _, _, _| {
        host.add_service(cap, 1, 0, 0, world::terms(), world::no_limit(), 0, 0, vector[]);
    });
    w.end();
}

#[test, expected_failure(abort_code = host::ETooManyServices)]
fun too_many_services() {
    let mut w = world::new();
    world::host!(&mut w, |host, _, cap, _, _, _| {
        let mut number = 2;
        while (number <= 33) {
            host.add_service(cap, number, 0, 0, world::terms(), world::no_limit(), 0, 0, vector[]);
            number = number + 1;
        };
    });
    w.end();
}

#[test, expected_failure(abort_code = host::EServiceClosed)]
fun service_closed() {
    let mut w = world::new();
    world::host!(&mut w, |host, _, cap, _, _, _| host.set_open(cap, 1, false));
    w.as_client();
    w.open_channel(100);
    w.end();
}

#[test, expected_failure(abort_code = host::EDenied)]
fun denied() {
    let mut w = world::new();
    world::host!(&mut w, |host, _, _, operator, _, _| {
        host.allow(operator, vector[signed::client()]);
        host.deny(operator, vector[signed::client()]);
    });
    w.as_client();
    w.open_channel(100);
    w.end();
}

#[test]
fun allowed() {
    let mut w = world::new();
    world::host!(&mut w, |host, _, cap, operator, _, _| {
        host.set_mode(cap, 1, 1);
        host.allow(operator, vector[signed::client()]);
    });
    w.as_client();
    w.open_channel(100);
    w.end();
}

#[test, expected_failure(abort_code = host::ENotAllowed)]
fun not_allowed() {
    let mut w = world::new();
    world::host!(&mut w, |host, _, cap, operator, _, _| {
        host.set_mode(cap, 1, 1);
        host.allow(operator, vector[world::stranger()]);
    });
    w.as_client();
    w.open_channel(100);
    w.end();
}

#[test, expected_failure(abort_code = host::ENeedsPass)]
fun needs_pass() {
    let mut w = world::new();
    world::host!(&mut w, |host, _, cap, _, _, _| host.set_mode(cap, 1, 2));
    w.as_client();
    w.open_channel(100);
    w.end();
}

#[test, expected_failure(abort_code = host::ENotFresh)]
fun not_fresh() {
    let mut w = world::new();
    w.wait(60_001);
    w.open_channel(100);
    w.end();
}

#[test, expected_failure(abort_code = host::ENotFresh)]
fun not_fresh_before_the_first_heartbeat() {
    let mut w = world::new();
    world::host!(&mut w, |_, beacon, _, operator, _, _| {
        beacon.withdraw(operator, signed::key_c());
        beacon.enroll(operator, signed::key_c(), 1, 0, 0, vector[]);
    });
    w.as_client();
    w.open_channel(100);
    w.end();
}

#[test, expected_failure(abort_code = host::EBadMode)]
fun bad_mode() {
    let mut w = world::new();
    world::host!(&mut w, |host, _, cap, _, _, _| host.set_mode(cap, 1, 3));
    w.end();
}

#[test, expected_failure(abort_code = host::EBadMode)]
fun bad_mode_of_a_new_service() {
    let mut w = world::new();
    world::host!(&mut w, |host, _, cap, _, _, _| {
        host.add_service(cap, 2, 0, 3, world::terms(), world::no_limit(), 0, 0, vector[]);
    });
    w.end();
}

#[test, expected_failure(abort_code = host::EBadBearer)]
fun bad_bearer() {
    world::terms_with(1, 1, 3, 0);
}

#[test, expected_failure(abort_code = host::EBadClaimTime)]
fun bad_claim_time() {
    host::new_terms<SUI>(1, 1, 1, 1, 0, 0, 600_000, 59_999);
}

#[test, expected_failure(abort_code = host::EBadClaimTime)]
fun bad_claim_time_beyond_a_month() {
    host::new_terms<SUI>(1, 1, 1, 1, 0, 0, 31_622_400_000, 2_592_000_001);
}

#[test, expected_failure(abort_code = host::EBadIdleTime)]
fun bad_idle_time() {
    host::new_terms<SUI>(1, 1, 1, 1, 0, 0, 59_999, 60_000);
}

#[test, expected_failure(abort_code = host::EBadIdleTime)]
fun bad_idle_time_beyond_a_year() {
    host::new_terms<SUI>(1, 1, 1, 1, 0, 0, 31_622_400_001, 60_000);
}

#[test, expected_failure(abort_code = host::EZeroCap)]
fun zero_cap() {
    world::terms_with(1, 0, 0, 0);
}

#[test, expected_failure(abort_code = host::EBadTermsHash)]
fun bad_terms_hash() {
    let mut w = world::new();
    world::host!(&mut w, |host, _, cap, _, _, _| host.set_terms(cap, 1, world::terms(), b"short"));
    w.end();
}

#[test, expected_failure(abort_code = host::EBadRate)]
fun bad_rate() {
    host::new_rate_limit(1, 0, 0, 0);
}

#[test, expected_failure(abort_code = host::EBadRate)]
fun bad_rate_of_bytes() {
    host::new_rate_limit(0, 0, 1, 0);
}

#[test, expected_failure(abort_code = host::EBadTtl)]
fun bad_ttl() {
    let mut w = world::new();
    world::host!(&mut w, |_, beacon, cap, _, _, _| beacon.set_ttl(cap, 9_999));
    w.end();
}

#[test, expected_failure(abort_code = host::EBadTtl)]
fun bad_ttl_of_a_new_host() {
    let mut s = ts::begin(@0x1);
    let (host, beacon, cap) = host::new(86_400_001, s.ctx());
    host.destroy(beacon, &cap);
    cap.destroy_cap();
    s.end();
}

#[test, expected_failure(abort_code = host::EBadKey)]
fun bad_key() {
    let mut w = world::new();
    world::host!(&mut w, |_, beacon, _, operator, _, _| {
        beacon.enroll(operator, b"short", 1, 0, 0, vector[]);
    });
    w.end();
}

#[test, expected_failure(abort_code = host::EBadRole)]
fun bad_role() {
    let mut w = world::new();
    world::host!(&mut w, |_, beacon, _, operator, _, _| {
        beacon.enroll(operator, signed::key_a(), 1, 2, 0, vector[]);
    });
    w.end();
}

#[test, expected_failure(abort_code = host::EBadRole)]
fun bad_role_in_a_configuration() {
    let mut w = world::new();
    world::host!(&mut w, |_, beacon, _, operator, _, _| {
        beacon.configure(operator, signed::key_c(), 1, 2, vector[]);
    });
    w.end();
}

fun bytes(length: u64): vector<u8> {
    let mut data = vector[];
    while (data.length() < length) data.push_back(0);
    data
}

#[test, expected_failure(abort_code = host::EHintTooLong)]
fun hint_too_long() {
    let mut w = world::new();
    world::host!(&mut w, |_, beacon, _, operator, _, _| {
        beacon.enroll(operator, signed::key_a(), 1, 0, 0, bytes(513));
    });
    w.end();
}

#[test, expected_failure(abort_code = host::EHintTooLong)]
fun hint_too_long_in_a_configuration() {
    let mut w = world::new();
    world::host!(&mut w, |_, beacon, _, operator, _, _| {
        beacon.configure(operator, signed::key_c(), 1, 0, bytes(513));
    });
    w.end();
}

#[test, expected_failure(abort_code = host::EEndpointExists)]
fun endpoint_exists() {
    let mut w = world::new();
    world::host!(&mut w, |_, beacon, _, operator, _, _| {
        beacon.enroll(operator, signed::key_c(), 1, 0, 0, vector[]);
    });
    w.end();
}

#[test, expected_failure(abort_code = host::ETooManyEndpoints)]
fun too_many_endpoints() {
    let mut w = world::new();
    world::host!(&mut w, |_, beacon, _, operator, _, _| {
        let mut number = 0u8;
        while (number < 16) {
            let mut key = bytes(31);
            key.push_back(number + 1);
            beacon.enroll(operator, key, 1, 0, 0, vector[]);
            number = number + 1;
        };
    });
    w.end();
}

#[test, expected_failure(abort_code = host::ENoEndpoint)]
fun no_endpoint() {
    let mut w = world::new();
    world::host!(&mut w, |_, beacon, _, operator, clock, _| {
        beacon.heartbeat(operator, signed::key_a(), 1, 0, clock);
    });
    w.end();
}

#[test, expected_failure(abort_code = host::ENoEndpoint)]
fun no_endpoint_to_withdraw() {
    let mut w = world::new();
    world::host!(&mut w, |_, beacon, _, operator, _, _| {
        beacon.withdraw(operator, signed::key_a());
    });
    w.end();
}

#[test, expected_failure(abort_code = host::EFenced)]
fun fenced() {
    let mut w = world::new();
    world::host!(&mut w, |_, beacon, _, operator, clock, _| {
        beacon.heartbeat(operator, signed::key_c(), 2, 0, clock);
        beacon.heartbeat(operator, signed::key_c(), 1, 0, clock);
    });
    w.end();
}

#[test, expected_failure(abort_code = host::ERevokedOperator)]
fun revoked_operator() {
    let mut w = world::new();
    world::host!(&mut w, |host, beacon, cap, operator, clock, _| {
        host.revoke_operators(beacon, cap);
        beacon.heartbeat(operator, signed::key_c(), 1, 0, clock);
    });
    w.end();
}

#[test, expected_failure(abort_code = host::ERevokedOperator)]
fun revoked_operator_of_the_lists() {
    let mut w = world::new();
    world::host!(&mut w, |host, beacon, cap, operator, _, _| {
        host.revoke_operators(beacon, cap);
        host.allow(operator, vector[@0x1]);
    });
    w.end();
}

#[test, expected_failure(abort_code = host::EMissingRight)]
fun missing_right() {
    let mut w = world::new();
    world::host!(&mut w, |host, _, cap, _, _, ctx| {
        let weak = host.new_operator(cap, 1, ctx);
        host.deny(&weak, vector[@0x1]);
        weak.destroy_operator();
    });
    w.end();
}

#[test, expected_failure(abort_code = host::EMissingRight)]
fun missing_right_to_enroll() {
    let mut w = world::new();
    world::host!(&mut w, |host, beacon, cap, _, _, ctx| {
        let weak = host.new_operator(cap, 13, ctx);
        beacon.enroll(&weak, signed::key_a(), 1, 0, 0, vector[]);
        weak.destroy_operator();
    });
    w.end();
}

#[test, expected_failure(abort_code = host::EBadRights)]
fun bad_rights() {
    let mut w = world::new();
    world::host!(
        &mut w,
        |host, _, cap, _, _, ctx| host.new_operator(cap, 16, ctx).destroy_operator(),
    );
    w.end();
}

#[test, expected_failure(abort_code = host::EBadRights)]
fun bad_rights_of_none() {
    let mut w = world::new();
    world::host!(
        &mut w,
        |host, _, cap, _, _, ctx| host.new_operator(cap, 0, ctx).destroy_operator(),
    );
    w.end();
}

#[test, expected_failure(abort_code = host::EListsNotEmpty)]
fun lists_not_empty() {
    let mut s = ts::begin(@0x1);
    let (mut host, beacon, cap) = host::new(10_000, s.ctx());
    let operator = host.new_operator(&cap, 4, s.ctx());
    host.deny(&operator, vector[@0x2]);
    operator.destroy_operator();
    host.destroy(beacon, &cap);
    cap.destroy_cap();
    s.end();
}

#[test, expected_failure(abort_code = host::EWrongCoin)]
fun wrong_coin() {
    let mut w = world::new();
    let (s, clock) = w.parts();
    let host = s.take_shared<Host>();
    let beacon = s.take_shared<Beacon>();
    let fake = coin::mint_for_testing<OTHER>(100, s.ctx());
    let key = signed::key_a();
    transport::channel::open(&host, &beacon, 1, 1, fake, key, clock, s.ctx()).share();
    ts::return_shared(host);
    ts::return_shared(beacon);
    w.end();
}

/// y of each point of small order, and those that aren't reduced: with either sign of x.
fun weak_keys(): vector<vector<u8>> {
    let keys = vector[
        x"0000000000000000000000000000000000000000000000000000000000000000",
        x"0100000000000000000000000000000000000000000000000000000000000000",
        x"26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
        x"c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
        x"ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        x"edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        x"eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        x"f0ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        x"ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    ];
    keys
}

#[test]
fun weak_keys_are_known_with_either_sign_and_others_are_let_be() {
    let keys = weak_keys();
    let mut i = 0;
    while (i < keys.length()) {
        let mut key = keys[i];
        assert!(host::is_weak_key(&key));
        let signed = key[31] + 128;
        *(&mut key[31]) = signed;
        assert!(host::is_weak_key(&key));
        // Another point: one byte in the middle differs.
        let other = if (key[15] == 0) 1 else key[15] - 1;
        *(&mut key[15]) = other;
        assert!(!host::is_weak_key(&key));
        i = i + 1;
    };
    assert!(!host::is_weak_key(&signed::key_a()) && !host::is_weak_key(&signed::key_b()));
    // The largest y that is reduced but one: the largest itself is of order two.
    let largest = x"ebffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f";
    assert!(!host::is_weak_key(&largest));
}

#[test, expected_failure(abort_code = host::EWeakKey)]
fun weak_key() {
    let mut w = world::new();
    world::host!(&mut w, |_, beacon, _, operator, _, _| {
        beacon.enroll(operator, weak_keys()[1], 1, 0, 0, vector[]);
    });
    w.end();
}

#[test, expected_failure(abort_code = host::ENoOwner)]
fun no_owner() {
    let mut w = world::new();
    world::host!(&mut w, |host, _, cap, _, _, _| host.set_owner(cap, @0x0));
    w.end();
}

#[test]
fun what_the_owner_and_the_lists_change_is_told() {
    let mut w = world::new();
    world::host!(&mut w, |host, _, cap, operator, _, _| {
        host.set_owner(cap, @0xCAFE);
        host.allow(operator, vector[@0x1]);
        host.disallow(operator, vector[@0x1]);
        host.deny(operator, vector[@0x2, @0x3]);
        host.undeny(operator, vector[@0x2, @0x3]);
    });
    assert!(event::events_by_type<host::OwnerChanged>().length() == 1);
    assert!(event::events_by_type<host::ListChanged>().length() == 4);
    w.end();
}

#[test]
fun an_owner_migrates_a_host_of_an_older_version_with_its_beacon() {
    let mut w = world::new();
    world::host!(&mut w, |host, beacon, cap, operator, clock, _| {
        host.set_version_for_testing(0);
        beacon.set_beacon_version_for_testing(0);
        host.migrate(beacon, cap);
        host.set_open(cap, 1, true);
        beacon.heartbeat(operator, signed::key_c(), 1, 0, clock);
    });
    assert!(event::events_by_type<host::HostMigrated>().length() == 1);
    w.end();
}

#[test, expected_failure(abort_code = host::EUpToDate)]
fun up_to_date() {
    let mut w = world::new();
    world::host!(&mut w, |host, beacon, cap, _, _, _| host.migrate(beacon, cap));
    w.end();
}

#[test, expected_failure(abort_code = host::EUpToDate)]
fun a_newer_host_is_not_migrated_back() {
    let mut w = world::new();
    world::host!(&mut w, |host, beacon, cap, _, _, _| {
        host.set_version_for_testing(2);
        host.migrate(beacon, cap);
    });
    w.end();
}

#[test, expected_failure(abort_code = host::EWrongCap)]
fun wrong_cap_to_migrate() {
    let mut w = world::new();
    let (other, beacon, cap) = second(&mut w);
    world::host!(&mut w, |host, beacon, _, _, _, _| {
        host.set_version_for_testing(0);
        host.migrate(beacon, &cap);
    });
    other.destroy(beacon, &cap);
    cap.destroy_cap();
    w.end();
}

#[test, expected_failure(abort_code = host::EForeignBeacon)]
fun foreign_beacon_to_migrate() {
    let mut w = world::new();
    let (other, mut beacon, cap) = second(&mut w);
    world::host!(&mut w, |host, _, cap, _, _, _| {
        host.set_version_for_testing(0);
        host.migrate(&mut beacon, cap);
    });
    other.destroy(beacon, &cap);
    cap.destroy_cap();
    w.end();
}
