#[test_only]
module transport::pipe_tests;

use sui::{clock::Clock, coin::Coin, event, sui::SUI, test_scenario as ts};
use transport::{
    channel::{Self, Channel},
    host::{Self, Host},
    pipe::{Self, Credited, Frame, Pipe, Posted},
    signed,
    world::{Self, World}
};

const CREDIT: u64 = 5;
/// Bytes of a frame that a whole credit is for.
const FULL: u64 = 16_384;

fun open(): World { world::with_channel(world::terms()) }

/// A channel whose transport cost `bearer` bears, at five a frame.
fun borne_by(bearer: u8, epoch_cap: u64): World {
    world::with_channel(world::terms_with(1_048_576, epoch_cap, bearer, CREDIT))
}

/// Open a pipe of the sender of the transaction after the next.
fun pipe_of(w: &mut World, who: address) {
    w.tx(who);
    world::channel!(w, |channel, _, ctx| pipe::open(channel, ctx).keep(ctx));
    w.tx(who);
}

/// Run with the sender's pipe.
macro fun piped(
    $world: &mut World,
    $f: |&mut Pipe, &mut Channel<SUI>, &Host, &Clock, &mut TxContext|,
) {
    let world = $world;
    let (s, clock) = world.parts();
    let mut channel = s.take_shared<Channel<SUI>>();
    let host = s.take_shared<Host>();
    let mut pipe = s.take_from_sender<Pipe>();
    $f(&mut pipe, &mut channel, &host, clock, s.ctx());
    s.return_to_sender(pipe);
    ts::return_shared(channel);
    ts::return_shared(host);
}

/// As many frames of one byte as said, acknowledged by nobody.
macro fun frames(
    $count: u64,
    $pipe: &mut Pipe,
    $channel: &Channel<SUI>,
    $host: &Host,
    $clock: &Clock,
) {
    let mut sent = 0;
    let (pipe, channel, host, clock) = ($pipe, $channel, $host, $clock);
    while (sent < $count) {
        pipe.send(channel, host, 0, vector[b"x"], clock);
        sent = sent + 1;
    };
}

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

fun limit(w: &mut World, request_ns: u64, requests: u64, byte_ns: u64, bytes: u64, window: u64) {
    world::host!(w, |host, _, cap, _, _, _| {
        let rate = host::new_rate_limit(request_ns, requests, byte_ns, bytes);
        host.set_limits(cap, 1, rate, window, 7);
    });
}

fun zeros(length: u64): vector<u8> {
    let mut data = vector[0u8];
    while (data.length() * 2 <= length) {
        let again = data;
        data.append(again);
    };
    while (data.length() < length) data.push_back(0);
    data
}

// === Ways through ===

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

// === Cost shifting ===

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

// === Messages ===

fun post(w: &mut World, service: u16, key: vector<u8>, data: vector<vector<u8>>, fee: u64) {
    let fee = w.mint(fee);
    let (s, _) = w.parts();
    let host = s.take_shared<Host>();
    pipe::post(&host, service, key, data, fee, s.ctx());
    ts::return_shared(host);
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

// === Refusals, each by the name of its error; none emits a frame ===

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

// === Refusals of the channel that concern pipes ===

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

// === Indices that come back ===

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
