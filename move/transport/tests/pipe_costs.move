#[test_only]
module transport::pipe_costs;

use sui::{clock::Clock, event, sui::SUI};
use transport::{
    channel::{Self, Channel},
    host::Host,
    pipe::{Credited, Pipe},
    pipe_world::{borne_by, frames, limit, pipe_of, piped, zeros},
    signed,
    world::{Self, World}
};

const CREDIT: u64 = 5;

/// Bytes of a frame that a whole credit is for.
const FULL: u64 = 16_384;

/// As many frames of 16 KiB as said: what a credit is for.
macro fun full_frames(
    $count: u64,
    $pipe: &mut Pipe,
    $channel: &Channel<SUI>,
    $host: &Host,
    $clock: &Clock,
) {
    let mut sent = 0;
    let (pipe, channel, host, clock) = ($pipe, $channel, $host, $clock);
    let data = zeros(16_384);
    while (sent < $count) {
        pipe.send(channel, host, 0, vector[data], clock);
        sent = sent + 1;
    };
}

#[test]
fun the_server_is_credited_by_evidence_and_once() {
    let mut w = borne_by(1, 1_000_000);
    pipe_of(&mut w, signed::server());
    piped!(&mut w, |pipe, channel, host, clock, ctx| {
        full_frames!(4, pipe, channel, host, clock);
        // Nothing is vouched yet: no evidence, no credit.
        assert!(pipe.collect_credit(channel, clock, ctx).burn_for_testing() == 0);
    });
    assert!(w.claim(signed::carried()) == 100);
    w.as_server();
    piped!(&mut w, |pipe, channel, _, clock, ctx| {
        assert!(pipe.collect_credit(channel, clock, ctx).burn_for_testing() == 4 * CREDIT);
        assert!(pipe.collect_credit(channel, clock, ctx).burn_for_testing() == 0);
        let (metered, credited) = pipe.metered();
        assert!(metered == 4 * FULL && credited == metered);
        assert!(channel.credited() == 20 && channel.held() == 880);
        world::assert_conserved(channel);
    });
    w.end();
}

#[test]
fun empty_frames_earn_nothing_and_full_ones_no_more_than_vouched() {
    let mut w = world::with_channel(world::terms_with(1_048_576, 1_000_000, 1, 50));
    limit(&mut w, 0, 0, 0, 0, 0);
    pipe_of(&mut w, signed::server());
    piped!(&mut w, |pipe, channel, host, clock, _| {
        full_frames!(60, pipe, channel, host, clock);
        pipe.send(channel, host, 0, vector[], clock);
        pipe.send(channel, host, 0, vector[b""], clock);
        let (metered, _) = pipe.metered();
        assert!(metered == 60 * FULL);
    });
    // 50,000 bytes come to 152, but only 100 are left after 900; fifty requests are evidence of no byte.
    assert!(w.claim(signed::third()) == 900);
    w.as_server();
    piped!(&mut w, |pipe, channel, _, clock, ctx| {
        assert!(pipe.collect_credit(channel, clock, ctx).burn_for_testing() == 100);
        world::assert_conserved(channel);
    });
    w.as_client();
    let more = w.mint(1_000);
    world::channel!(&mut w, |channel, _, ctx| channel.top_up(more, ctx));
    w.as_server();
    piped!(&mut w, |pipe, channel, _, clock, ctx| {
        assert!(pipe.collect_credit(channel, clock, ctx).burn_for_testing() == 52);
        assert!(pipe.collect_credit(channel, clock, ctx).burn_for_testing() == 0);
        let (_, credited) = pipe.metered();
        assert!(credited == 50_000);
        world::assert_conserved(channel);
    });
    w.end();
}

#[test]
fun a_frame_is_credited_by_its_bytes() {
    let mut w = world::with_channel(world::terms_with(1_048_576, 1_000_000, 1, 16));
    pipe_of(&mut w, signed::server());
    assert!(w.claim(signed::carried()) == 100);
    w.as_server();
    piped!(&mut w, |pipe, channel, host, clock, ctx| {
        // One for each KiB: frames of a byte come to nothing.
        frames!(2, pipe, channel, host, clock);
        assert!(pipe.collect_credit(channel, clock, ctx).burn_for_testing() == 0);
        full_frames!(1, pipe, channel, host, clock);
        assert!(pipe.collect_credit(channel, clock, ctx).burn_for_testing() == 16);
        // Of the bytes vouched 49,150 are left.
        pipe.send(channel, host, 0, vector[zeros(65_536)], clock);
        assert!(pipe.collect_credit(channel, clock, ctx).burn_for_testing() == 47);
        world::assert_conserved(channel);
    });
    w.end();
}

#[test]
fun credits_are_told_by_events() {
    let mut w = borne_by(1, 1_000_000);
    pipe_of(&mut w, signed::server());
    assert!(w.claim(signed::carried()) == 100);
    w.as_server();
    piped!(&mut w, |pipe, channel, host, clock, ctx| {
        full_frames!(1, pipe, channel, host, clock);
        pipe.collect_credit(channel, clock, ctx).burn_for_testing();
    });
    assert_credited(1, 16_384, CREDIT as u128);
    w.end();
}

#[test]
fun credits_of_the_client_are_told_by_events() {
    let mut w = borne_by(2, 1_000_000);
    pipe_of(&mut w, signed::client());
    assert!(w.claim(signed::carried()) == 100);
    w.as_client();
    piped!(&mut w, |pipe, channel, host, clock, _| {
        full_frames!(2, pipe, channel, host, clock);
        pipe.charge_credit(channel, clock);
    });
    assert_credited(0, 32_768, (2 * CREDIT) as u128);
    w.end();
}

/// The transaction's only event of this kind says so.
fun assert_credited(direction: u8, bytes: u64, amount: u128) {
    let told = event::events_by_type<Credited>();
    assert!(told.length() == 1);
    let mut wanted = std::bcs::to_bytes(&signed::channel_id());
    wanted.append(vector[direction, 0]);
    wanted.append(std::bcs::to_bytes(&bytes));
    wanted.append(std::bcs::to_bytes(&amount));
    assert!(std::bcs::to_bytes(&told[0]) == wanted);
}

/// A channel whose close the client has asked for, with a pipe of `who`, frames and bytes vouched, at the last
/// millisecond in which claims count.
fun closing(bearer: u8, who: address): World {
    let mut w = borne_by(bearer, 1_000_000);
    pipe_of(&mut w, who);
    piped!(&mut w, |pipe, channel, host, clock, _| full_frames!(1, pipe, channel, host, clock));
    assert!(w.claim(signed::carried()) == 100);
    w.as_client();
    world::channel!(&mut w, |channel, clock, ctx| channel.request_close(clock, ctx));
    w.wait(world::claim_ms() - 1);
    w.tx(who);
    w
}

#[test]
fun the_server_collects_while_claims_count() {
    let mut w = closing(1, signed::server());
    piped!(&mut w, |pipe, channel, _, clock, ctx| {
        assert!(pipe.collect_credit(channel, clock, ctx).burn_for_testing() == CREDIT);
    });
    w.end();
}

#[test]
fun the_client_charges_while_claims_count() {
    let mut w = closing(2, signed::client());
    piped!(&mut w, |pipe, channel, _, clock, _| pipe.charge_credit(channel, clock));
    w.end();
}

#[test, expected_failure(abort_code = channel::EClaimWindowOver)]
fun claim_window_over_for_the_servers_credits() {
    let mut w = closing(1, signed::server());
    w.wait(1);
    w.tx(signed::server());
    piped!(&mut w, |pipe, channel, _, clock, ctx| {
        pipe.collect_credit(channel, clock, ctx).burn_for_testing();
    });
    w.end();
}

#[test, expected_failure(abort_code = channel::EClaimWindowOver)]
fun claim_window_over_for_the_clients_credits() {
    let mut w = closing(2, signed::client());
    w.wait(1);
    w.tx(signed::client());
    piped!(&mut w, |pipe, channel, _, clock, _| pipe.charge_credit(channel, clock));
    w.end();
}

#[test]
fun credits_count_toward_the_epoch_cap() {
    let mut w = borne_by(1, 112);
    pipe_of(&mut w, signed::server());
    piped!(&mut w, |pipe, channel, host, clock, _| full_frames!(4, pipe, channel, host, clock));
    assert!(w.claim(signed::carried()) == 100);
    w.as_server();
    piped!(&mut w, |pipe, channel, _, clock, ctx| {
        assert!(pipe.collect_credit(channel, clock, ctx).burn_for_testing() == 12);
    });
    w.next_epoch();
    piped!(&mut w, |pipe, channel, _, clock, ctx| {
        // Of four frames' twenty; what a part of them comes to is rounded down.
        assert!(pipe.collect_credit(channel, clock, ctx).burn_for_testing() == 7);
        world::assert_conserved(channel);
    });
    assert!(w.claim(signed::second()) == 105);
    w.end();
}

#[test]
fun a_credit_never_takes_what_is_owed() {
    let mut w = borne_by(1, 950);
    pipe_of(&mut w, signed::server());
    piped!(&mut w, |pipe, channel, host, clock, _| full_frames!(4, pipe, channel, host, clock));
    assert!(w.claim(signed::fourth()) == 950);
    w.next_epoch();
    piped!(&mut w, |pipe, channel, _, clock, ctx| {
        assert!(pipe.collect_credit(channel, clock, ctx).burn_for_testing() == 0);
        world::assert_conserved(channel);
    });
    w.end();
}

#[test]
fun the_client_is_credited_out_of_the_servers_next_payments() {
    let mut w = borne_by(2, 1_000_000);
    pipe_of(&mut w, signed::client());
    piped!(&mut w, |pipe, channel, host, clock, _| full_frames!(4, pipe, channel, host, clock));
    assert!(w.claim(signed::carried()) == 100);
    w.as_client();
    piped!(&mut w, |pipe, channel, _, clock, _| {
        pipe.charge_credit(channel, clock);
        pipe.charge_credit(channel, clock);
        let (_, credited) = pipe.metered();
        assert!(credited == 4 * FULL && channel.credited() == 0);
    });
    assert!(w.claim(signed::second()) == 150 - 4 * CREDIT);
    w.as_server();
    world::channel!(&mut w, |channel, _, ctx| {
        assert!(channel.client_credit() == 20 && channel.claimed() == 230);
        world::assert_conserved(channel);
        channel.release(ctx);
        world::assert_conserved(channel);
    });
    assert!(w.receive(signed::client()) == 750 + 20);
    w.end();
}

#[test]
fun the_client_cannot_charge_more_than_the_server_earns() {
    let mut w = world::with_channel(world::terms_with(1_048_576, 1_000_000, 2, 200));
    pipe_of(&mut w, signed::client());
    piped!(&mut w, |pipe, channel, host, clock, _| full_frames!(4, pipe, channel, host, clock));
    assert!(w.claim(signed::carried()) == 100);
    w.as_client();
    piped!(&mut w, |pipe, channel, _, clock, _| pipe.charge_credit(channel, clock));
    // 800 are due to the client, 150 is all there is to take them from.
    assert!(w.claim(signed::second()) == 0);
    assert!(w.claim(signed::third()) == 0);
    w.as_server();
    world::channel!(&mut w, |channel, _, ctx| {
        assert!(channel.client_credit() == 800 && channel.claimed() == 100);
        channel.release(ctx);
        world::assert_conserved(channel);
    });
    assert!(w.receive(signed::client()) == 900);
    w.end();
}

/// Claims, credits, top-ups and a close in one life, under a cap.
#[test]
fun a_mixed_history_conserves_money() {
    let mut w = borne_by(1, 300);
    pipe_of(&mut w, signed::server());
    let mut server = 0;
    server = server + w.claim(signed::carried());
    w.as_server();
    piped!(&mut w, |pipe, channel, host, clock, ctx| {
        full_frames!(4, pipe, channel, host, clock);
        server = server + pipe.collect_credit(channel, clock, ctx).burn_for_testing();
        world::assert_conserved(channel);
    });
    server = server + w.claim(signed::second());
    server = server + w.claim(signed::third());
    w.as_client();
    let more = w.mint(77);
    world::channel!(&mut w, |channel, clock, ctx| {
        channel.top_up(more, ctx);
        channel.request_close(clock, ctx);
        world::assert_conserved(channel);
    });
    w.next_epoch();
    server = server + w.claim(signed::fourth());
    w.wait(world::claim_ms());
    let mut epochs = 0u64;
    while (epochs < 4) {
        w.next_epoch();
        world::channel!(&mut w, |channel, clock, ctx| {
            if (channel.state() != 3) channel.finalize(clock, ctx);
            world::assert_conserved(channel);
        });
        epochs = epochs + 1;
    };
    server = server + w.receive(signed::server());
    let client = w.receive(signed::client());
    assert!(server + client == 1_077);
    world::channel!(&mut w, |channel, _, _| {
        assert!(channel.state() == 3 && channel.held() == 0 && channel.client_credit() == 0);
        assert!(channel.claimed() + channel.credited() + channel.refunded() == 1_077);
    });
    w.end();
}
