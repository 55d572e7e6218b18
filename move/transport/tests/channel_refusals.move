#[test_only]
module transport::channel_refusals;

use sui::{sui::SUI, test_scenario as ts};
use transport::{
    channel::{Self, Channel},
    channel_world::{agree, capped, close_by_client, open},
    host::{Beacon, Host},
    signed,
    world::{Self, World}
};

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
