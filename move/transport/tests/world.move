/// The set-up that all tests share: one host with an open service 1 and a fresh endpoint, and the parties' keys.
#[test_only]
module transport::world;

use sui::{
    clock::{Self, Clock},
    coin::{Self, Coin},
    sui::SUI,
    test_scenario::{Self as ts, Scenario}
};
use transport::{
    channel::{Self, Channel},
    host::{Self, Beacon, Host, HostCap, OpCap, RateLimit, Terms},
    pass,
    signed::{Self, Signed}
};

/// When every test begins, in ms.
const START_MS: u64 = 1_000_000;
const CLAIM_MS: u64 = 60_000;
const IDLE_MS: u64 = 600_000;
const DEPOSIT: u64 = 1_000;
/// A MiB costs as much as it has bytes: a byte costs one.
const PRICE_MIB: u64 = 1_048_576;
const NO_CAP: u64 = 18_446_744_073_709_551_615;

public struct World {
    scenario: Scenario,
    clock: Clock,
}

public fun claim_ms(): u64 { CLAIM_MS }

public fun idle_ms(): u64 { IDLE_MS }

public fun start_ms(): u64 { START_MS }

public fun deposit(): u64 { DEPOSIT }

public fun stranger(): address { @0xBAD }

/// Ten a request, one a byte, no epoch cap, no cost shifting.
public fun terms(): Terms { terms_with(PRICE_MIB, NO_CAP, 0, 0) }

public fun terms_with(price_mib: u64, epoch_cap: u64, bearer: u8, credit: u64): Terms {
    host::new_terms<SUI>(10, price_mib, 100, epoch_cap, bearer, credit, IDLE_MS, CLAIM_MS)
}

public fun no_limit(): RateLimit { host::new_rate_limit(0, 0, 0, 0) }

/// The host of the default terms; the next transaction is the client's.
public fun new(): World { new_with(terms()) }

public fun new_with(terms: Terms): World {
    let mut world = build(terms, false, 0, 0);
    world.as_client();
    world
}

/// The host, with a plan made in the same transaction.
public fun new_with_plan(price: u64, period_ms: u64): World {
    let mut world = build(terms(), true, price, period_ms);
    world.as_client();
    world
}

fun build(terms: Terms, plan: bool, price: u64, period_ms: u64): World {
    let mut scenario = ts::begin(signed::server());
    let mut clock = clock::create_for_testing(scenario.ctx());
    clock.set_for_testing(START_MS);
    let (mut host, mut beacon, cap) = host::new(60_000, scenario.ctx());
    host.add_service(&cap, 1, 2, 0, terms, no_limit(), 4, 7, vector[]);
    host.set_open(&cap, 1, true);
    let operator = host.new_operator(&cap, 15, scenario.ctx());
    beacon.enroll(&operator, signed::key_c(), 1, 0, 1, b"tcp://127.0.0.1:1");
    beacon.heartbeat(&operator, signed::key_c(), 1, 0, &clock);
    if (plan) pass::new_plan<SUI>(&host, &cap, 1, price, period_ms, 0, 0, scenario.ctx()).share();
    host::share(host, beacon);
    transfer::public_transfer(cap, signed::server());
    transfer::public_transfer(operator, signed::server());
    World { scenario, clock }
}

/// The host, and a channel of the client with the default deposit and lane key A; its id is `signed::channel_id`.
public fun with_channel(terms: Terms): World {
    let mut world = new_with(terms);
    world.open_channel(DEPOSIT);
    world.as_client();
    world
}

public fun open_channel(world: &mut World, amount: u64) {
    let deposit = world.mint(amount);
    let host = world.scenario.take_shared<Host>();
    let beacon = world.scenario.take_shared<Beacon>();
    let revision = host.service(1).terms().revision();
    let ctx = world.scenario.ctx();
    channel::open(&host, &beacon, 1, revision, deposit, signed::key_a(), &world.clock, ctx).share();
    ts::return_shared(host);
    ts::return_shared(beacon);
}

public fun mint(world: &mut World, amount: u64): Coin<SUI> {
    coin::mint_for_testing<SUI>(amount, world.scenario.ctx())
}

public fun as_client(world: &mut World) { world.tx(signed::client()) }

public fun as_server(world: &mut World) { world.tx(signed::server()) }

public fun as_stranger(world: &mut World) { world.tx(stranger()) }

public fun tx(world: &mut World, sender: address) { world.scenario.next_tx(sender); }

public fun next_epoch(world: &mut World) {
    let sender = world.scenario.ctx().sender();
    world.scenario.next_epoch(sender);
}

public fun wait(world: &mut World, ms: u64) { world.clock.increment_for_testing(ms) }

public fun parts(world: &mut World): (&mut Scenario, &Clock) { (&mut world.scenario, &world.clock) }

public fun end(world: World) {
    let World { scenario, clock } = world;
    clock.destroy_for_testing();
    scenario.end();
}

/// Run with the channel.
public macro fun channel($world: &mut World, $f: |&mut Channel<SUI>, &Clock, &mut TxContext|) {
    let world = $world;
    let (scenario, clock) = world.parts();
    let mut channel = scenario.take_shared<Channel<SUI>>();
    $f(&mut channel, clock, scenario.ctx());
    ts::return_shared(channel);
}

/// Run with the host and its beacon as the server, which holds both caps.
public macro fun host(
    $world: &mut World,
    $f: |&mut Host, &mut Beacon, &HostCap, &OpCap, &Clock, &mut TxContext|,
) {
    let world = $world;
    world.as_server();
    let (scenario, clock) = world.parts();
    let mut host = scenario.take_shared<Host>();
    let mut beacon = scenario.take_shared<Beacon>();
    let cap = scenario.take_from_sender<HostCap>();
    let operator = scenario.take_from_sender<OpCap>();
    $f(&mut host, &mut beacon, &cap, &operator, clock, scenario.ctx());
    scenario.return_to_sender(cap);
    scenario.return_to_sender(operator);
    ts::return_shared(host);
    ts::return_shared(beacon);
}

/// Claim as the server with what `signed` gave; returns what was paid.
public fun claim(world: &mut World, signed: Signed): u64 { world.claim_with(signed, vector[]) }

public fun claim_with(world: &mut World, signed: Signed, preimage: vector<u8>): u64 {
    world.as_server();
    let (voucher, signature) = signed.voucher();
    let mut channel = world.scenario.take_shared<Channel<SUI>>();
    let ctx = world.scenario.ctx();
    let coin = channel.claim(voucher, signature, preimage, &world.clock, ctx);
    ts::return_shared(channel);
    coin.burn_for_testing()
}

/// All that was sent to an address and is still there; takes it away.
public fun receive(world: &mut World, who: address): u64 {
    world.tx(who);
    let mut total = 0;
    while (ts::has_most_recent_for_address<Coin<SUI>>(who)) {
        total = total + world.scenario.take_from_sender<Coin<SUI>>().burn_for_testing();
    };
    total
}

/// Nothing appears and nothing vanishes.
public fun assert_conserved(channel: &Channel<SUI>) {
    let out = channel.claimed() + channel.credited() + channel.refunded();
    assert!(out + channel.held() == channel.deposited());
    assert!(channel.client_credit() <= channel.credited());
}
