#[test_only]
module transport::pass_denials;

use sui::{event, sui::SUI, test_scenario as ts};
use transport::{
    host::{Self, Host},
    pass::{Self, Pass, Plan},
    pass_world::{destroy, owner, retire, second, with_pass, with_plan},
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

const PERIOD_MS: u64 = 100_000;

const PRICE: u64 = 30;

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
