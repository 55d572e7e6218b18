#[test_only]
module transport::channel_tests;

use sui::{event, sui::SUI, test_scenario as ts};
use transport::{
    channel::{Self, Channel},
    channel_world::{agree, capped, close_by_client, close_by_stranger, finalize_by_stranger, open},
    host::{Beacon, Host},
    signed,
    world
};

#[test]
fun a_channel_is_what_the_signatures_expect() {
    let mut w = open();
    world::channel!(&mut w, |channel, _, _| {
        assert!(object::id(channel) == signed::channel_id());
        assert!(channel.client() == signed::client() && channel.server() == signed::server());
        assert!(channel.deposited() == 1_000 && channel.held() == 1_000);
        assert!(channel.state() == 0 && channel.service() == 1 && channel.pass().is_none());
        assert!(channel.lane_count() == 1 && channel.terms().revision() == 1);
    });
    w.end();
}

#[test]
fun vouchers_are_cumulative() {
    let mut w = open();
    assert!(w.claim(signed::first()) == 100);
    assert!(w.claim(signed::second()) == 150);
    assert!(event::events_by_type<channel::Claimed>().length() == 1);
    w.as_client();
    world::channel!(&mut w, |channel, _, _| {
        assert!(channel.claimed() == 250 && channel.held() == 750 && channel.owed() == 0);
        let (requests, bytes) = channel.usage();
        assert!(requests == 20 && bytes == 100);
        let (sequence, amount) = channel.lane_progress(0);
        assert!(sequence == 2 && amount == 250);
        world::assert_conserved(channel);
    });
    w.end();
}

#[test]
fun the_newest_voucher_alone_is_enough() {
    let mut w = open();
    assert!(w.claim(signed::third()) == 900);
    w.end();
}

#[test]
fun anyone_may_claim_for_the_server() {
    let mut w = open();
    w.as_stranger();
    world::channel!(&mut w, |channel, clock, ctx| {
        let (voucher, signature) = signed::first().voucher();
        channel.claim_for(voucher, signature, vector[], clock, ctx);
    });
    assert!(w.receive(signed::server()) == 100);
    assert!(w.receive(world::stranger()) == 0);
    w.end();
}

#[test]
fun a_claim_never_pays_more_than_the_deposit() {
    let mut w = open();
    assert!(w.claim(signed::fourth()) == 1_000);
    w.as_client();
    world::channel!(&mut w, |channel, _, _| {
        assert!(channel.held() == 0 && channel.owed() == 4_000);
        world::assert_conserved(channel);
    });
    w.end();
}

#[test]
fun a_top_up_pays_what_is_owed() {
    let mut w = open();
    assert!(w.claim(signed::fourth()) == 1_000);
    w.as_stranger();
    let more = w.mint(500);
    world::channel!(&mut w, |channel, _, ctx| {
        channel.top_up(more, ctx);
        channel.pay_owed(ctx);
        assert!(
            channel.deposited() == 1_500 && channel.claimed() == 1_500 && channel.owed() == 3_500,
        );
        world::assert_conserved(channel);
    });
    assert!(w.receive(signed::server()) == 500);
    w.end();
}

#[test]
fun the_epoch_cap_spreads_payments() {
    let mut w = capped(400);
    assert!(w.claim(signed::third()) == 400);
    w.as_stranger();
    world::channel!(&mut w, |channel, _, ctx| {
        assert!(channel.owed() == 500);
        channel.pay_owed(ctx);
        assert!(channel.claimed() == 400);
    });
    w.next_epoch();
    world::channel!(&mut w, |channel, _, ctx| channel.pay_owed(ctx));
    w.next_epoch();
    world::channel!(&mut w, |channel, _, ctx| {
        channel.pay_owed(ctx);
        assert!(channel.claimed() == 900 && channel.owed() == 0);
        world::assert_conserved(channel);
    });
    assert!(w.receive(signed::server()) == 500);
    w.end();
}

#[test]
fun a_price_is_rounded_down_over_the_whole_lane() {
    let mut w = world::with_channel(world::terms_with(3, 1_000, 0, 0));
    assert!(w.claim(signed::rounded_down()) == 2);
    w.end();
}

#[test]
fun a_hash_locked_voucher_pays_with_its_preimage_and_publishes_it() {
    let mut w = open();
    assert!(w.claim_with(signed::locked(), signed::preimage()) == 100);
    assert!(event::events_by_type<channel::Claimed>().length() == 1);
    w.end();
}

#[test]
fun a_short_lived_voucher_counts_until_its_last_millisecond() {
    let mut w = open();
    w.wait(500);
    assert!(w.claim(signed::short_lived()) == 100);
    w.end();
}

#[test]
fun lanes_have_their_own_keys_and_sequences() {
    let mut w = open();
    world::channel!(&mut w, |channel, _, ctx| channel.add_lane(signed::key_b(), ctx));
    assert!(w.claim(signed::second()) == 250);
    assert!(w.claim(signed::lane_one()) == 300);
    w.as_client();
    world::channel!(&mut w, |channel, _, _| {
        assert!(channel.lane_count() == 2 && channel.claimed() == 550);
        world::assert_conserved(channel);
    });
    w.end();
}

#[test]
fun what_is_owed_may_be_more_than_64_bits() {
    let mut w = open();
    world::channel!(&mut w, |channel, _, ctx| channel.add_lane(signed::key_b(), ctx));
    assert!(w.claim(signed::huge()) == 1_000);
    assert!(w.claim(signed::huge_lane_one()) == 0);
    w.as_client();
    world::channel!(&mut w, |channel, _, _| {
        assert!(channel.owed() == 2 * 18_446_744_073_709_551_615 - 1_000);
        world::assert_conserved(channel);
    });
    w.end();
}

#[test]
fun a_rotated_key_signs_and_the_old_one_is_honoured_for_a_while() {
    let mut w = open();
    world::channel!(
        &mut w,
        |channel, clock, ctx| channel.rotate_lane(0, signed::key_c(), clock, ctx),
    );
    w.wait(world::claim_ms() - 1);
    assert!(w.claim(signed::first()) == 100);
    assert!(w.claim(signed::rotated()) == 150);
    w.wait(1);
    w.as_client();
    world::channel!(
        &mut w,
        |channel, clock, ctx| channel.rotate_lane(0, signed::key_b(), clock, ctx),
    );
    w.end();
}

#[test]
fun claims_count_while_closing_and_the_rest_goes_back() {
    let mut w = open();
    close_by_client(&mut w);
    w.wait(world::claim_ms() - 1);
    assert!(w.claim(signed::second()) == 250);
    w.wait(1);
    finalize_by_stranger(&mut w);
    assert!(w.receive(signed::client()) == 750);
    w.as_client();
    world::channel!(&mut w, |channel, _, _| {
        assert!(channel.state() == 3 && channel.refunded() == 750 && channel.held() == 0);
        world::assert_conserved(channel);
    });
    w.end();
}

#[test]
fun a_close_drains_by_the_epoch_cap() {
    let mut w = capped(400);
    assert!(w.claim(signed::third()) == 400);
    close_by_client(&mut w);
    w.wait(world::claim_ms());
    finalize_by_stranger(&mut w);
    // The client has at once what nobody claims; the server's part stays under the cap.
    assert!(w.receive(signed::client()) == 100);
    world::channel!(&mut w, |channel, _, _| assert!(channel.state() == 2 && channel.held() == 500));
    w.next_epoch();
    finalize_by_stranger(&mut w);
    w.as_client();
    world::channel!(&mut w, |channel, _, _| assert!(channel.state() == 2 && channel.held() == 100));
    w.next_epoch();
    finalize_by_stranger(&mut w);
    assert!(w.receive(signed::server()) == 500);
    assert!(w.receive(signed::client()) == 0);
    world::channel!(&mut w, |channel, _, _| {
        assert!(channel.state() == 3 && channel.claimed() == 900 && channel.refunded() == 100);
        world::assert_conserved(channel);
    });
    w.end();
}

#[test]
fun of_an_idle_channel_anyone_may_ask_for_the_close_and_claims_still_count() {
    let mut w = open();
    w.wait(world::idle_ms() - 1);
    assert!(w.claim(signed::first()) == 100);
    w.wait(world::idle_ms());
    close_by_stranger(&mut w);
    w.as_client();
    world::channel!(&mut w, |channel, _, _| assert!(channel.state() == 1 && channel.held() == 900));
    // What the client vouched for off chain in the meantime is paid.
    w.wait(world::claim_ms() - 1);
    assert!(w.claim(signed::second()) == 150);
    w.wait(1);
    finalize_by_stranger(&mut w);
    assert!(w.receive(signed::client()) == 750);
    world::channel!(&mut w, |channel, _, _| {
        assert!(channel.state() == 3);
        world::assert_conserved(channel);
    });
    w.end();
}

#[test]
fun an_idle_channel_drains_by_the_epoch_cap_too() {
    let mut w = capped(400);
    w.wait(world::idle_ms());
    close_by_stranger(&mut w);
    assert!(w.claim(signed::third()) == 400);
    w.wait(world::claim_ms());
    finalize_by_stranger(&mut w);
    assert!(w.receive(signed::client()) == 100);
    world::channel!(&mut w, |channel, _, _| assert!(channel.state() == 2 && channel.held() == 500));
    w.end();
}

#[test]
fun the_server_can_release_at_once() {
    let mut w = open();
    assert!(w.claim(signed::first()) == 100);
    w.as_server();
    world::channel!(&mut w, |channel, _, ctx| channel.release(ctx));
    assert!(w.receive(signed::client()) == 900);
    w.end();
}

#[test]
fun the_server_can_release_a_closing_channel() {
    let mut w = open();
    close_by_client(&mut w);
    w.as_server();
    world::channel!(&mut w, |channel, _, ctx| channel.release(ctx));
    assert!(w.receive(signed::client()) == 1_000);
    w.end();
}

#[test]
fun both_close_at_once_by_the_servers_signature() {
    let mut w = open();
    assert!(w.claim(signed::first()) == 100);
    w.as_client();
    agree(&mut w, signed::agreed_by_server());
    assert!(w.receive(signed::server()) == 300);
    assert!(w.receive(signed::client()) == 600);
    w.end();
}

#[test]
fun both_close_at_once_by_the_clients_signature_whatever_is_owed() {
    let mut w = capped(150);
    assert!(w.claim(signed::third()) == 150);
    w.as_server();
    agree(&mut w, signed::agreed_by_client());
    assert!(w.receive(signed::server()) == 250);
    assert!(w.receive(signed::client()) == 600);
    world::channel!(&mut w, |channel, _, _| assert!(channel.state() == 3 && channel.owed() == 0));
    w.end();
}

#[test]
fun a_closed_channel_can_be_deleted_by_its_client() {
    let mut w = open();
    w.as_server();
    world::channel!(&mut w, |channel, _, ctx| channel.release(ctx));
    w.as_client();
    let (s, _) = w.parts();
    let channel = s.take_shared<Channel<SUI>>();
    channel.destroy(s.ctx());
    w.as_client();
    assert!(!ts::has_most_recent_shared<Channel<SUI>>());
    w.end();
}

#[test]
fun open_channels_keep_their_terms_and_their_payee() {
    let mut w = open();
    world::host!(&mut w, |host, _, cap, _, _, _| {
        host.set_terms(cap, 1, world::terms_with(0, 1, 0, 0), vector[]);
        host.set_owner(cap, world::stranger());
        host.remove_service(cap, 1);
    });
    w.as_stranger();
    world::channel!(&mut w, |channel, clock, ctx| {
        let (voucher, signature) = signed::second().voucher();
        channel.claim_for(voucher, signature, vector[], clock, ctx);
    });
    assert!(w.receive(signed::server()) == 250);
    w.end();
}

#[test]
fun the_signed_bytes_are_the_documented_ones() {
    let (voucher, _) = signed::locked().voucher();
    let mut expected = b"\x0edtp.voucher.v1";
    expected.append(std::bcs::to_bytes(&signed::channel_id()));
    expected.append(x"00");
    expected.append(x"0100000000000000");
    expected.append(x"6400000000000000");
    expected.append(x"0a00000000000000");
    expected.append(x"0000000000000000");
    expected.append(x"0120");
    expected.append(std::hash::sha2_256(signed::preimage()));
    expected.append(x"ffffffffffffffff");
    assert!(voucher.voucher_bytes() == expected);
}

/// y is 2: no point of the curve has it.
const OFF_CURVE: vector<u8> = x"0200000000000000000000000000000000000000000000000000000000000000";

#[test]
fun a_lane_whose_key_is_no_point_pays_nobody_and_keeps_nobodys_money() {
    let mut w = open();
    world::channel!(&mut w, |channel, _, ctx| channel.add_lane(OFF_CURVE, ctx));
    w.as_server();
    assert!(w.claim(signed::first()) == 100);
    close_by_client(&mut w);
    w.wait(world::claim_ms());
    w.as_stranger();
    world::channel!(&mut w, |channel, clock, ctx| {
        channel.finalize(clock, ctx);
        assert!(channel.refunded() == 900 && channel.held() == 0);
    });
    w.end();
}

#[test, expected_failure(abort_code = channel::EBadSignature)]
fun bad_signature_of_a_key_that_is_no_point() {
    let mut w = open();
    world::channel!(&mut w, |channel, clock, ctx| {
        channel.rotate_lane(0, OFF_CURVE, clock, ctx);
    });
    w.wait(world::claim_ms());
    w.as_server();
    w.claim(signed::first());
    w.end();
}

const IDENTITY: vector<u8> = x"0100000000000000000000000000000000000000000000000000000000000000";

#[test, expected_failure(abort_code = channel::EWeakKey)]
fun weak_key() {
    let mut w = open();
    world::channel!(&mut w, |channel, _, ctx| channel.add_lane(IDENTITY, ctx));
    w.end();
}

#[test, expected_failure(abort_code = channel::EWeakKey)]
fun weak_key_of_a_rotation() {
    let mut w = open();
    world::channel!(&mut w, |channel, clock, ctx| channel.rotate_lane(0, IDENTITY, clock, ctx));
    w.end();
}

#[test, expected_failure(abort_code = channel::EWeakKey)]
fun weak_key_of_the_other_party() {
    let mut w = open();
    world::channel!(&mut w, |channel, clock, ctx| {
        channel.close_agreed(0, 2_000_000, IDENTITY, vector[], clock, ctx);
    });
    w.end();
}

#[test, expected_failure(abort_code = channel::EWeakKey)]
fun weak_key_of_the_first_lane() {
    let mut w = world::new();
    let deposit = w.mint(1_000);
    let (s, clock) = w.parts();
    let host = s.take_shared<Host>();
    let beacon = s.take_shared<Beacon>();
    channel::open(&host, &beacon, 1, 1, deposit, IDENTITY, clock, s.ctx()).share();
    ts::return_shared(host);
    ts::return_shared(beacon);
    w.end();
}

#[test]
fun an_old_key_is_honoured_through_a_close_that_was_asked_for_in_its_time() {
    let mut w = open();
    world::channel!(
        &mut w,
        |channel, clock, ctx| channel.rotate_lane(0, signed::key_c(), clock, ctx),
    );
    // The last ms of the old key: a close that begins here leaves the server its whole time.
    w.wait(world::claim_ms() - 1);
    close_by_client(&mut w);
    w.wait(world::claim_ms() - 1);
    assert!(w.claim(signed::first()) == 100);
    assert!(w.claim(signed::rotated()) == 150);
    w.wait(1);
    finalize_by_stranger(&mut w);
    assert!(w.receive(signed::client()) == 750);
    world::channel!(&mut w, |channel, _, _| world::assert_conserved(channel));
    w.end();
}

#[test, expected_failure(abort_code = channel::EBadSignature)]
fun bad_signature_of_an_old_key_in_a_close_after_its_grace() {
    let mut w = open();
    world::channel!(
        &mut w,
        |channel, clock, ctx| channel.rotate_lane(0, signed::key_c(), clock, ctx),
    );
    w.wait(world::claim_ms());
    close_by_client(&mut w);
    w.claim(signed::first());
    w.end();
}

#[test]
fun what_is_paid_of_what_is_owed_is_told() {
    let mut w = capped(100);
    assert!(w.claim(signed::second()) == 100);
    w.next_epoch();
    world::channel!(&mut w, |channel, _, ctx| channel.pay_owed(ctx));
    assert!(event::events_by_type<channel::OwedPaid>().length() == 1);
    assert!(w.receive(signed::server()) == 100);
    w.end();
}

#[test]
fun a_server_migrates_a_channel_of_an_older_version() {
    let mut w = open();
    w.as_server();
    world::channel!(&mut w, |channel, _, ctx| {
        channel.set_version_for_testing(0);
        channel.migrate(ctx);
    });
    assert!(event::events_by_type<channel::ChannelMigrated>().length() == 1);
    assert!(w.claim(signed::first()) == 100);
    w.end();
}

#[test, expected_failure(abort_code = channel::EUpToDate)]
fun up_to_date() {
    let mut w = open();
    w.as_server();
    world::channel!(&mut w, |channel, _, ctx| channel.migrate(ctx));
    w.end();
}

#[test, expected_failure(abort_code = channel::ENotServer)]
fun not_server_to_migrate() {
    let mut w = open();
    world::channel!(&mut w, |channel, _, ctx| {
        channel.set_version_for_testing(0);
        channel.migrate(ctx);
    });
    w.end();
}
