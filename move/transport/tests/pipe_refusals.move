#[test_only]
module transport::pipe_refusals;

use sui::{clock::Clock, sui::SUI, test_scenario as ts};
use transport::{
    channel::{Self, Channel},
    host::{Self, Host},
    pipe::{Self, Pipe},
    pipe_world::{borne_by, frames, limit, open, pipe_of, piped, post, zeros},
    signed,
    world::{Self, World}
};

#[test, expected_failure(abort_code = pipe::EForeignChannel)]
fun foreign_channel() {
    let mut w = open();
    pipe_of(&mut w, signed::client());
    w.open_channel(100);
    w.as_client();
    let (s, clock) = w.parts();
    let pipe = s.take_from_sender<Pipe>();
    let first = s.take_shared<Channel<SUI>>();
    let second = s.take_shared<Channel<SUI>>();
    let host = s.take_shared<Host>();
    let (right, wrong) = if (pipe.channel() == object::id(&first)) (first, second) else (
        second,
        first,
    );
    let mut pipe = pipe;
    pipe.send(&right, &host, 0, vector[b"x"], clock);
    pipe.send(&wrong, &host, 0, vector[b"x"], clock);
    s.return_to_sender(pipe);
    ts::return_shared(right);
    ts::return_shared(wrong);
    ts::return_shared(host);
    w.end();
}

/// Open a second channel and give the sender's pipe of the first to it.
macro fun misused($world: &mut World, $f: |&mut Pipe, &mut Channel<SUI>, &Clock, &mut TxContext|) {
    let world = $world;
    world.as_client();
    world.open_channel(100);
    world.as_server();
    let (s, clock) = world.parts();
    let mut pipe = s.take_from_sender<Pipe>();
    let mut first = s.take_shared<Channel<SUI>>();
    let mut second = s.take_shared<Channel<SUI>>();
    if (pipe.channel() == object::id(&first)) $f(&mut pipe, &mut second, clock, s.ctx())
    else $f(&mut pipe, &mut first, clock, s.ctx());
    s.return_to_sender(pipe);
    ts::return_shared(first);
    ts::return_shared(second);
}

#[test, expected_failure(abort_code = pipe::EForeignChannel)]
fun foreign_channel_pays_no_credit() {
    let mut w = borne_by(1, 1_000);
    pipe_of(&mut w, signed::server());
    misused!(&mut w, |pipe, channel, clock, ctx| {
        pipe.collect_credit(channel, clock, ctx).burn_for_testing();
    });
    w.end();
}

#[test, expected_failure(abort_code = pipe::EForeignChannel)]
fun foreign_channel_notes_no_credit() {
    let mut w = borne_by(2, 1_000);
    pipe_of(&mut w, signed::server());
    misused!(&mut w, |pipe, channel, clock, _| pipe.charge_credit(channel, clock));
    w.end();
}

#[test, expected_failure(abort_code = pipe::EForeignHost)]
fun foreign_host() {
    let mut w = open();
    pipe_of(&mut w, signed::client());
    let (s, clock) = w.parts();
    let (other, beacon, cap) = host::new(60_000, s.ctx());
    let mut pipe = s.take_from_sender<Pipe>();
    let channel = s.take_shared<Channel<SUI>>();
    pipe.send(&channel, &other, 0, vector[b"x"], clock);
    s.return_to_sender(pipe);
    ts::return_shared(channel);
    other.destroy(beacon, &cap);
    cap.destroy_cap();
    w.end();
}

#[test, expected_failure(abort_code = pipe::EFrameTooLarge)]
fun frame_too_large() {
    let mut w = open();
    pipe_of(&mut w, signed::client());
    let half = zeros(65_536);
    piped!(&mut w, |pipe, channel, host, clock, _| {
        pipe.send(channel, host, 0, vector[half, half, b"x"], clock);
    });
    w.end();
}

#[test, expected_failure(abort_code = pipe::EOverWindow)]
fun over_window() {
    let mut w = open();
    pipe_of(&mut w, signed::client());
    piped!(&mut w, |pipe, channel, host, clock, _| frames!(5, pipe, channel, host, clock));
    w.end();
}

#[test, expected_failure(abort_code = pipe::EOverWindow)]
fun over_window_towards_the_client() {
    let mut w = open();
    pipe_of(&mut w, signed::server());
    piped!(&mut w, |pipe, channel, host, clock, _| frames!(5, pipe, channel, host, clock));
    w.end();
}

#[test, expected_failure(abort_code = pipe::EOverRate)]
fun over_rate() {
    let mut w = open();
    limit(&mut w, 1_000_000_000, 3, 0, 0, 0);
    pipe_of(&mut w, signed::client());
    piped!(&mut w, |pipe, channel, host, clock, _| frames!(4, pipe, channel, host, clock));
    w.end();
}

#[test, expected_failure(abort_code = pipe::EOverRate)]
fun over_rate_before_the_interval_is_over() {
    let mut w = open();
    limit(&mut w, 1_000_000_000, 1, 0, 0, 0);
    pipe_of(&mut w, signed::client());
    piped!(&mut w, |pipe, channel, host, clock, _| frames!(1, pipe, channel, host, clock));
    w.wait(999);
    w.as_client();
    piped!(&mut w, |pipe, channel, host, clock, _| frames!(1, pipe, channel, host, clock));
    w.end();
}

#[test, expected_failure(abort_code = pipe::EOverRate)]
fun over_rate_of_bytes() {
    let mut w = open();
    limit(&mut w, 0, 0, 1_000, 10, 0);
    pipe_of(&mut w, signed::client());
    piped!(&mut w, |pipe, channel, host, clock, _| {
        pipe.send(channel, host, 0, vector[b"0123456789a"], clock);
    });
    w.end();
}

#[test, expected_failure(abort_code = pipe::EWrongDirection)]
fun wrong_direction() {
    let mut w = borne_by(1, 1_000);
    pipe_of(&mut w, signed::client());
    piped!(&mut w, |pipe, channel, _, clock, ctx| {
        pipe.collect_credit(channel, clock, ctx).burn_for_testing();
    });
    w.end();
}

#[test, expected_failure(abort_code = pipe::EWrongDirection)]
fun wrong_direction_to_charge() {
    let mut w = borne_by(2, 1_000);
    pipe_of(&mut w, signed::server());
    piped!(&mut w, |pipe, channel, _, clock, _| pipe.charge_credit(channel, clock));
    w.end();
}

#[test, expected_failure(abort_code = pipe::EBadReplyKey)]
fun bad_reply_key() {
    let mut w = world::new();
    post(&mut w, 1, b"short", vector[b"hello"], 7);
    w.end();
}

#[test, expected_failure(abort_code = pipe::EEmptyMessage)]
fun empty_message() {
    let mut w = world::new();
    post(&mut w, 1, signed::key_a(), vector[b""], 7);
    w.end();
}

#[test, expected_failure(abort_code = pipe::EFeeTooSmall)]
fun fee_too_small() {
    let mut w = world::new();
    post(&mut w, 1, signed::key_a(), vector[b"hello"], 6);
    w.end();
}

#[test, expected_failure(abort_code = host::ENotAllowed)]
fun a_message_of_the_uninvited() {
    let mut w = world::new();
    world::host!(&mut w, |host, _, cap, _, _, _| host.set_mode(cap, 1, 1));
    w.as_stranger();
    post(&mut w, 1, signed::key_a(), vector[b"hello"], 7);
    w.end();
}

#[test, expected_failure(abort_code = host::EDenied)]
fun a_message_of_the_denied() {
    let mut w = world::new();
    world::host!(
        &mut w,
        |host, _, _, operator, _, _| host.deny(operator, vector[world::stranger()]),
    );
    w.as_stranger();
    post(&mut w, 1, signed::key_a(), vector[b"hello"], 7);
    w.end();
}

#[test, expected_failure(abort_code = host::EServiceClosed)]
fun a_message_to_a_closed_service() {
    let mut w = world::new();
    world::host!(&mut w, |host, _, cap, _, _, _| host.set_open(cap, 1, false));
    w.as_stranger();
    post(&mut w, 1, signed::key_a(), vector[b"hello"], 7);
    w.end();
}

#[test, expected_failure(abort_code = channel::EChannelClosed)]
fun a_frame_in_a_closing_channel() {
    let mut w = open();
    pipe_of(&mut w, signed::client());
    piped!(&mut w, |pipe, channel, host, clock, ctx| {
        channel.request_close(clock, ctx);
        pipe.send(channel, host, 0, vector[b"x"], clock);
    });
    w.end();
}

#[test, expected_failure(abort_code = host::EServiceClosed)]
fun a_frame_to_a_closed_service() {
    let mut w = open();
    pipe_of(&mut w, signed::client());
    world::host!(&mut w, |host, _, cap, _, _, _| host.set_open(cap, 1, false));
    w.as_client();
    piped!(&mut w, |pipe, channel, host, clock, _| frames!(1, pipe, channel, host, clock));
    w.end();
}

#[test, expected_failure(abort_code = host::EDenied)]
fun a_frame_of_the_denied() {
    let mut w = open();
    pipe_of(&mut w, signed::client());
    world::host!(
        &mut w,
        |host, _, _, operator, _, _| host.deny(operator, vector[signed::client()]),
    );
    w.as_client();
    piped!(&mut w, |pipe, channel, host, clock, _| frames!(1, pipe, channel, host, clock));
    w.end();
}

#[test, expected_failure(abort_code = channel::ENotParty)]
fun a_stranger_has_no_pipe() {
    let mut w = open();
    pipe_of(&mut w, world::stranger());
    w.end();
}

#[test, expected_failure(abort_code = channel::ENotBorne)]
fun not_borne() {
    let mut w = open();
    pipe_of(&mut w, signed::server());
    piped!(&mut w, |pipe, channel, _, clock, ctx| {
        pipe.collect_credit(channel, clock, ctx).burn_for_testing();
    });
    w.end();
}

#[test, expected_failure(abort_code = channel::ENotBorne)]
fun not_borne_by_the_server() {
    let mut w = borne_by(1, 1_000);
    pipe_of(&mut w, signed::client());
    piped!(&mut w, |pipe, channel, _, clock, _| pipe.charge_credit(channel, clock));
    w.end();
}

#[test, expected_failure(abort_code = channel::EChannelClosed)]
fun no_credit_from_a_closed_channel() {
    let mut w = borne_by(1, 1_000);
    pipe_of(&mut w, signed::server());
    piped!(&mut w, |pipe, channel, _, clock, ctx| {
        channel.release(ctx);
        pipe.collect_credit(channel, clock, ctx).burn_for_testing();
    });
    w.end();
}

#[test, expected_failure(abort_code = channel::EChannelClosed)]
fun no_charge_to_a_closed_channel() {
    let mut w = borne_by(2, 1_000);
    pipe_of(&mut w, signed::client());
    w.as_server();
    world::channel!(&mut w, |channel, _, ctx| channel.release(ctx));
    w.as_client();
    piped!(&mut w, |pipe, channel, _, clock, _| pipe.charge_credit(channel, clock));
    w.end();
}

#[test, expected_failure(abort_code = channel::ETooManyPipes)]
fun too_many_pipes() {
    let mut w = open();
    world::channel!(&mut w, |channel, _, ctx| {
        let mut pipes = 0u64;
        while (pipes < 17) {
            pipe::open(channel, ctx).keep(ctx);
            pipes = pipes + 1;
        };
    });
    w.end();
}

#[test, expected_failure(abort_code = channel::ENoPipe)]
fun no_pipe() {
    let mut w = open();
    pipe_of(&mut w, signed::client());
    world::channel!(&mut w, |channel, clock, ctx| pipe::ack(channel, 0, 1, clock, ctx));
    w.end();
}

#[test, expected_failure(abort_code = channel::EStaleAck)]
fun stale_ack() {
    let mut w = open();
    pipe_of(&mut w, signed::client());
    w.as_server();
    world::channel!(&mut w, |channel, clock, ctx| {
        pipe::ack(channel, 0, 2, clock, ctx);
        pipe::ack(channel, 0, 2, clock, ctx);
    });
    w.end();
}
