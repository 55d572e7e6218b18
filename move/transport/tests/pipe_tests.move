#[test_only]
module transport::pipe_tests;

use sui::{coin::Coin, event, sui::SUI, test_scenario as ts};
use transport::{
    channel::{Self, Channel},
    pipe::{Self, Frame, Pipe, Posted},
    pipe_world::{frames, limit, open, pipe_of, piped, post, zeros},
    signed,
    world::{Self, World}
};

#[test]
fun a_frame_says_where_it_comes_from() {
    let mut w = open();
    pipe_of(&mut w, signed::client());
    piped!(&mut w, |pipe, channel, host, clock, _| {
        pipe.send(channel, host, 9, vector[b"ab", b"", b"c"], clock);
        pipe.send(channel, host, 0, vector[], clock);
        assert!(pipe.sequence() == 2 && pipe.direction() == 0 && pipe.index() == 0);
        assert!(pipe.channel() == object::id(channel));
        let (metered, credited) = pipe.metered();
        assert!(metered == 3 && credited == 0);
    });
    let frames = event::events_by_type<Frame>();
    assert!(frames.length() == 2);
    let mut first = std::bcs::to_bytes(&signed::channel_id());
    first.append(x"0000010000000000000009");
    first.append(x"03026162000163");
    assert!(std::bcs::to_bytes(&frames[0]) == first);
    w.end();
}

#[test]
fun the_direction_comes_from_the_sender_and_pipes_are_numbered() {
    let mut w = open();
    pipe_of(&mut w, signed::client());
    pipe_of(&mut w, signed::server());
    piped!(&mut w, |pipe, _, _, _, _| assert!(pipe.direction() == 1 && pipe.index() == 0));
    pipe_of(&mut w, signed::server());
    piped!(&mut w, |pipe, _, _, _, _| assert!(pipe.direction() == 1 && pipe.index() == 1));
    w.end();
}

#[test]
fun an_acknowledgement_moves_the_window_on() {
    let mut w = open();
    pipe_of(&mut w, signed::client());
    piped!(&mut w, |pipe, channel, host, clock, _| frames!(4, pipe, channel, host, clock));
    w.as_server();
    world::channel!(&mut w, |channel, clock, ctx| pipe::ack(channel, 0, 3, clock, ctx));
    w.as_client();
    piped!(&mut w, |pipe, channel, host, clock, _| {
        frames!(3, pipe, channel, host, clock);
        assert!(pipe.sequence() == 7);
    });
    w.end();
}

#[test]
fun an_acknowledgement_ahead_of_time_only_widens_the_window() {
    let mut w = open();
    pipe_of(&mut w, signed::server());
    w.as_client();
    world::channel!(&mut w, |channel, clock, ctx| pipe::ack(channel, 0, 100, clock, ctx));
    w.as_server();
    piped!(&mut w, |pipe, channel, host, clock, _| frames!(10, pipe, channel, host, clock));
    w.end();
}

#[test]
fun without_a_window_nobody_waits() {
    let mut w = open();
    limit(&mut w, 0, 0, 0, 0, 0);
    pipe_of(&mut w, signed::client());
    piped!(&mut w, |pipe, channel, host, clock, _| frames!(40, pipe, channel, host, clock));
    w.end();
}

#[test]
fun an_acknowledgement_keeps_a_channel_from_being_idle() {
    let mut w = open();
    pipe_of(&mut w, signed::client());
    w.wait(world::idle_ms() - 1);
    w.as_server();
    world::channel!(&mut w, |channel, clock, ctx| pipe::ack(channel, 0, 1, clock, ctx));
    w.wait(world::idle_ms());
    w.as_stranger();
    world::channel!(&mut w, |channel, clock, ctx| channel.request_close(clock, ctx));
    w.end();
}

#[test, expected_failure(abort_code = channel::ETooEarly)]
fun an_acknowledged_channel_is_not_idle() {
    let mut w = open();
    pipe_of(&mut w, signed::client());
    w.wait(world::idle_ms() - 1);
    w.as_server();
    world::channel!(&mut w, |channel, clock, ctx| pipe::ack(channel, 0, 1, clock, ctx));
    w.wait(world::idle_ms() - 1);
    w.as_stranger();
    world::channel!(&mut w, |channel, clock, ctx| channel.request_close(clock, ctx));
    w.end();
}

#[test]
fun the_rate_gives_a_burst_and_then_one_each_interval() {
    let mut w = open();
    // One frame a second, three at once.
    limit(&mut w, 1_000_000_000, 3, 0, 0, 0);
    pipe_of(&mut w, signed::client());
    piped!(&mut w, |pipe, channel, host, clock, _| frames!(3, pipe, channel, host, clock));
    w.wait(1_000);
    w.as_client();
    piped!(&mut w, |pipe, channel, host, clock, _| frames!(1, pipe, channel, host, clock));
    w.wait(10_000);
    w.as_client();
    piped!(&mut w, |pipe, channel, host, clock, _| frames!(3, pipe, channel, host, clock));
    w.end();
}

#[test]
fun the_rate_does_not_slow_answers() {
    let mut w = open();
    limit(&mut w, 1_000_000_000, 1, 1_000_000_000, 1, 0);
    pipe_of(&mut w, signed::server());
    piped!(&mut w, |pipe, channel, host, clock, _| frames!(9, pipe, channel, host, clock));
    w.end();
}

#[test]
fun a_frame_may_be_as_large_as_a_transaction() {
    let mut w = open();
    pipe_of(&mut w, signed::client());
    let half = zeros(65_536);
    piped!(&mut w, |pipe, channel, host, clock, _| {
        pipe.send(channel, host, 0, vector[half, half], clock);
    });
    w.end();
}

#[test]
fun a_pipe_can_be_thrown_away() {
    let mut w = open();
    pipe_of(&mut w, signed::client());
    let (s, _) = w.parts();
    s.take_from_sender<Pipe>().destroy();
    w.as_client();
    assert!(ts::ids_for_address<Pipe>(signed::client()).is_empty());
    w.end();
}

#[test]
fun a_message_reaches_the_owner_with_its_fee() {
    let mut w = world::new();
    w.as_stranger();
    post(&mut w, 1, signed::key_a(), vector[b"hello ", b"there"], 9);
    assert!(event::events_by_type<Posted>().length() == 1);
    assert!(w.receive(signed::server()) == 9);
    w.end();
}

#[test]
fun a_message_may_be_free() {
    let mut w = world::new();
    world::host!(&mut w, |host, _, cap, _, _, _| host.set_limits(cap, 1, world::no_limit(), 0, 0));
    w.as_stranger();
    post(&mut w, 1, signed::key_a(), vector[b"hello"], 0);
    w.as_server();
    assert!(ts::ids_for_address<Coin<SUI>>(signed::server()).is_empty());
    w.end();
}

#[test]
fun a_message_can_ask_for_a_pass() {
    let mut w = world::new();
    world::host!(&mut w, |host, _, cap, _, _, _| host.set_mode(cap, 1, 2));
    w.as_stranger();
    post(&mut w, 1, signed::key_a(), vector[b"hello"], 7);
    w.end();
}

/// Close the sender's pipe, and open one at its index.
fun open_again(w: &mut World) {
    let (s, _) = w.parts();
    let mut channel = s.take_shared<Channel<SUI>>();
    s.take_from_sender<Pipe>().close(&mut channel);
    pipe::open(&mut channel, s.ctx()).keep(s.ctx());
    ts::return_shared(channel);
}

#[test]
fun an_index_comes_back_and_its_numbers_go_on() {
    let mut w = open();
    pipe_of(&mut w, signed::client());
    piped!(&mut w, |pipe, channel, host, clock, _| frames!(3, pipe, channel, host, clock));
    w.as_client();
    let (s, _) = w.parts();
    let mut channel = s.take_shared<Channel<SUI>>();
    s.take_from_sender<Pipe>().close(&mut channel);
    let pipe = pipe::open(&mut channel, s.ctx());
    // Nothing of the pipe before can be taken for this one's: its first frame has number 4.
    assert!(pipe.index() == 0 && pipe.sequence() == 3 && pipe.direction() == 0);
    pipe.keep(s.ctx());
    ts::return_shared(channel);
    w.as_server();
    world::channel!(&mut w, |channel, clock, ctx| pipe::ack(channel, 0, 3, clock, ctx));
    w.as_client();
    piped!(&mut w, |pipe, channel, host, clock, _| {
        frames!(4, pipe, channel, host, clock);
        assert!(pipe.sequence() == 7);
        let (metered, credited) = pipe.metered();
        assert!(metered == 4 && credited == 0);
    });
    w.end();
}

#[test]
fun a_direction_is_not_used_up_by_openings() {
    let mut w = open();
    world::channel!(&mut w, |channel, _, ctx| {
        let mut opened = 0u64;
        let mut kept = vector[];
        while (opened < 15) {
            kept.push_back(pipe::open(channel, ctx));
            opened = opened + 1;
        };
        while (opened < 40) {
            let pipe = pipe::open(channel, ctx);
            assert!(pipe.index() == 15);
            pipe.close(channel);
            opened = opened + 1;
        };
        // In any order: the index that was given back last is taken first.
        kept.swap_remove(3).close(channel);
        kept.swap_remove(5).close(channel);
        let (first, second) = (pipe::open(channel, ctx), pipe::open(channel, ctx));
        assert!(first.index() == 5 && second.index() == 3);
        first.close(channel);
        second.close(channel);
        while (!kept.is_empty()) kept.pop_back().close(channel);
        kept.destroy_empty();
    });
    w.end();
}

#[test, expected_failure(abort_code = pipe::EOverWindow)]
fun over_window_with_the_pipe_opened_again() {
    let mut w = open();
    pipe_of(&mut w, signed::client());
    piped!(&mut w, |pipe, channel, host, clock, _| frames!(4, pipe, channel, host, clock));
    w.as_client();
    open_again(&mut w);
    w.as_client();
    piped!(&mut w, |pipe, channel, host, clock, _| frames!(1, pipe, channel, host, clock));
    w.end();
}

#[test]
fun what_the_pipe_before_sent_can_be_acknowledged_while_it_is_closed_and_after() {
    let mut w = open();
    pipe_of(&mut w, signed::client());
    piped!(&mut w, |pipe, channel, host, clock, _| frames!(4, pipe, channel, host, clock));
    w.as_client();
    let (s, _) = w.parts();
    let mut channel = s.take_shared<Channel<SUI>>();
    s.take_from_sender<Pipe>().close(&mut channel);
    ts::return_shared(channel);
    w.as_server();
    world::channel!(&mut w, |channel, clock, ctx| pipe::ack(channel, 0, 2, clock, ctx));
    w.as_client();
    world::channel!(&mut w, |channel, _, ctx| pipe::open(channel, ctx).keep(ctx));
    w.as_server();
    world::channel!(&mut w, |channel, clock, ctx| pipe::ack(channel, 0, 3, clock, ctx));
    w.as_client();
    piped!(&mut w, |pipe, channel, host, clock, _| {
        assert!(pipe.sequence() == 4);
        frames!(3, pipe, channel, host, clock);
    });
    w.end();
}

#[test, expected_failure(abort_code = channel::EUnsentAck)]
fun unsent_ack() {
    let mut w = open();
    pipe_of(&mut w, signed::client());
    piped!(&mut w, |pipe, channel, host, clock, _| frames!(3, pipe, channel, host, clock));
    w.as_client();
    let (s, _) = w.parts();
    let mut channel = s.take_shared<Channel<SUI>>();
    s.take_from_sender<Pipe>().close(&mut channel);
    ts::return_shared(channel);
    w.as_server();
    world::channel!(&mut w, |channel, clock, ctx| pipe::ack(channel, 0, 4, clock, ctx));
    w.end();
}

#[test]
fun no_acknowledgement_uses_an_index_up() {
    let mut w = open();
    pipe_of(&mut w, signed::client());
    let mut turns = 0u64;
    while (turns < 3) {
        w.as_server();
        let largest = 18_446_744_073_709_551_615;
        world::channel!(&mut w, |channel, clock, ctx| pipe::ack(channel, 0, largest, clock, ctx));
        w.as_client();
        piped!(&mut w, |pipe, channel, host, clock, _| frames!(2, pipe, channel, host, clock));
        w.as_client();
        open_again(&mut w);
        turns = turns + 1;
    };
    w.as_client();
    piped!(&mut w, |pipe, channel, host, clock, _| {
        assert!(pipe.index() == 0 && pipe.sequence() == 6);
        // Nor is a window wider for what was acknowledged of the pipe before.
        frames!(4, pipe, channel, host, clock);
    });
    w.end();
}

#[test, expected_failure(abort_code = pipe::EOverWindow)]
fun over_window_behind_an_acknowledgement_ahead_of_the_pipe_before() {
    let mut w = open();
    pipe_of(&mut w, signed::client());
    w.as_server();
    world::channel!(&mut w, |channel, clock, ctx| pipe::ack(channel, 0, 1_000, clock, ctx));
    w.as_client();
    open_again(&mut w);
    w.as_client();
    piped!(&mut w, |pipe, channel, host, clock, _| frames!(5, pipe, channel, host, clock));
    w.end();
}

#[test, expected_failure(abort_code = channel::EStaleAck)]
fun an_acknowledgement_of_the_pipe_before_is_stale() {
    let mut w = open();
    pipe_of(&mut w, signed::client());
    piped!(&mut w, |pipe, channel, host, clock, _| frames!(3, pipe, channel, host, clock));
    w.as_server();
    world::channel!(&mut w, |channel, clock, ctx| pipe::ack(channel, 0, 3, clock, ctx));
    w.as_client();
    open_again(&mut w);
    w.as_server();
    world::channel!(&mut w, |channel, clock, ctx| pipe::ack(channel, 0, 3, clock, ctx));
    w.end();
}

#[test]
fun a_pipe_of_a_closing_channel_can_be_closed() {
    let mut w = open();
    pipe_of(&mut w, signed::client());
    world::channel!(&mut w, |channel, clock, ctx| channel.request_close(clock, ctx));
    w.as_client();
    let (s, _) = w.parts();
    let mut channel = s.take_shared<Channel<SUI>>();
    s.take_from_sender<Pipe>().close(&mut channel);
    ts::return_shared(channel);
    w.as_client();
    assert!(ts::ids_for_address<Pipe>(signed::client()).is_empty());
    w.end();
}

#[test, expected_failure(abort_code = pipe::EForeignChannel)]
fun foreign_channel_takes_no_index_back() {
    let mut w = open();
    pipe_of(&mut w, signed::client());
    w.open_channel(1_000);
    w.as_client();
    let (s, _) = w.parts();
    let pipe = s.take_from_sender<Pipe>();
    let first = s.take_shared<Channel<SUI>>();
    let second = s.take_shared<Channel<SUI>>();
    let (right, mut wrong) = if (pipe.channel() == object::id(&first)) (first, second) else (
        second,
        first,
    );
    pipe.close(&mut wrong);
    ts::return_shared(right);
    ts::return_shared(wrong);
    w.end();
}

#[test, expected_failure(abort_code = pipe::EOverRate)]
fun over_rate_with_the_pipe_opened_again() {
    let mut w = open();
    limit(&mut w, 1_000_000_000, 2, 0, 0, 0);
    pipe_of(&mut w, signed::client());
    piped!(&mut w, |pipe, channel, host, clock, _| frames!(2, pipe, channel, host, clock));
    w.as_client();
    let (s, _) = w.parts();
    let mut channel = s.take_shared<Channel<SUI>>();
    s.take_from_sender<Pipe>().close(&mut channel);
    pipe::open(&mut channel, s.ctx()).keep(s.ctx());
    ts::return_shared(channel);
    w.as_client();
    piped!(&mut w, |pipe, channel, host, clock, _| frames!(1, pipe, channel, host, clock));
    w.end();
}
