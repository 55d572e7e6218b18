/// What tests of pipes share.
#[test_only]
module transport::pipe_world;

use sui::{clock::Clock, sui::SUI, test_scenario as ts};
use transport::{channel::Channel, host::{Self, Host}, pipe::{Self, Pipe}, world::{Self, World}};

const CREDIT: u64 = 5;

public fun open(): World { world::with_channel(world::terms()) }

/// A channel whose transport cost `bearer` bears, at five a frame.
public fun borne_by(bearer: u8, epoch_cap: u64): World {
    world::with_channel(world::terms_with(1_048_576, epoch_cap, bearer, CREDIT))
}

/// Open a pipe of the sender of the transaction after the next.
public fun pipe_of(w: &mut World, who: address) {
    w.tx(who);
    world::channel!(w, |channel, _, ctx| pipe::open(channel, ctx).keep(ctx));
    w.tx(who);
}

/// Run with the sender's pipe.
public macro fun piped(
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
public macro fun frames(
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

public fun limit(
    w: &mut World,
    request_ns: u64,
    requests: u64,
    byte_ns: u64,
    bytes: u64,
    window: u64,
) {
    world::host!(w, |host, _, cap, _, _, _| {
        let rate = host::new_rate_limit(request_ns, requests, byte_ns, bytes);
        host.set_limits(cap, 1, rate, window, 7);
    });
}

public fun zeros(length: u64): vector<u8> {
    let mut data = vector[0u8];
    while (data.length() * 2 <= length) {
        let again = data;
        data.append(again);
    };
    while (data.length() < length) data.push_back(0);
    data
}

public fun post(w: &mut World, service: u16, key: vector<u8>, data: vector<vector<u8>>, fee: u64) {
    let fee = w.mint(fee);
    let (s, _) = w.parts();
    let host = s.take_shared<Host>();
    pipe::post(&host, service, key, data, fee, s.ctx());
    ts::return_shared(host);
}
