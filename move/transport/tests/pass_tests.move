#[test_only]
module transport::pass_tests;

use sui::{clock::Clock, event, sui::SUI, test_scenario as ts};
use transport::{
    channel,
    host::{Self, Beacon, Host, HostCap, OpCap},
    pass::{Self, Pass, Plan},
    signed,
    world::{Self, World}
};

public struct OTHER has drop {}

const PERIOD_MS: u64 = 100_000;
const PRICE: u64 = 30;

/// A host with a plan of periods of `period_ms` (0: epochs) for its service.
fun with_plan(period_ms: u64): World {
    let mut w = world::new();
    world::host!(&mut w, |host, _, cap, _, _, ctx| {
        pass::new_plan<SUI>(host, cap, 1, PRICE, period_ms, 5, 6, ctx).share();
    });
    w.as_client();
    w
}

fun with_pass(periods: u64): World {
    let mut w = with_plan(PERIOD_MS);
    w.buy(periods, PRICE * periods);
    w.as_client();
    w
}

use fun buy as World.buy;

fun buy(w: &mut World, periods: u64, amount: u64) {
    let payment = w.mint(amount);
    let (s, clock) = w.parts();
    let mut plan = s.take_shared<Plan<SUI>>();
    let host = s.take_shared<Host>();
    plan.buy(&host, payment, periods, clock, s.ctx()).keep(s.ctx());
    ts::return_shared(plan);
    ts::return_shared(host);
}

use fun renew as World.renew;

fun renew(w: &mut World, periods: u64) {
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

use fun cancel as World.cancel;

fun cancel(w: &mut World): u64 {
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
macro fun owner(
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

use fun draw as World.draw;

fun draw(w: &mut World): u64 {
    let passes = ts::ids_for_address<Pass>(signed::client());
    let mut drawn = 0;
    owner!(w, |plan, _, cap, _, clock, ctx| {
        drawn = plan.draw(cap, passes, clock, ctx).burn_for_testing();
    });
    drawn
}

use fun revoke as World.revoke;

fun revoke(w: &mut World) {
    let passes = ts::ids_for_address<Pass>(signed::client());
    owner!(w, |plan, host, _, operator, clock, ctx| {
        plan.revoke(host, operator, passes[0], clock, ctx);
    });
}

use fun is_valid as World.is_valid;

fun is_valid(w: &mut World): bool {
    w.as_client();
    let (s, clock) = w.parts();
    let plan = s.take_shared<Plan<SUI>>();
    let pass = ts::ids_for_address<Pass>(signed::client());
    let valid = plan.is_valid(pass[0], clock, s.ctx());
    ts::return_shared(plan);
    valid
}

use fun pot as World.pot;

fun pot(w: &mut World): u64 {
    w.as_client();
    let (s, _) = w.parts();
    let plan = s.take_shared<Plan<SUI>>();
    let pot = plan.pot();
    ts::return_shared(plan);
    pot
}

use fun open_channel as World.open_with_pass;

fun open_channel(w: &mut World, revision: u64) {
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

// === Ways through ===

#[test]
fun a_plan_carries_what_it_was_given() {
    let mut w = with_plan(PERIOD_MS);
    owner!(&mut w, |plan, host, _, _, _, _| {
        assert!(plan.plan_host() == object::id(host) && plan.plan_service() == 1);
        assert!(plan.price() == PRICE && plan.period_ms() == PERIOD_MS && plan.is_on_sale());
        let (requests, bytes) = plan.quotas();
        assert!(requests == 5 && bytes == 6 && plan.pot() == 0);
    });
    w.end();
}

#[test]
fun a_pass_is_good_for_its_periods() {
    let mut w = with_pass(2);
    assert!(w.is_valid() && w.pot() == 60);
    w.wait(2 * PERIOD_MS - 1);
    assert!(w.is_valid());
    w.wait(1);
    assert!(!w.is_valid());
    w.end();
}

#[test]
fun a_pass_says_what_it_is_for() {
    let mut w = with_pass(2);
    let (s, _) = w.parts();
    let plan = s.take_shared<Plan<SUI>>();
    let pass = s.take_from_sender<Pass>();
    assert!(pass.pass_plan() == object::id(&plan) && pass.pass_service() == 1);
    assert!(pass.pass_host() == plan.plan_host());
    assert!(plan.holder(object::id(&pass)) == signed::client());
    assert!(plan.valid_until(object::id(&pass)) == world::start_ms() + 2 * PERIOD_MS);
    s.return_to_sender(pass);
    ts::return_shared(plan);
    w.end();
}

#[test]
fun an_epoch_is_a_period_when_the_plan_says_so() {
    let mut w = with_plan(0);
    w.buy(2, 2 * PRICE);
    w.wait(10 * PERIOD_MS);
    assert!(w.is_valid() && w.draw() == 0);
    w.next_epoch();
    assert!(w.is_valid() && w.draw() == PRICE);
    w.next_epoch();
    assert!(!w.is_valid() && w.draw() == PRICE);
    w.end();
}

#[test]
fun the_owner_draws_elapsed_periods_only_and_once() {
    let mut w = with_pass(3);
    assert!(w.draw() == 0);
    w.wait(PERIOD_MS - 1);
    assert!(w.draw() == 0);
    w.wait(1);
    assert!(w.draw() == PRICE);
    assert!(w.draw() == 0);
    w.wait(10 * PERIOD_MS);
    assert!(w.draw() == 2 * PRICE);
    assert!(w.pot() == 0);
    w.end();
}

#[test]
fun a_running_pass_is_prolonged() {
    let mut w = with_pass(1);
    w.wait(PERIOD_MS - 1);
    w.renew(2);
    w.wait(2 * PERIOD_MS);
    assert!(w.is_valid());
    w.wait(1);
    assert!(!w.is_valid());
    assert!(w.draw() == 3 * PRICE);
    w.end();
}

#[test]
fun a_lapsed_pass_begins_again_and_what_was_earned_stays_earned() {
    let mut w = with_pass(2);
    w.wait(5 * PERIOD_MS);
    assert!(!w.is_valid());
    w.renew(1);
    assert!(w.is_valid() && w.pot() == 3 * PRICE);
    assert!(w.draw() == 2 * PRICE);
    w.wait(PERIOD_MS);
    assert!(!w.is_valid() && w.draw() == PRICE && w.pot() == 0);
    w.end();
}

#[test]
fun a_cancel_gives_unstarted_periods_back() {
    let mut w = with_pass(5);
    w.wait(PERIOD_MS);
    assert!(w.cancel() == 3 * PRICE);
    assert!(w.is_valid());
    assert!(w.cancel() == 0);
    w.wait(PERIOD_MS);
    assert!(!w.is_valid());
    assert!(w.draw() == 2 * PRICE && w.pot() == 0);
    assert!(w.cancel() == 0);
    w.end();
}

#[test]
fun a_revoked_pass_gives_the_running_period_back_too() {
    let mut w = with_pass(5);
    w.wait(PERIOD_MS + 1);
    w.revoke();
    assert!(w.receive(signed::client()) == 4 * PRICE);
    assert!(!w.is_valid());
    assert!(w.draw() == PRICE && w.pot() == 0);
    w.end();
}

#[test]
fun a_pass_that_is_over_is_revoked_without_a_coin() {
    let mut w = with_pass(1);
    w.wait(PERIOD_MS);
    w.revoke();
    assert!(w.receive(signed::client()) == 0);
    assert!(w.draw() == PRICE);
    w.end();
}

#[test]
fun a_pass_that_is_over_can_be_thrown_away_and_is_still_paid() {
    let mut w = with_pass(2);
    w.wait(2 * PERIOD_MS);
    destroy(&mut w);
    w.as_client();
    assert!(ts::ids_for_address<Pass>(signed::client()).is_empty());
    assert!(w.draw() == 2 * PRICE);
    w.end();
}

fun destroy(w: &mut World) {
    w.as_client();
    let (s, clock) = w.parts();
    let mut plan = s.take_shared<Plan<SUI>>();
    let pass = s.take_from_sender<Pass>();
    plan.destroy(pass, clock, s.ctx());
    ts::return_shared(plan);
}

fun retire(w: &mut World): u64 {
    w.as_server();
    let (s, _) = w.parts();
    let plan = s.take_shared<Plan<SUI>>();
    let cap = s.take_from_sender<HostCap>();
    let earned = plan.retire(&cap, s.ctx()).burn_for_testing();
    s.return_to_sender(cap);
    earned
}

#[test]
fun a_plan_without_passes_can_be_deleted_and_pays_what_it_earned() {
    let mut w = with_pass(2);
    w.wait(2 * PERIOD_MS);
    destroy(&mut w);
    assert!(retire(&mut w) == 2 * PRICE);
    w.as_server();
    assert!(!ts::has_most_recent_shared<Plan<SUI>>());
    w.end();
}

#[test]
fun a_plan_outlives_its_host() {
    let mut w = with_pass(3);
    w.as_server();
    let (s, _) = w.parts();
    let host = s.take_shared<Host>();
    let beacon = s.take_shared<Beacon>();
    let cap = s.take_from_sender<HostCap>();
    host.destroy(beacon, &cap);
    s.return_to_sender(cap);
    w.wait(PERIOD_MS);
    assert!(w.cancel() == PRICE);
    w.wait(PERIOD_MS);
    destroy(&mut w);
    assert!(retire(&mut w) == 2 * PRICE);
    w.end();
}

#[test]
fun a_plan_of_a_deleted_host_ends_though_a_pass_was_thrown_away() {
    let mut w = with_pass(1000);
    let passes = ts::ids_for_address<Pass>(signed::client());
    w.as_client();
    let (s, _) = w.parts();
    s.take_from_sender<Pass>().discard();
    w.as_server();
    let (s, _) = w.parts();
    let host = s.take_shared<Host>();
    let beacon = s.take_shared<Beacon>();
    let cap = s.take_from_sender<HostCap>();
    host.destroy(beacon, &cap);
    s.return_to_sender(cap);
    w.wait(PERIOD_MS);
    w.as_server();
    let (s, clock) = w.parts();
    let mut plan = s.take_shared<Plan<SUI>>();
    let cap = s.take_from_sender<HostCap>();
    plan.set_on_sale(&cap, false);
    plan.revoke_as_owner(&cap, passes[0], clock, s.ctx());
    plan.forget(&cap, passes, clock, s.ctx());
    s.return_to_sender(cap);
    ts::return_shared(plan);
    assert!(w.receive(signed::client()) == 999 * PRICE);
    assert!(retire(&mut w) == PRICE);
    w.end();
}

#[test, expected_failure(abort_code = pass::ERevoked)]
fun revoked_twice_by_the_owner() {
    let mut w = with_pass(2);
    w.revoke();
    let passes = ts::ids_for_address<Pass>(signed::client());
    owner!(&mut w, |plan, _, cap, _, clock, ctx| plan.revoke_as_owner(cap, passes[0], clock, ctx));
    w.end();
}

#[test, expected_failure(abort_code = pass::EWrongCap)]
fun wrong_cap_to_revoke_as_owner() {
    let mut w = with_pass(1);
    let (other, beacon, cap) = second(&mut w);
    let passes = ts::ids_for_address<Pass>(signed::client());
    owner!(&mut w, |plan, _, _, _, clock, ctx| plan.revoke_as_owner(&cap, passes[0], clock, ctx));
    other.destroy(beacon, &cap);
    cap.destroy_cap();
    w.end();
}

#[test, expected_failure(abort_code = pass::EUnknownPass)]
fun an_unknown_pass_is_not_revoked_by_the_owner() {
    let mut w = with_pass(2);
    owner!(&mut w, |plan, _, cap, _, clock, ctx| {
        plan.revoke_as_owner(cap, object::id(cap), clock, ctx);
    });
    w.end();
}

#[test, expected_failure(abort_code = pass::EPassesLeft)]
fun passes_left() {
    let mut w = with_pass(1);
    w.wait(PERIOD_MS);
    retire(&mut w);
    w.end();
}

#[test]
fun a_free_plan_moves_no_money() {
    let mut w = world::new();
    world::host!(&mut w, |host, _, cap, _, _, ctx| {
        pass::new_plan<SUI>(host, cap, 1, 0, PERIOD_MS, 0, 0, ctx).share();
    });
    w.as_client();
    w.buy(3, 0);
    assert!(w.is_valid());
    w.revoke();
    assert!(!w.is_valid() && w.draw() == 0);
    w.end();
}

#[test]
fun a_pass_opens_a_channel_whose_vouchers_are_receipts() {
    let mut w = with_plan(PERIOD_MS);
    world::host!(&mut w, |host, _, cap, _, _, _| host.set_mode(cap, 1, 2));
    w.as_client();
    w.buy(1, PRICE);
    w.open_with_pass(1);
    w.as_client();
    world::channel!(&mut w, |channel, _, _| {
        assert!(channel.pass().is_some() && channel.deposited() == 0);
        assert!(channel.terms().price_request() == 0 && channel.terms().credit() == 0);
    });
    w.end();
}

#[test]
fun a_channel_under_a_pass_is_of_the_plans_coin_whatever_the_terms_are_in_by_then() {
    let mut w = with_plan(PERIOD_MS);
    w.buy(1, PRICE);
    world::host!(&mut w, |host, _, cap, _, _, _| {
        let terms = host::new_terms<OTHER>(10, 0, 100, 1_000, 0, 0, 600_000, 60_000);
        host.set_terms(cap, 1, terms, vector[]);
    });
    w.open_with_pass(2);
    w.as_client();
    world::channel!(&mut w, |channel, _, _| channel.terms().assert_coin<SUI>());
    w.end();
}

#[test]
fun a_receipt_counts_usage_and_pays_nothing() {
    let mut w = pass_channel();
    assert!(w.claim(signed::receipt()) == 0);
    w.as_client();
    world::channel!(&mut w, |channel, _, _| {
        let (requests, bytes) = channel.usage();
        assert!(requests == 5 && bytes == 20_000);
        world::assert_conserved(channel);
    });
    w.end();
}

/// The channel whose id is `signed::pass_channel_id`: made by the third transaction, as its first object.
fun pass_channel(): World {
    let mut w = world::new_with_plan(PRICE, PERIOD_MS);
    w.buy(1, PRICE);
    w.open_with_pass(1);
    w.as_client();
    world::channel!(&mut w, |channel, _, _| {
        assert!(object::id(channel) == signed::pass_channel_id());
    });
    w
}

/// Any mix of buying, prolonging, cancelling, revoking and drawing moves money only between its owners.
fun history(halves: u64, renews: bool, cancels: bool, revokes: bool) {
    let mut w = with_pass(4);
    let mut paid = 4 * PRICE;
    w.wait(halves * PERIOD_MS / 2);
    let mut out = w.draw();
    if (renews) {
        w.renew(2);
        paid = paid + 2 * PRICE;
    };
    if (cancels) out = out + w.cancel();
    w.wait(PERIOD_MS);
    out = out + w.draw();
    assert!(paid == out + w.pot());
    if (revokes) {
        w.revoke();
        out = out + w.receive(signed::client());
    };
    assert!(paid == out + w.pot());
    w.wait(20 * PERIOD_MS);
    out = out + w.draw();
    assert!(w.pot() == 0 && paid == out);
    w.end();
}

#[test]
fun paid_is_drawn_and_refunded_with_a_renewal() { history(1, true, false, false); }

#[test]
fun paid_is_drawn_and_refunded_with_a_cancel() { history(2, false, true, false); }

#[test]
fun paid_is_drawn_and_refunded_with_a_revocation() { history(3, false, false, true); }

#[test]
fun paid_is_drawn_and_refunded_with_all_three() { history(4, true, true, true); }

#[test]
fun paid_is_drawn_and_refunded_with_all_three_in_the_last_period() { history(7, true, true, true); }

#[test]
fun paid_is_drawn_and_refunded_with_a_renewal_after_a_lapse() { history(11, true, true, true); }

#[test]
fun paid_is_drawn_and_refunded_when_revoked_after_a_lapse() { history(9, false, false, true); }

// === Refusals, each by the name of its error ===

#[test, expected_failure(abort_code = pass::EWrongVersion)]
fun wrong_version() {
    let mut w = with_plan(PERIOD_MS);
    owner!(&mut w, |plan, _, cap, _, _, _| {
        plan.set_version_for_testing(2);
        plan.set_on_sale(cap, false);
    });
    w.end();
}

/// Make another host; hand back its parts.
fun second(w: &mut World): (Host, Beacon, HostCap) {
    w.as_client();
    let (s, _) = w.parts();
    host::new(60_000, s.ctx())
}

#[test, expected_failure(abort_code = pass::EWrongCap)]
fun wrong_cap() {
    let mut w = with_plan(PERIOD_MS);
    let (other, beacon, cap) = second(&mut w);
    owner!(&mut w, |plan, _, _, _, _, _| plan.set_on_sale(&cap, false));
    other.destroy(beacon, &cap);
    cap.destroy_cap();
    w.end();
}

#[test, expected_failure(abort_code = pass::EWrongCap)]
fun wrong_cap_to_draw() {
    let mut w = with_pass(1);
    w.wait(PERIOD_MS);
    let (other, beacon, cap) = second(&mut w);
    let passes = ts::ids_for_address<Pass>(signed::client());
    owner!(&mut w, |plan, _, _, _, clock, ctx| {
        plan.draw(&cap, passes, clock, ctx).burn_for_testing();
    });
    other.destroy(beacon, &cap);
    cap.destroy_cap();
    w.end();
}

#[test, expected_failure(abort_code = host::EWrongCap)]
fun wrong_cap_for_a_plan() {
    let mut w = world::new();
    let (other, beacon, cap) = second(&mut w);
    world::host!(&mut w, |host, _, _, _, _, ctx| {
        pass::new_plan<SUI>(host, &cap, 1, 1, 0, 0, 0, ctx).share();
    });
    other.destroy(beacon, &cap);
    cap.destroy_cap();
    w.end();
}

#[test, expected_failure(abort_code = host::ENoService)]
fun no_service_for_a_plan() {
    let mut w = world::new();
    world::host!(&mut w, |host, _, cap, _, _, ctx| {
        pass::new_plan<SUI>(host, cap, 2, 1, 0, 0, 0, ctx).share();
    });
    w.end();
}

#[test, expected_failure(abort_code = pass::EForeignHost)]
fun foreign_host() {
    let mut w = with_plan(PERIOD_MS);
    let (other, beacon, cap) = second(&mut w);
    w.as_client();
    let payment = w.mint(PRICE);
    let (s, clock) = w.parts();
    let mut plan = s.take_shared<Plan<SUI>>();
    plan.buy(&other, payment, 1, clock, s.ctx()).keep(s.ctx());
    ts::return_shared(plan);
    other.destroy(beacon, &cap);
    cap.destroy_cap();
    w.end();
}

#[test, expected_failure(abort_code = pass::EForeignHost)]
fun foreign_host_may_not_revoke() {
    let mut w = with_pass(1);
    let (other, beacon, cap) = second(&mut w);
    let (s, _) = w.parts();
    let operator = other.new_operator(&cap, 8, s.ctx());
    let passes = ts::ids_for_address<Pass>(signed::client());
    owner!(&mut w, |plan, _, _, _, clock, ctx| {
        plan.revoke(&other, &operator, passes[0], clock, ctx);
    });
    operator.destroy_operator();
    other.destroy(beacon, &cap);
    cap.destroy_cap();
    w.end();
}

#[test, expected_failure(abort_code = pass::EForeignPass)]
fun foreign_pass() {
    let mut w = with_pass(1);
    // A second plan is the most recent one from here on.
    owner!(&mut w, |_, host, cap, _, _, ctx| {
        pass::new_plan<SUI>(host, cap, 1, PRICE, PERIOD_MS, 0, 0, ctx).share();
    });
    w.as_client();
    let (s, clock) = w.parts();
    let first = s.take_shared<Plan<SUI>>();
    let second = s.take_shared<Plan<SUI>>();
    let pass = s.take_from_sender<Pass>();
    let (mut right, mut wrong) = if (pass.pass_plan() == object::id(&first)) (first, second) else (
        second,
        first,
    );
    right.cancel(&pass, clock, s.ctx()).burn_for_testing();
    wrong.cancel(&pass, clock, s.ctx()).burn_for_testing();
    s.return_to_sender(pass);
    ts::return_shared(right);
    ts::return_shared(wrong);
    w.end();
}

#[test, expected_failure(abort_code = pass::EBadPeriod)]
fun bad_period() {
    with_plan(59_999).end();
}

#[test, expected_failure(abort_code = pass::EBadPeriod)]
fun bad_period_beyond_a_year() {
    with_plan(31_622_400_001).end();
}

#[test, expected_failure(abort_code = pass::EPriceTooHigh)]
fun price_too_high() {
    let mut w = world::new();
    world::host!(&mut w, |host, _, cap, _, _, ctx| {
        pass::new_plan<SUI>(host, cap, 1, 18_446_744_073_709_552, 0, 0, 0, ctx).share();
    });
    w.end();
}

#[test, expected_failure(abort_code = pass::ENotOnSale)]
fun not_on_sale() {
    let mut w = with_pass(1);
    owner!(&mut w, |plan, _, cap, _, _, _| plan.set_on_sale(cap, false));
    w.renew(1);
    w.end();
}

#[test, expected_failure(abort_code = host::EServiceClosed)]
fun a_closed_service_sells_no_passes() {
    let mut w = with_plan(PERIOD_MS);
    world::host!(&mut w, |host, _, cap, _, _, _| host.set_open(cap, 1, false));
    w.as_client();
    w.buy(1, PRICE);
    w.end();
}

#[test, expected_failure(abort_code = host::EDenied)]
fun the_denied_buy_no_passes() {
    let mut w = with_plan(PERIOD_MS);
    world::host!(
        &mut w,
        |host, _, _, operator, _, _| host.deny(operator, vector[signed::client()]),
    );
    w.as_client();
    w.buy(1, PRICE);
    w.end();
}

#[test, expected_failure(abort_code = pass::ENoPeriods)]
fun no_periods() {
    let mut w = with_plan(PERIOD_MS);
    w.buy(0, 0);
    w.end();
}

#[test, expected_failure(abort_code = pass::ETooManyPeriods)]
fun too_many_periods() {
    let mut w = with_plan(PERIOD_MS);
    w.buy(1_001, 1_001 * PRICE);
    w.end();
}

#[test, expected_failure(abort_code = pass::ETooManyPeriods)]
fun too_many_periods_by_renewing() {
    let mut w = with_pass(1_000);
    w.renew(1);
    w.end();
}

#[test, expected_failure(abort_code = pass::EWrongPayment)]
fun wrong_payment() {
    let mut w = with_plan(PERIOD_MS);
    w.buy(2, 2 * PRICE - 1);
    w.end();
}

#[test, expected_failure(abort_code = pass::EWrongPayment)]
fun wrong_payment_of_too_much() {
    let mut w = with_plan(PERIOD_MS);
    w.buy(2, 2 * PRICE + 1);
    w.end();
}

#[test, expected_failure(abort_code = pass::ERevoked)]
fun revoked() {
    let mut w = with_pass(2);
    w.revoke();
    w.open_with_pass(1);
    w.end();
}

#[test, expected_failure(abort_code = pass::ERevoked)]
fun revoked_twice() {
    let mut w = with_pass(2);
    w.revoke();
    w.revoke();
    w.end();
}

#[test, expected_failure(abort_code = pass::ERevoked)]
fun revoked_and_renewed() {
    let mut w = with_pass(2);
    w.revoke();
    w.renew(1);
    w.end();
}

#[test, expected_failure(abort_code = pass::ERevoked)]
fun revoked_and_cancelled() {
    let mut w = with_pass(2);
    w.revoke();
    w.cancel();
    w.end();
}

#[test, expected_failure(abort_code = host::ERevokedOperator)]
fun a_revoked_operator_revokes_no_pass() {
    let mut w = with_pass(2);
    world::host!(&mut w, |host, beacon, cap, _, _, _| host.revoke_operators(beacon, cap));
    w.revoke();
    w.end();
}

#[test, expected_failure(abort_code = host::EMissingRight)]
fun an_operator_without_the_right_revokes_no_pass() {
    let mut w = with_pass(2);
    let passes = ts::ids_for_address<Pass>(signed::client());
    owner!(&mut w, |plan, host, cap, _, clock, ctx| {
        let weak = host.new_operator(cap, 7, ctx);
        plan.revoke(host, &weak, passes[0], clock, ctx);
        weak.destroy_operator();
    });
    w.end();
}

#[test, expected_failure(abort_code = pass::ELapsed)]
fun lapsed() {
    let mut w = with_plan(60_000);
    w.buy(1, PRICE);
    w.wait(60_000);
    w.open_with_pass(1);
    w.end();
}

#[test, expected_failure(abort_code = pass::EStillRunning)]
fun still_running() {
    let mut w = with_pass(1);
    destroy(&mut w);
    w.end();
}

#[test, expected_failure(abort_code = pass::EUnknownPass)]
fun unknown_pass() {
    let mut w = with_plan(PERIOD_MS);
    owner!(&mut w, |plan, _, cap, _, clock, ctx| {
        let nothing = object::id(cap);
        plan.draw(cap, vector[nothing], clock, ctx).burn_for_testing();
    });
    w.end();
}

#[test, expected_failure(abort_code = pass::EUnknownPass)]
fun unknown_pass_to_read() {
    let mut w = with_plan(PERIOD_MS);
    owner!(&mut w, |plan, _, cap, _, _, _| {
        plan.valid_until(object::id(cap));
    });
    w.end();
}

#[test, expected_failure(abort_code = pass::EUnknownPass)]
fun unknown_pass_has_no_holder() {
    let mut w = with_plan(PERIOD_MS);
    owner!(&mut w, |plan, _, cap, _, _, _| {
        plan.holder(object::id(cap));
    });
    w.end();
}

#[test, expected_failure(abort_code = channel::ETermsChanged)]
fun changed_terms_stop_an_opening_under_a_pass() {
    let mut w = with_pass(2);
    w.open_with_pass(2);
    w.end();
}

#[test, expected_failure(abort_code = host::ENotFresh)]
fun a_dead_host_stops_an_opening_under_a_pass() {
    let mut w = with_pass(2);
    w.wait(60_001);
    w.open_with_pass(1);
    w.end();
}

#[test, expected_failure(abort_code = channel::EOverPrice)]
fun a_receipt_asks_for_no_money() {
    let mut w = pass_channel();
    w.claim(signed::priced_receipt());
    w.end();
}

#[test, expected_failure(abort_code = channel::EUnderPass)]
fun under_pass() {
    let mut w = pass_channel();
    let more = w.mint(1);
    w.as_client();
    world::channel!(&mut w, |channel, _, ctx| channel.top_up(more, ctx));
    w.end();
}

// === Who may not come in ===

fun set_mode(w: &mut World, mode: u8) {
    world::host!(w, |host, _, cap, _, _, _| host.set_mode(cap, 1, mode));
}

fun deny_client(w: &mut World) {
    world::host!(w, |host, _, _, operator, _, _| host.deny(operator, vector[signed::client()]));
}

fun undeny_client(w: &mut World) {
    world::host!(w, |host, _, _, operator, _, _| host.undeny(operator, vector[signed::client()]));
}

fun cancel_refused(w: &mut World): u64 {
    w.as_client();
    let (s, clock) = w.parts();
    let mut plan = s.take_shared<Plan<SUI>>();
    let host = s.take_shared<Host>();
    let pass = s.take_from_sender<Pass>();
    let back = plan.cancel_refused(&host, &pass, clock, s.ctx());
    s.return_to_sender(pass);
    ts::return_shared(plan);
    ts::return_shared(host);
    back.burn_for_testing()
}

#[test, expected_failure(abort_code = host::ENotAllowed)]
fun an_allow_list_sells_no_passes_to_those_not_on_it() {
    let mut w = with_plan(PERIOD_MS);
    set_mode(&mut w, 1);
    w.as_client();
    w.buy(1, PRICE);
    w.end();
}

#[test, expected_failure(abort_code = host::ENotAllowed)]
fun an_allow_list_renews_no_passes_of_those_not_on_it() {
    let mut w = with_pass(1);
    set_mode(&mut w, 1);
    w.renew(1);
    w.end();
}

#[test]
fun an_allow_list_sells_passes_to_those_on_it() {
    let mut w = with_plan(PERIOD_MS);
    set_mode(&mut w, 1);
    world::host!(&mut w, |host, _, _, operator, _, _| {
        host.allow(operator, vector[signed::client()]);
    });
    w.as_client();
    w.buy(1, PRICE);
    assert!(w.is_valid());
    w.end();
}

#[test]
fun the_denied_get_the_running_period_back_too() {
    let mut w = with_pass(4);
    w.wait(PERIOD_MS + PERIOD_MS / 2);
    deny_client(&mut w);
    // The first period was used, and the host draws it.
    assert!(cancel_refused(&mut w) == 3 * PRICE);
    assert!(!w.is_valid() && cancel_refused(&mut w) == 0);
    assert!(w.draw() == PRICE && w.pot() == 0);
    // Let in again, the holder renews the same pass.
    undeny_client(&mut w);
    w.renew(2);
    assert!(w.is_valid() && w.pot() == 2 * PRICE);
    w.wait(2 * PERIOD_MS);
    assert!(w.draw() == 2 * PRICE && w.pot() == 0);
    w.end();
}

#[test]
fun those_taken_off_an_allow_list_get_the_running_period_back_too() {
    let mut w = with_pass(2);
    set_mode(&mut w, 1);
    assert!(cancel_refused(&mut w) == 2 * PRICE && w.pot() == 0);
    w.end();
}

#[test]
fun who_has_a_pass_of_a_removed_service_gets_the_running_period_back_too() {
    let mut w = with_pass(2);
    world::host!(&mut w, |host, _, cap, _, _, _| host.remove_service(cap, 1));
    assert!(cancel_refused(&mut w) == 2 * PRICE && w.pot() == 0);
    w.end();
}

#[test, expected_failure(abort_code = pass::ENotRefused)]
fun not_refused() {
    let mut w = with_pass(2);
    cancel_refused(&mut w);
    w.end();
}

#[test, expected_failure(abort_code = pass::ENotRefused)]
fun not_refused_while_the_service_is_closed() {
    let mut w = with_pass(2);
    world::host!(&mut w, |host, _, cap, _, _, _| host.set_open(cap, 1, false));
    cancel_refused(&mut w);
    w.end();
}

#[test, expected_failure(abort_code = pass::ERevoked)]
fun revoked_and_refused() {
    let mut w = with_pass(2);
    deny_client(&mut w);
    w.revoke();
    cancel_refused(&mut w);
    w.end();
}

#[test, expected_failure(abort_code = pass::EForeignHost)]
fun foreign_host_refuses_nobody() {
    let mut w = with_pass(1);
    let (other, beacon, cap) = second(&mut w);
    w.as_client();
    let (s, clock) = w.parts();
    let mut plan = s.take_shared<Plan<SUI>>();
    let pass = s.take_from_sender<Pass>();
    plan.cancel_refused(&other, &pass, clock, s.ctx()).burn_for_testing();
    s.return_to_sender(pass);
    ts::return_shared(plan);
    other.destroy(beacon, &cap);
    cap.destroy_cap();
    w.end();
}

/// Each coin is accounted for, whenever the holder is denied and let in again, and whatever it does between.
fun denied_history(halves: u64, draws: bool, cancels: bool, renews: bool) {
    let mut w = with_pass(4);
    let mut paid = 4 * PRICE;
    let mut out = 0;
    w.wait(halves * PERIOD_MS / 2);
    if (draws) out = out + w.draw();
    if (cancels) out = out + w.cancel();
    deny_client(&mut w);
    out = out + cancel_refused(&mut w);
    assert!(paid == out + w.pot());
    w.wait(PERIOD_MS);
    undeny_client(&mut w);
    if (renews) {
        w.renew(3);
        paid = paid + 3 * PRICE;
    };
    w.wait(PERIOD_MS);
    deny_client(&mut w);
    out = out + cancel_refused(&mut w);
    w.wait(20 * PERIOD_MS);
    out = out + w.draw();
    assert!(w.pot() == 0 && paid == out);
    w.end();
}

#[test]
fun paid_is_drawn_and_refunded_when_the_holder_is_denied() {
    denied_history(3, false, false, false);
}

#[test]
fun paid_is_drawn_and_refunded_when_denied_after_a_draw_and_renewed() {
    denied_history(5, true, false, true);
}

#[test]
fun paid_is_drawn_and_refunded_when_denied_after_a_cancel_and_renewed() {
    denied_history(2, true, true, true);
}

#[test]
fun paid_is_drawn_and_refunded_when_denied_after_a_lapse() {
    denied_history(9, false, false, true);
}

#[test]
fun paid_is_drawn_and_refunded_when_denied_at_once() { denied_history(0, false, true, false); }

// === The end of a plan ===

fun forget(w: &mut World) {
    let passes = ts::ids_for_address<Pass>(signed::client());
    owner!(w, |plan, _, cap, _, clock, ctx| {
        if (plan.is_on_sale()) plan.set_on_sale(cap, false);
        plan.forget(cap, passes, clock, ctx);
    });
}

#[test]
fun a_kept_pass_does_not_keep_a_plan() {
    let mut w = with_pass(3);
    w.wait(PERIOD_MS);
    w.revoke();
    assert!(w.receive(signed::client()) == 2 * PRICE);
    forget(&mut w);
    assert!(event::events_by_type<pass::SaleChanged>().length() == 1);
    assert!(retire(&mut w) == PRICE);
    // Its plan is gone; the holder can still throw the pass away.
    w.as_client();
    let (s, _) = w.parts();
    s.take_from_sender<Pass>().discard();
    w.as_client();
    assert!(ts::ids_for_address<Pass>(signed::client()).is_empty());
    w.end();
}

#[test]
fun a_pass_that_was_forgotten_can_be_destroyed() {
    let mut w = with_pass(1);
    w.wait(PERIOD_MS);
    forget(&mut w);
    assert!(!w.is_valid());
    destroy(&mut w);
    w.as_client();
    assert!(ts::ids_for_address<Pass>(signed::client()).is_empty());
    assert!(retire(&mut w) == PRICE);
    w.end();
}

#[test, expected_failure(abort_code = pass::EUnknownPass)]
fun a_pass_that_was_forgotten_opens_nothing() {
    let mut w = with_pass(1);
    w.wait(PERIOD_MS);
    forget(&mut w);
    w.open_with_pass(1);
    w.end();
}

#[test, expected_failure(abort_code = pass::EOnSale)]
fun on_sale() {
    let mut w = with_pass(1);
    w.wait(PERIOD_MS);
    owner!(&mut w, |plan, _, cap, _, clock, ctx| plan.forget(cap, vector[], clock, ctx));
    w.end();
}

#[test, expected_failure(abort_code = pass::EStillRunning)]
fun still_running_and_not_forgotten() {
    let mut w = with_pass(1);
    w.wait(PERIOD_MS - 1);
    forget(&mut w);
    w.end();
}

#[test, expected_failure(abort_code = pass::EWrongCap)]
fun wrong_cap_to_forget() {
    let mut w = with_pass(1);
    let (other, beacon, cap) = second(&mut w);
    owner!(&mut w, |plan, _, _, _, clock, ctx| plan.forget(&cap, vector[], clock, ctx));
    other.destroy(beacon, &cap);
    cap.destroy_cap();
    w.end();
}

// === Versions ===

#[test]
fun an_owner_migrates_a_plan_of_an_older_version() {
    let mut w = with_pass(2);
    owner!(&mut w, |plan, _, cap, _, _, _| {
        plan.set_version_for_testing(0);
        plan.migrate(cap);
    });
    assert!(event::events_by_type<pass::PlanMigrated>().length() == 1);
    assert!(w.cancel() == PRICE);
    w.end();
}

#[test, expected_failure(abort_code = pass::EUpToDate)]
fun up_to_date() {
    let mut w = with_plan(PERIOD_MS);
    owner!(&mut w, |plan, _, cap, _, _, _| plan.migrate(cap));
    w.end();
}

#[test, expected_failure(abort_code = pass::EWrongCap)]
fun wrong_cap_to_migrate() {
    let mut w = with_plan(PERIOD_MS);
    let (other, beacon, cap) = second(&mut w);
    owner!(&mut w, |plan, _, _, _, _, _| {
        plan.set_version_for_testing(0);
        plan.migrate(&cap);
    });
    other.destroy(beacon, &cap);
    cap.destroy_cap();
    w.end();
}
