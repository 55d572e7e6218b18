#[test_only]
module transport::pass_refusals;

use sui::{sui::SUI, test_scenario as ts};
use transport::{
    channel,
    host,
    pass::{Self, Pass, Plan},
    pass_world::{destroy, owner, pass_channel, second, with_pass, with_plan},
    signed,
    world::{Self, World}
};

use fun transport::pass_world::buy as World.buy;
use fun transport::pass_world::renew as World.renew;
use fun transport::pass_world::cancel as World.cancel;
use fun transport::pass_world::draw as World.draw;
use fun transport::pass_world::revoke as World.revoke;
use fun transport::pass_world::open_channel as World.open_with_pass;

const PERIOD_MS: u64 = 100_000;

const PRICE: u64 = 30;

#[test, expected_failure(abort_code = pass::EWrongVersion)]
fun wrong_version() {
    let mut w = with_plan(PERIOD_MS);
    owner!(&mut w, |plan, _, cap, _, _, _| {
        plan.set_version_for_testing(2);
        plan.set_on_sale(cap, false);
    });
    w.end();
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
