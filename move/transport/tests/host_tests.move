#[test_only]
module transport::host_tests;

use sui::{event, test_scenario as ts};
use transport::{host, signed, world};

#[test]
fun a_new_host_has_no_service_and_is_not_fresh() {
    let mut s = ts::begin(signed::server());
    let clock = sui::clock::create_for_testing(s.ctx());
    let (host, beacon, cap) = host::new(10_000, s.ctx());
    assert!(host.owner() == signed::server());
    assert!(host.beacon() == object::id(&beacon));
    assert!(cap.cap_host() == object::id(&host));
    assert!(!host.has_service(1));
    assert!(!beacon.is_fresh(&clock));
    assert!(event::events_by_type<host::HostCreated>().length() == 1);
    host.destroy(beacon, &cap);
    cap.destroy_cap();
    clock.destroy_for_testing();
    s.end();
}

#[test]
fun a_service_starts_closed_and_carries_what_it_was_given() {
    let mut w = world::new();
    world::host!(&mut w, |host, _, cap, _, _, _| {
        let rate = host::new_rate_limit(1, 2, 3, 4);
        host.add_service(cap, 9, 5, 1, world::terms(), rate, 8, 11, signed::key_a());
        let service = host.service(9);
        assert!(!service.is_open());
        assert!(service.kind() == 5 && service.mode() == 1);
        assert!(service.window() == 8 && service.post_fee() == 11);
        assert!(service.terms_hash() == signed::key_a());
        let rate = service.rate();
        assert!(rate.requests().interval_ns() == 1 && rate.requests().burst() == 2);
        assert!(rate.bytes().interval_ns() == 3 && rate.bytes().burst() == 4);
        let terms = service.terms();
        assert!(terms.price_request() == 10 && terms.price_mib() == 1_048_576);
        assert!(terms.min_deposit() == 100 && terms.credit() == 0 && terms.bearer() == 0);
        assert!(terms.idle_ms() == world::idle_ms() && terms.claim_ms() == world::claim_ms());
        assert!(terms.epoch_cap() == 18_446_744_073_709_551_615);
    });
    w.end();
}

#[test]
fun every_change_of_terms_has_its_own_revision() {
    let mut w = world::new();
    world::host!(&mut w, |host, _, cap, _, _, _| {
        assert!(host.service(1).terms().revision() == 1);
        host.set_terms(cap, 1, world::terms_with(5, 6, 1, 2), vector[]);
        assert!(host.service(1).terms().revision() == 2);
        assert!(host.service(1).terms().price_mib() == 5);
        host.remove_service(cap, 1);
        assert!(!host.has_service(1));
        host.add_service(cap, 1, 0, 0, world::terms(), world::no_limit(), 0, 0, vector[]);
        assert!(host.service(1).terms().revision() == 3);
    });
    w.end();
}

#[test]
fun the_owner_changes_mode_limits_and_payee() {
    let mut w = world::new();
    world::host!(&mut w, |host, _, cap, _, _, _| {
        host.set_mode(cap, 1, 2);
        host.set_limits(cap, 1, host::new_rate_limit(1, 1, 0, 0), 3, 4);
        host.set_owner(cap, @0xCAFE);
        assert!(host.service(1).mode() == 2);
        assert!(host.service(1).window() == 3 && host.service(1).post_fee() == 4);
        assert!(host.owner() == @0xCAFE);
    });
    w.end();
}

#[test]
fun the_lists_take_each_address_once() {
    let mut w = world::new();
    world::host!(&mut w, |host, _, _, operator, _, _| {
        host.allow(operator, vector[@0x1, @0x2, @0x1]);
        host.deny(operator, vector[@0x3]);
        host.deny(operator, vector[@0x3]);
        assert!(host.is_allowed(@0x1) && host.is_allowed(@0x2) && !host.is_allowed(@0x3));
        assert!(host.is_denied(@0x3) && !host.is_denied(@0x1));
        host.disallow(operator, vector[@0x1, @0x9]);
        host.undeny(operator, vector[@0x3, @0x9]);
        assert!(!host.is_allowed(@0x1) && host.is_allowed(@0x2) && !host.is_denied(@0x3));
    });
    w.end();
}

#[test]
fun an_endpoint_is_fresh_for_the_time_to_live() {
    let mut w = world::new();
    world::host!(&mut w, |_, beacon, cap, _, clock, _| {
        assert!(beacon.is_fresh(clock));
        beacon.set_ttl(cap, 10_000);
    });
    w.wait(10_000);
    world::host!(&mut w, |_, beacon, _, _, clock, _| assert!(beacon.is_fresh(clock)));
    w.wait(1);
    world::host!(&mut w, |_, beacon, _, operator, clock, _| {
        assert!(!beacon.is_fresh(clock));
        beacon.heartbeat(operator, signed::key_c(), 1, 9, clock);
        assert!(beacon.is_fresh(clock));
    });
    w.end();
}

#[test]
fun a_higher_generation_takes_an_endpoint_over() {
    let mut w = world::new();
    world::host!(&mut w, |_, beacon, _, operator, clock, _| {
        beacon.heartbeat(operator, signed::key_c(), 7, 0, clock);
        let endpoint = &beacon.endpoints()[0];
        assert!(endpoint.endpoint_generation() == 7);
        assert!(endpoint.endpoint_seen_ms() == world::start_ms());
        assert!(endpoint.endpoint_key() == signed::key_c());
    });
    w.end();
}

#[test]
fun a_suspected_endpoint_is_fresh_again_by_its_next_heartbeat() {
    let mut w = world::new();
    world::host!(&mut w, |_, beacon, _, operator, clock, _| {
        beacon.heartbeat(operator, signed::key_c(), 7, 0, clock);
        beacon.suspect(operator, signed::key_c(), 7, world::start_ms());
        assert!(!beacon.is_fresh(clock));
        assert!(beacon.endpoints()[0].endpoint_generation() == 7);
        assert!(event::events_by_type<host::EndpointChanged>().length() == 1);
        beacon.heartbeat(operator, signed::key_c(), 7, 0, clock);
        assert!(beacon.is_fresh(clock));
    });
    w.end();
}

#[test]
fun endpoints_are_configured_and_withdrawn() {
    let mut w = world::new();
    world::host!(&mut w, |_, beacon, _, operator, _, _| {
        beacon.enroll(operator, signed::key_a(), 5, 1, 0, vector[]);
        beacon.configure(operator, signed::key_a(), 6, 0, b"x");
        assert!(beacon.endpoints().length() == 2);
        beacon.withdraw(operator, signed::key_c());
        assert!(beacon.endpoints().length() == 1);
        assert!(beacon.endpoints()[0].endpoint_key() == signed::key_a());
        assert!(event::events_by_type<host::EndpointChanged>().length() == 3);
    });
    w.end();
}

#[test]
fun a_revoked_operator_can_be_replaced_and_thrown_away() {
    let mut w = world::new();
    world::host!(&mut w, |host, beacon, cap, _, clock, ctx| {
        host.revoke_operators(beacon, cap);
        assert!(host.op_generation() == 1);
        let fresh = host.new_operator(cap, 1, ctx);
        beacon.heartbeat(&fresh, signed::key_c(), 1, 0, clock);
        fresh.destroy_operator();
    });
    w.end();
}
