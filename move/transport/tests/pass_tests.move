#[test_only]
module transport::pass_tests;

use sui::{sui::SUI, test_scenario as ts};
use transport::{
    host::{Self, Beacon, Host, HostCap},
    pass::{Self, Pass, Plan},
    pass_world::{destroy, owner, pass_channel, retire, second, with_pass, with_plan},
    signed,
    world::{Self, World}
};

use fun transport::pass_world::buy as World.buy;
use fun transport::pass_world::renew as World.renew;
use fun transport::pass_world::cancel as World.cancel;
use fun transport::pass_world::draw as World.draw;
use fun transport::pass_world::revoke as World.revoke;
use fun transport::pass_world::is_valid as World.is_valid;
use fun transport::pass_world::pot as World.pot;
use fun transport::pass_world::open_channel as World.open_with_pass;

public struct OTHER has drop {}

const PERIOD_MS: u64 = 100_000;

const PRICE: u64 = 30;

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
