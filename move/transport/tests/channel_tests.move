#[test_only]
module transport::channel_tests;

use sui::{event, sui::SUI, test_scenario as ts};
use transport::{channel::{Self, Channel}, host::{Beacon, Host}, signed, world::{Self, World}};

fun open(): World { world::with_channel(world::terms()) }

fun capped(cap: u64): World { world::with_channel(world::terms_with(1_048_576, cap, 0, 0)) }

fun close_by_client(w: &mut World) {
    w.as_client();
    world::channel!(w, |channel, clock, ctx| channel.request_close(clock, ctx));
}

fun close_by_stranger(w: &mut World) {
    w.as_stranger();
    world::channel!(w, |channel, clock, ctx| channel.request_close(clock, ctx));
}

fun finalize_by_stranger(w: &mut World) {
    w.as_stranger();
    world::channel!(w, |channel, clock, ctx| channel.finalize(clock, ctx));
}

// === Ways through ===

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

fun agree(w: &mut World, agreed: signed::Agreed) {
    let (total, not_after, key, signature) = agreed.agreement();
    world::channel!(w, |channel, clock, ctx| {
        channel.close_agreed(total, not_after, key, signature, clock, ctx);
        world::assert_conserved(channel);
    });
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

// === Refusals, each by the name of its error ===

#[test, expected_failure(abort_code = channel::EWrongVersion)]
fun wrong_version() {
    let mut w = open();
    world::channel!(&mut w, |channel, clock, ctx| {
        channel.set_version_for_testing(2);
        channel.request_close(clock, ctx);
    });
    w.end();
}

#[test, expected_failure(abort_code = channel::EWrongVersion)]
fun wrong_version_for_a_claim() {
    let mut w = open();
    world::channel!(&mut w, |channel, _, _| channel.set_version_for_testing(0));
    w.claim(signed::first());
    w.end();
}

fun open_as(w: &mut World, revision: u64, key: vector<u8>) {
    let deposit = w.mint(100);
    let (s, clock) = w.parts();
    let host = s.take_shared<Host>();
    let beacon = s.take_shared<Beacon>();
    channel::open(&host, &beacon, 1, revision, deposit, key, clock, s.ctx()).share();
    ts::return_shared(host);
    ts::return_shared(beacon);
}

#[test, expected_failure(abort_code = channel::ETermsChanged)]
fun terms_changed() {
    let mut w = world::new();
    world::host!(&mut w, |host, _, cap, _, _, _| host.set_terms(cap, 1, world::terms(), vector[]));
    w.as_client();
    open_as(&mut w, 1, signed::key_a());
    w.end();
}

#[test, expected_failure(abort_code = channel::EDepositTooSmall)]
fun deposit_too_small() {
    let mut w = world::new();
    w.open_channel(99);
    w.end();
}

#[test, expected_failure(abort_code = channel::EBadKey)]
fun bad_key() {
    let mut w = world::new();
    open_as(&mut w, 1, b"short");
    w.end();
}

#[test, expected_failure(abort_code = channel::EBadKey)]
fun bad_key_of_a_rotation() {
    let mut w = open();
    world::channel!(&mut w, |channel, clock, ctx| channel.rotate_lane(0, b"short", clock, ctx));
    w.end();
}

#[test, expected_failure(abort_code = channel::EBadKey)]
fun bad_key_of_the_other_party() {
    let mut w = open();
    world::channel!(&mut w, |channel, clock, ctx| {
        channel.close_agreed(0, 2_000_000, b"short", vector[], clock, ctx);
    });
    w.end();
}

#[test, expected_failure(abort_code = channel::ESelfChannel)]
fun self_channel() {
    let mut w = world::new();
    w.as_server();
    w.open_channel(100);
    w.end();
}

#[test, expected_failure(abort_code = channel::ENotClient)]
fun not_client() {
    let mut w = open();
    w.as_server();
    world::channel!(&mut w, |channel, _, ctx| channel.add_lane(signed::key_b(), ctx));
    w.end();
}

#[test, expected_failure(abort_code = channel::ENotClient)]
fun not_client_to_rotate_a_lane() {
    let mut w = open();
    w.as_stranger();
    world::channel!(
        &mut w,
        |channel, clock, ctx| channel.rotate_lane(0, signed::key_b(), clock, ctx),
    );
    w.end();
}

#[test, expected_failure(abort_code = channel::ENotServer)]
fun not_server() {
    let mut w = open();
    w.as_stranger();
    let (s, clock) = w.parts();
    let mut channel = s.take_shared<Channel<SUI>>();
    let (voucher, signature) = signed::first().voucher();
    let coin = channel.claim(voucher, signature, vector[], clock, s.ctx());
    ts::return_shared(channel);
    coin.burn_for_testing();
    w.end();
}

#[test, expected_failure(abort_code = channel::ENotServer)]
fun not_server_to_release() {
    let mut w = open();
    world::channel!(&mut w, |channel, _, ctx| channel.release(ctx));
    w.end();
}

#[test, expected_failure(abort_code = channel::ENotParty)]
fun not_party() {
    let mut w = open();
    w.as_stranger();
    agree(&mut w, signed::agreed_by_server());
    w.end();
}

#[test, expected_failure(abort_code = channel::EChannelClosed)]
fun channel_closed() {
    let mut w = open();
    w.as_server();
    world::channel!(&mut w, |channel, _, ctx| channel.release(ctx));
    w.claim(signed::first());
    w.end();
}

#[test, expected_failure(abort_code = channel::EChannelClosed)]
fun channel_closed_to_a_second_close() {
    let mut w = open();
    close_by_client(&mut w);
    close_by_client(&mut w);
    w.end();
}

#[test, expected_failure(abort_code = channel::EChannelClosed)]
fun channel_closed_to_a_second_release() {
    let mut w = open();
    w.as_server();
    world::channel!(&mut w, |channel, _, ctx| {
        channel.release(ctx);
        channel.release(ctx);
    });
    w.end();
}

#[test, expected_failure(abort_code = channel::EChannelClosed)]
fun channel_closed_to_a_second_agreement() {
    let mut w = open();
    agree(&mut w, signed::agreed_by_server());
    w.as_client();
    agree(&mut w, signed::agreed_by_server());
    w.end();
}

#[test, expected_failure(abort_code = channel::EChannelClosed)]
fun channel_closed_to_a_top_up() {
    let mut w = open();
    close_by_client(&mut w);
    w.as_client();
    let more = w.mint(1);
    world::channel!(&mut w, |channel, _, ctx| channel.top_up(more, ctx));
    w.end();
}

#[test, expected_failure(abort_code = channel::EChannelClosed)]
fun channel_closed_to_payments_while_draining() {
    let mut w = capped(400);
    w.claim(signed::third());
    w.as_server();
    world::channel!(&mut w, |channel, _, ctx| {
        channel.release(ctx);
        channel.pay_owed(ctx);
    });
    w.end();
}

#[test, expected_failure(abort_code = channel::EClaimWindowOver)]
fun claim_window_over() {
    let mut w = open();
    close_by_client(&mut w);
    w.wait(world::claim_ms());
    w.claim(signed::first());
    w.end();
}

#[test, expected_failure(abort_code = channel::ENoLane)]
fun no_lane() {
    let mut w = open();
    w.claim(signed::laneless());
    w.end();
}

#[test, expected_failure(abort_code = channel::ENoLane)]
fun no_lane_to_rotate() {
    let mut w = open();
    world::channel!(
        &mut w,
        |channel, clock, ctx| channel.rotate_lane(1, signed::key_b(), clock, ctx),
    );
    w.end();
}

#[test, expected_failure(abort_code = channel::ENoLane)]
fun no_lane_to_read() {
    let mut w = open();
    world::channel!(&mut w, |channel, _, _| {
        channel.lane_progress(1);
    });
    w.end();
}

#[test, expected_failure(abort_code = channel::ETooManyLanes)]
fun too_many_lanes() {
    let mut w = open();
    world::channel!(&mut w, |channel, _, ctx| {
        let mut lanes = 0u64;
        while (lanes < 16) {
            channel.add_lane(signed::key_b(), ctx);
            lanes = lanes + 1;
        };
    });
    w.end();
}

#[test, expected_failure(abort_code = channel::ERotationPending)]
fun rotation_pending() {
    let mut w = open();
    world::channel!(
        &mut w,
        |channel, clock, ctx| channel.rotate_lane(0, signed::key_b(), clock, ctx),
    );
    w.wait(world::claim_ms() - 1);
    w.as_client();
    world::channel!(
        &mut w,
        |channel, clock, ctx| channel.rotate_lane(0, signed::key_c(), clock, ctx),
    );
    w.end();
}

#[test, expected_failure(abort_code = channel::EForeignVoucher)]
fun foreign_voucher() {
    let mut w = open();
    w.claim(signed::foreign());
    w.end();
}

#[test, expected_failure(abort_code = channel::EVoucherExpired)]
fun voucher_expired() {
    let mut w = open();
    w.wait(501);
    w.claim(signed::short_lived());
    w.end();
}

#[test, expected_failure(abort_code = channel::EStaleVoucher)]
fun stale_voucher() {
    let mut w = open();
    w.claim(signed::first());
    w.claim(signed::first());
    w.end();
}

#[test, expected_failure(abort_code = channel::EShrunkVoucher)]
fun an_older_voucher_after_a_newer_one() {
    let mut w = open();
    w.claim(signed::second());
    w.claim(signed::first());
    w.end();
}

#[test, expected_failure(abort_code = channel::EShrunkVoucher)]
fun a_voucher_of_the_same_sequence_for_less() {
    let mut w = open();
    w.claim(signed::first());
    w.claim(signed::other_sum());
    w.end();
}

#[test, expected_failure(abort_code = channel::EShrunkVoucher)]
fun shrunk_voucher() {
    let mut w = open();
    w.claim(signed::first());
    w.claim(signed::shrunk_amount());
    w.end();
}

#[test]
fun counts_never_shrink() {
    let mut w = open();
    w.claim(signed::first());
    assert!(w.claim(signed::shrunk_requests()) == 0);
    w.as_client();
    world::channel!(&mut w, |channel, _, _| {
        let (requests, bytes) = channel.usage();
        assert!(requests == 10 && bytes == 10);
    });
    w.end();
}

/// A client has the lane's key, and may sign and claim what it likes under any sequence.
#[test]
fun what_a_client_claims_for_less_voids_nothing_that_the_server_holds() {
    let mut w = open();
    w.as_client();
    world::channel!(&mut w, |channel, clock, ctx| {
        let (voucher, signature) = signed::shrunk_amount().voucher();
        channel.claim_for(voucher, signature, vector[], clock, ctx);
        let (sequence, amount) = channel.lane_progress(0);
        assert!(sequence == 2 && amount == 99);
        // Its counts are no evidence of anything.
        let (requests, bytes) = channel.usage();
        assert!(requests == 0 && bytes == 0);
    });
    assert!(w.receive(signed::server()) == 99);
    assert!(w.claim(signed::first()) == 1);
    w.as_client();
    world::channel!(&mut w, |channel, _, _| {
        let (requests, _) = channel.usage();
        assert!(requests == 10);
        world::assert_conserved(channel);
    });
    w.end();
}

/// Else one MIST more than the server holds would take its transport credits from it.
#[test]
fun what_a_client_claims_for_more_voids_no_evidence() {
    let mut w = open();
    w.as_client();
    world::channel!(&mut w, |channel, clock, ctx| {
        let (voucher, signature) = signed::second().voucher();
        channel.claim_for(voucher, signature, vector[], clock, ctx);
    });
    assert!(w.receive(signed::server()) == 250);
    assert!(w.claim(signed::first()) == 0);
    w.as_client();
    world::channel!(&mut w, |channel, _, _| {
        let (sequence, amount) = channel.lane_progress(0);
        assert!(sequence == 2 && amount == 250 && channel.owed() == 0);
        let (requests, bytes) = channel.usage();
        assert!(requests == 10 && bytes == 0);
        world::assert_conserved(channel);
    });
    w.end();
}

#[test, expected_failure(abort_code = channel::EShrunkVoucher)]
fun a_voucher_for_less_with_more_counts_that_is_not_the_servers_claim() {
    let mut w = open();
    w.as_client();
    world::channel!(&mut w, |channel, clock, ctx| {
        let (voucher, signature) = signed::second().voucher();
        channel.claim_for(voucher, signature, vector[], clock, ctx);
        let (voucher, signature) = signed::first().voucher();
        channel.claim_for(voucher, signature, vector[], clock, ctx);
    });
    w.end();
}

#[test, expected_failure(abort_code = channel::EStaleVoucher)]
fun a_claim_of_counts_alone_that_is_not_the_servers() {
    let mut w = open();
    w.claim(signed::first());
    w.as_client();
    world::channel!(&mut w, |channel, clock, ctx| {
        let (voucher, signature) = signed::shrunk_requests().voucher();
        channel.claim_for(voucher, signature, vector[], clock, ctx);
    });
    w.end();
}

#[test, expected_failure(abort_code = channel::EStaleVoucher)]
fun a_newer_voucher_for_nothing_more() {
    let mut w = open();
    w.claim(signed::second());
    w.claim(signed::shrunk_bytes());
    w.end();
}

#[test, expected_failure(abort_code = channel::EOverPrice)]
fun over_price() {
    let mut w = open();
    w.claim(signed::overpriced());
    w.end();
}

#[test, expected_failure(abort_code = channel::EOverPrice)]
fun over_price_by_rounding_up() {
    let mut w = world::with_channel(world::terms_with(3, 1_000, 0, 0));
    w.claim(signed::rounded_up());
    w.end();
}

#[test, expected_failure(abort_code = channel::EBadHashLock)]
fun bad_hash_lock() {
    let mut w = open();
    w.claim_with(signed::badly_locked(), signed::preimage());
    w.end();
}

#[test, expected_failure(abort_code = channel::EWrongPreimage)]
fun wrong_preimage() {
    let mut w = open();
    w.claim_with(signed::locked(), signed::key_a());
    w.end();
}

#[test, expected_failure(abort_code = channel::EWrongPreimage)]
fun wrong_preimage_when_it_is_missing() {
    let mut w = open();
    w.claim(signed::locked());
    w.end();
}

#[test, expected_failure(abort_code = channel::EBadSignature)]
fun bad_signature() {
    let mut w = open();
    w.claim(signed::forged());
    w.end();
}

#[test, expected_failure(abort_code = channel::EBadSignature)]
fun bad_signature_when_the_amount_was_changed() {
    let mut w = open();
    let (_, signature) = signed::first().voucher();
    let forever = 18_446_744_073_709_551_615;
    let voucher = channel::new_voucher(
        signed::channel_id(),
        0,
        1,
        99,
        10,
        0,
        option::none(),
        forever,
    );
    let (s, clock) = w.parts();
    let mut channel = s.take_shared<Channel<SUI>>();
    channel.claim_for(voucher, signature, vector[], clock, s.ctx());
    ts::return_shared(channel);
    w.end();
}

#[test, expected_failure(abort_code = channel::EBadSignature)]
fun bad_signature_of_an_old_key_after_its_grace() {
    let mut w = open();
    world::channel!(
        &mut w,
        |channel, clock, ctx| channel.rotate_lane(0, signed::key_c(), clock, ctx),
    );
    w.wait(world::claim_ms());
    w.claim(signed::first());
    w.end();
}

#[test, expected_failure(abort_code = channel::EBadSignature)]
fun bad_signature_under_an_agreement() {
    let mut w = open();
    let (total, not_after, key, _) = signed::agreed_by_server().agreement();
    let (_, _, _, signature) = signed::agreed_high().agreement();
    world::channel!(&mut w, |channel, clock, ctx| {
        channel.close_agreed(total, not_after, key, signature, clock, ctx);
    });
    w.end();
}

#[test, expected_failure(abort_code = channel::ENotClosing)]
fun not_closing() {
    let mut w = open();
    finalize_by_stranger(&mut w);
    w.end();
}

#[test, expected_failure(abort_code = channel::ENotClosing)]
fun not_closing_any_more() {
    let mut w = open();
    close_by_client(&mut w);
    w.wait(world::claim_ms());
    finalize_by_stranger(&mut w);
    finalize_by_stranger(&mut w);
    w.end();
}

#[test, expected_failure(abort_code = channel::ETooEarly)]
fun too_early() {
    let mut w = open();
    close_by_client(&mut w);
    w.wait(world::claim_ms() - 1);
    finalize_by_stranger(&mut w);
    w.end();
}

#[test, expected_failure(abort_code = channel::ETooEarly)]
fun too_early_for_the_server_to_ask_for_the_close() {
    let mut w = open();
    w.as_server();
    world::channel!(&mut w, |channel, clock, ctx| channel.request_close(clock, ctx));
    w.end();
}

#[test, expected_failure(abort_code = channel::ETooEarly)]
fun too_early_for_a_stranger_to_ask_for_the_close() {
    let mut w = open();
    w.wait(1_000);
    w.claim(signed::first());
    w.wait(world::idle_ms() - 1);
    close_by_stranger(&mut w);
    w.end();
}

#[test, expected_failure(abort_code = channel::ETooEarly)]
fun too_early_to_finalize_an_idle_channel() {
    let mut w = open();
    w.wait(world::idle_ms());
    close_by_client(&mut w);
    w.wait(world::claim_ms() - 1);
    finalize_by_stranger(&mut w);
    w.end();
}

#[test, expected_failure(abort_code = channel::EAgreementExpired)]
fun agreement_expired() {
    let mut w = open();
    w.wait(501);
    agree(&mut w, signed::agreed_briefly());
    w.end();
}

#[test, expected_failure(abort_code = channel::EWrongSigner)]
fun wrong_signer() {
    let mut w = open();
    agree(&mut w, signed::agreed_by_stranger());
    w.end();
}

#[test, expected_failure(abort_code = channel::EWrongSigner)]
fun wrong_signer_when_one_signs_for_itself() {
    let mut w = open();
    agree(&mut w, signed::agreed_by_client());
    w.end();
}

#[test, expected_failure(abort_code = channel::EAgreedTooLow)]
fun agreed_too_low() {
    let mut w = open();
    w.claim(signed::first());
    w.as_client();
    agree(&mut w, signed::agreed_low());
    w.end();
}

#[test, expected_failure(abort_code = channel::EAgreedTooHigh)]
fun agreed_too_high() {
    let mut w = open();
    agree(&mut w, signed::agreed_high());
    w.end();
}

#[test, expected_failure(abort_code = channel::ENotClosed)]
fun not_closed() {
    let mut w = open();
    let (s, _) = w.parts();
    let channel = s.take_shared<Channel<SUI>>();
    channel.destroy(s.ctx());
    w.end();
}

#[test, expected_failure(abort_code = channel::ENotClient)]
fun not_client_to_destroy() {
    let mut w = open();
    w.as_server();
    world::channel!(&mut w, |channel, _, ctx| channel.release(ctx));
    w.as_server();
    let (s, _) = w.parts();
    let channel = s.take_shared<Channel<SUI>>();
    channel.destroy(s.ctx());
    w.end();
}

#[test]
fun the_client_adds_any_sum_and_others_the_least_deposit() {
    let mut w = open();
    w.as_client();
    let little = w.mint(1);
    world::channel!(&mut w, |channel, _, ctx| channel.top_up(little, ctx));
    w.as_stranger();
    let least = w.mint(100);
    world::channel!(&mut w, |channel, _, ctx| {
        channel.top_up(least, ctx);
        assert!(channel.deposited() == 1_101);
        world::assert_conserved(channel);
    });
    w.end();
}

#[test, expected_failure(abort_code = channel::EDepositTooSmall)]
fun deposit_too_small_of_a_stranger_who_adds_to_it() {
    let mut w = open();
    w.as_stranger();
    let dust = w.mint(99);
    world::channel!(&mut w, |channel, _, ctx| channel.top_up(dust, ctx));
    w.end();
}

#[test, expected_failure(abort_code = channel::EDepositTooSmall)]
fun deposit_too_small_when_nothing_is_added() {
    let mut w = open();
    w.as_client();
    let nothing = w.mint(0);
    world::channel!(&mut w, |channel, _, ctx| channel.top_up(nothing, ctx));
    w.end();
}

// === Keys, versions, events ===

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
