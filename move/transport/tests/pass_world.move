/// What tests of passes share.
#[test_only]
module transport::pass_world;

use sui::{clock::Clock, sui::SUI, test_scenario as ts};
use transport::{
    channel,
    host::{Self, Beacon, Host, HostCap, OpCap},
    pass::{Self, Pass, Plan},
    signed,
    world::{Self, World}
};

use fun buy as World.buy;
use fun renew as World.renew;
use fun cancel as World.cancel;
use fun draw as World.draw;
use fun revoke as World.revoke;
use fun is_valid as World.is_valid;
use fun pot as World.pot;
use fun open_channel as World.open_with_pass;

const PERIOD_MS: u64 = 100_000;

const PRICE: u64 = 30;

/// A host with a plan of periods of `period_ms` (0: epochs) for its service.
public fun with_plan(period_ms: u64): World {
    let mut w = world::new();
    world::host!(&mut w, |host, _, cap, _, _, ctx| {
        pass::new_plan<SUI>(host, cap, 1, PRICE, period_ms, 5, 6, ctx).share();
    });
    w.as_client();
    w
}

public fun with_pass(periods: u64): World {
    let mut w = with_plan(PERIOD_MS);
    w.buy(periods, PRICE * periods);
    w.as_client();
    w
}

public fun buy(w: &mut World, periods: u64, amount: u64) {
    let payment = w.mint(amount);
    let (s, clock) = w.parts();
    let mut plan = s.take_shared<Plan<SUI>>();
    let host = s.take_shared<Host>();
    plan.buy(&host, payment, periods, clock, s.ctx()).keep(s.ctx());
    ts::return_shared(plan);
    ts::return_shared(host);
}

public fun renew(w: &mut World, periods: u64) {
    w.as_client();
    let payment = w.mint(PRICE * periods);
    let (s, clock) = w.parts();
    let mut plan = s.take_shared<Plan<SUI>>();
    let host = s.take_shared<Host>();
    let pass = s.take_from_sender<Pass>();
    plan.renew(&host, &pass, payment, periods, clock, s.ctx());
    s.return_to_sender(pass);
    ts::return_shared(plan);
    ts::return_shared(host);
}

public fun cancel(w: &mut World): u64 {
    w.as_client();
    let (s, clock) = w.parts();
    let mut plan = s.take_shared<Plan<SUI>>();
    let pass = s.take_from_sender<Pass>();
    let back = plan.cancel(&pass, clock, s.ctx());
    s.return_to_sender(pass);
    ts::return_shared(plan);
    back.burn_for_testing()
}

/// Run with the plan as the host's owner.
public macro fun owner(
    $world: &mut World,
    $f: |&mut Plan<SUI>, &Host, &HostCap, &OpCap, &Clock, &mut TxContext|,
) {
    let world = $world;
    world.as_server();
    let (s, clock) = world.parts();
    let mut plan = s.take_shared<Plan<SUI>>();
    let host = s.take_shared<Host>();
    let cap = s.take_from_sender<HostCap>();
    let operator = s.take_from_sender<OpCap>();
    $f(&mut plan, &host, &cap, &operator, clock, s.ctx());
    s.return_to_sender(cap);
    s.return_to_sender(operator);
    ts::return_shared(plan);
    ts::return_shared(host);
}

public fun draw(w: &mut World): u64 {
    let passes = ts::ids_for_address<Pass>(signed::client());
    let mut drawn = 0;
    owner!(w, |plan, _, cap, _, clock, ctx| {
        drawn = plan.draw(cap, passes, clock, ctx).burn_for_testing();
    });
    drawn
}

public fun revoke(w: &mut World) {
    let passes = ts::ids_for_address<Pass>(signed::client());
    owner!(w, |plan, host, _, operator, clock, ctx| {
        plan.revoke(host, operator, passes[0], clock, ctx);
    });
}

public fun is_valid(w: &mut World): bool {
    w.as_client();
    let (s, clock) = w.parts();
    let plan = s.take_shared<Plan<SUI>>();
    let pass = ts::ids_for_address<Pass>(signed::client());
    let valid = plan.is_valid(pass[0], clock, s.ctx());
    ts::return_shared(plan);
    valid
}

public fun pot(w: &mut World): u64 {
    w.as_client();
    let (s, _) = w.parts();
    let plan = s.take_shared<Plan<SUI>>();
    let pot = plan.pot();
    ts::return_shared(plan);
    pot
}

public fun open_channel(w: &mut World, revision: u64) {
    w.as_client();
    let (s, clock) = w.parts();
    let plan = s.take_shared<Plan<SUI>>();
    let host = s.take_shared<Host>();
    let beacon = s.take_shared<Beacon>();
    let pass = s.take_from_sender<Pass>();
    let key = signed::key_a();
    let ctx = s.ctx();
    channel::open_with_pass(&host, &beacon, &plan, &pass, revision, key, clock, ctx).share();
    s.return_to_sender(pass);
    ts::return_shared(plan);
    ts::return_shared(host);
    ts::return_shared(beacon);
}

public fun destroy(w: &mut World) {
    w.as_client();
    let (s, clock) = w.parts();
    let mut plan = s.take_shared<Plan<SUI>>();
    let pass = s.take_from_sender<Pass>();
    plan.destroy(pass, clock, s.ctx());
    ts::return_shared(plan);
}

public fun retire(w: &mut World): u64 {
    w.as_server();
    let (s, _) = w.parts();
    let plan = s.take_shared<Plan<SUI>>();
    let cap = s.take_from_sender<HostCap>();
    let earned = plan.retire(&cap, s.ctx()).burn_for_testing();
    s.return_to_sender(cap);
    earned
}

/// The channel whose id is `signed::pass_channel_id`: made by the third transaction, as its first object.
public fun pass_channel(): World {
    let mut w = world::new_with_plan(PRICE, PERIOD_MS);
    w.buy(1, PRICE);
    w.open_with_pass(1);
    w.as_client();
    world::channel!(&mut w, |channel, _, _| {
        assert!(object::id(channel) == signed::pass_channel_id());
    });
    w
}

/// Make another host; hand back its parts.
public fun second(w: &mut World): (Host, Beacon, HostCap) {
    w.as_client();
    let (s, _) = w.parts();
    host::new(60_000, s.ctx())
}
