/// Subscriptions: a plan sells periods of a service, a pass is the right to use them.
///
/// The price of a plan never changes (close it and make another), so what a subscriber paid for is fixed at purchase.
/// Money waits in the plan's pot: the owner draws a period's price only after the period has elapsed, the
/// subscriber gets periods that have not started back at any time, and when the host revokes a pass or refuses its
/// holder the running period comes back too. At all times: paid = drawn + refunded + pot.
module transport::pass;

use std::type_name::{Self, TypeName};
use sui::{balance::{Self, Balance}, clock::Clock, coin::{Self, Coin}, event, table::{Self, Table}};
use transport::host::{Host, HostCap, OpCap};

// === Constants ===

const VERSION: u16 = 1;

/// Periods that a pass may have ahead of it; also bounds the price, so that no product overflows.
const MAX_PERIODS: u64 = 1_000;
/// Bounds of a period in ms: one minute to one year of 366 days. 0 stands for the epoch.
const MIN_PERIOD_MS: u64 = 60_000;
const MAX_PERIOD_MS: u64 = 31_622_400_000;
/// Largest price of a period: 2^64 - 1 over `MAX_PERIODS`.
const MAX_PRICE: u64 = 18_446_744_073_709_551;

// === Errors ===

#[error(code = 0)]
const EWrongVersion: vector<u8> =
    b"object is of another version: call the package's newest release";
#[error(code = 1)]
const EWrongCap: vector<u8> = b"this cap belongs to another host";
#[error(code = 2)]
const EForeignHost: vector<u8> = b"the plan belongs to another host";
#[error(code = 3)]
const EForeignPass: vector<u8> = b"the pass belongs to another plan";
#[error(code = 4)]
const EBadPeriod: vector<u8> = b"a period is 0 (epoch) or between one minute and 366 days";
#[error(code = 5)]
const EPriceTooHigh: vector<u8> = b"the price of a period is at most (2^64 - 1) / 1000";
#[error(code = 6)]
const ENotOnSale: vector<u8> = b"the plan is not on sale";
#[error(code = 7)]
const ENoPeriods: vector<u8> = b"buy at least one period";
#[error(code = 8)]
const ETooManyPeriods: vector<u8> = b"a pass has at most 1000 periods ahead of it";
#[error(code = 9)]
const EWrongPayment: vector<u8> = b"pay the price of a period times the periods, exactly";
#[error(code = 10)]
const ERevoked: vector<u8> = b"the host revoked this pass";
#[error(code = 11)]
const ELapsed: vector<u8> = b"the pass has no period left: renew it";
#[error(code = 12)]
const EStillRunning: vector<u8> =
    b"the pass still has periods: cancel it and wait for the end of this one";
#[error(code = 13)]
const EUnknownPass: vector<u8> = b"the plan knows no such pass";
#[error(code = 14)]
const EPassesLeft: vector<u8> = b"the plan still has passes: forget those that are over first";
#[error(code = 15)]
const EOnSale: vector<u8> = b"the plan is on sale: stop selling first";
#[error(code = 16)]
const ENotRefused: vector<u8> =
    b"the host lets the holder in: cancel gives back what has not started";
#[error(code = 17)]
const EUpToDate: vector<u8> = b"the object is of this version already";

// === Types ===

/// A plan: periods of one service at a fixed price. Shared.
public struct Plan<phantom T> has key {
    id: UID,
    version: u16,
    host: ID,
    service: u16,
    /// False once the owner stops selling; passes that exist stay good.
    on_sale: bool,
    price: u64,
    /// Length of a period in ms, or 0 for one epoch.
    period_ms: u64,
    /// Requests per period that the server owes; 0 is no limit. Enforced off-chain, where requests are counted.
    quota_requests: u64,
    /// Bytes per period that the server owes; 0 is no limit.
    quota_bytes: u64,
    /// What was paid and neither drawn nor refunded.
    pot: Balance<T>,
    /// The part of the pot that is earned whatever happens: periods of passes that were renewed after a lapse or
    /// thrown away.
    earned: u64,
    accounts: Table<ID, Account>,
}

/// What the plan knows of one pass.
public struct Account has copy, drop, store {
    holder: address,
    /// When period 0 began: ms, or epoch number.
    start: u64,
    /// Periods bought, counted from `start`.
    periods: u64,
    /// Periods that the owner has drawn.
    drawn: u64,
    revoked: bool,
}

/// The subscriber's side. Owned, and not transferable: it has no `store`.
public struct Pass has key {
    id: UID,
    plan: ID,
    host: ID,
    service: u16,
}

// === Events ===

/// A plan was created.
public struct PlanCreated has copy, drop {
    plan: ID,
    host: ID,
    service: u16,
    price: u64,
    period_ms: u64,
    coin: TypeName,
}

/// A plan's selling was stopped or resumed.
public struct SaleChanged has copy, drop {
    plan: ID,
    on_sale: bool,
}

/// Periods were bought: with a new pass, or added to one. `until` is the end of the last period, in ms or epochs.
public struct PassPaid has copy, drop {
    plan: ID,
    pass: ID,
    holder: address,
    periods: u64,
    until: u64,
    amount: u64,
    coin: TypeName,
}

/// Periods came back to the holder: by its own cancel, because the host refuses it, or (`revoked`) because the host
/// revoked the pass.
public struct PassRefunded has copy, drop {
    plan: ID,
    pass: ID,
    periods: u64,
    revoked: bool,
    amount: u64,
    coin: TypeName,
}

/// The owner drew elapsed periods.
public struct PlanDrawn has copy, drop {
    plan: ID,
    amount: u64,
    coin: TypeName,
}

/// The plan was moved to another version of the package.
public struct PlanMigrated has copy, drop {
    plan: ID,
    from: u16,
    to: u16,
}

// === The owner ===

/// A plan for a service of the cap's host, on sale at once. Share it with `share`.
public fun new_plan<T>(
    host: &Host,
    cap: &HostCap,
    service: u16,
    price: u64,
    period_ms: u64,
    quota_requests: u64,
    quota_bytes: u64,
    ctx: &mut TxContext,
): Plan<T> {
    host.assert_owner(cap);
    let _ = host.service(service);
    assert!(
        period_ms == 0 || (period_ms >= MIN_PERIOD_MS && period_ms <= MAX_PERIOD_MS),
        EBadPeriod,
    );
    assert!(price <= MAX_PRICE, EPriceTooHigh);
    let plan = Plan<T> {
        id: object::new(ctx),
        version: VERSION,
        host: object::id(host),
        service,
        on_sale: true,
        price,
        period_ms,
        quota_requests,
        quota_bytes,
        pot: balance::zero(),
        earned: 0,
        accounts: table::new(ctx),
    };
    event::emit(PlanCreated {
        plan: object::id(&plan),
        host: plan.host,
        service,
        price,
        period_ms,
        coin: type_name::with_defining_ids<T>(),
    });
    plan
}

/// Share a new plan.
public fun share<T>(plan: Plan<T>) { transfer::share_object(plan) }

/// Stop or resume selling. Passes that exist stay good; only buying and renewing stop.
public fun set_on_sale<T>(plan: &mut Plan<T>, cap: &HostCap, on_sale: bool) {
    plan.assert_plan_owner(cap);
    plan.on_sale = on_sale;
    event::emit(SaleChanged { plan: object::id(plan), on_sale });
}

/// Move a plan to this version of the package: older ones refuse it from then on.
public fun migrate<T>(plan: &mut Plan<T>, cap: &HostCap) {
    assert!(plan.host == cap.cap_host(), EWrongCap);
    assert!(plan.version < VERSION, EUpToDate);
    event::emit(PlanMigrated { plan: object::id(plan), from: plan.version, to: VERSION });
    plan.version = VERSION;
}

/// Draw the elapsed periods of these passes, and what is earned for good.
public fun draw<T>(
    plan: &mut Plan<T>,
    cap: &HostCap,
    passes: vector<ID>,
    clock: &Clock,
    ctx: &mut TxContext,
): Coin<T> {
    plan.assert_plan_owner(cap);
    let mut amount = plan.earned;
    plan.earned = 0;
    let mut i = 0;
    while (i < passes.length()) {
        let elapsed = plan.elapsed(passes[i], clock, ctx);
        let price = plan.price;
        let account = plan.accounts.borrow_mut(passes[i]);
        amount = amount + (elapsed - account.drawn) * price;
        account.drawn = elapsed;
        i = i + 1;
    };
    event::emit(PlanDrawn {
        plan: object::id(plan),
        amount,
        coin: type_name::with_defining_ids<T>(),
    });
    coin::from_balance(plan.pot.split(amount), ctx)
}

/// Forget passes that are over, lapsed or revoked, of a plan that isn't on sale: a holder that keeps its pass keeps the
/// plan from `retire` no longer. What they earned stays earned.
public fun forget<T>(
    plan: &mut Plan<T>,
    cap: &HostCap,
    passes: vector<ID>,
    clock: &Clock,
    ctx: &mut TxContext,
) {
    plan.assert_plan_owner(cap);
    // While it is on sale a lapsed pass can be renewed.
    assert!(!plan.on_sale, EOnSale);
    let mut i = 0;
    while (i < passes.length()) {
        plan.close_account(passes[i], clock, ctx);
        i = i + 1;
    };
}

/// Delete a plan all of whose passes were destroyed or forgotten; returns what was earned and not drawn.
public fun retire<T>(plan: Plan<T>, cap: &HostCap, ctx: &mut TxContext): Coin<T> {
    plan.assert_plan_owner(cap);
    assert!(plan.accounts.is_empty(), EPassesLeft);
    let Plan { id, pot, accounts, .. } = plan;
    id.delete();
    accounts.destroy_empty();
    coin::from_balance(pot, ctx)
}

/// Revoke a pass: it opens nothing any more, and every period that hasn't elapsed, the running one included, is
/// paid back to its holder. Operator with the passes right.
public fun revoke<T>(
    plan: &mut Plan<T>,
    host: &Host,
    cap: &OpCap,
    pass: ID,
    clock: &Clock,
    ctx: &mut TxContext,
) {
    plan.assert_version();
    assert!(plan.host == object::id(host), EForeignHost);
    host.assert_pass_operator(cap);
    plan.end_pass(pass, clock, ctx);
}

/// Revoke a pass as the owner, also of a host that is deleted: a pass that was thrown away with periods ahead of it
/// would keep the plan from `retire` until they are over.
public fun revoke_as_owner<T>(
    plan: &mut Plan<T>,
    cap: &HostCap,
    pass: ID,
    clock: &Clock,
    ctx: &mut TxContext,
) {
    plan.assert_plan_owner(cap);
    plan.end_pass(pass, clock, ctx);
}

// === The subscriber ===

/// Buy periods, the first of which starts now. Keep the pass with `keep`.
public fun buy<T>(
    plan: &mut Plan<T>,
    host: &Host,
    payment: Coin<T>,
    periods: u64,
    clock: &Clock,
    ctx: &mut TxContext,
): Pass {
    plan.assert_sale(host, ctx);
    plan.take_payment(payment, periods);
    let pass = Pass {
        id: object::new(ctx),
        plan: object::id(plan),
        host: plan.host,
        service: plan.service,
    };
    let start = plan.now(clock, ctx);
    plan
        .accounts
        .add(
            object::id(&pass),
            Account { holder: ctx.sender(), start, periods, drawn: 0, revoked: false },
        );
    plan.emit_paid(object::id(&pass), periods);
    pass
}

/// Send a new pass to the sender.
public fun keep(pass: Pass, ctx: &mut TxContext) { transfer::transfer(pass, ctx.sender()) }

/// Add periods: to the end of those that are left, or from now when none is.
public fun renew<T>(
    plan: &mut Plan<T>,
    host: &Host,
    pass: &Pass,
    payment: Coin<T>,
    periods: u64,
    clock: &Clock,
    ctx: &mut TxContext,
) {
    plan.assert_sale(host, ctx);
    let id = plan.assert_pass(pass);
    let elapsed = plan.elapsed(id, clock, ctx);
    let now = plan.now(clock, ctx);
    plan.take_payment(payment, periods);
    let price = plan.price;
    let account = plan.accounts.borrow_mut(id);
    assert!(!account.revoked, ERevoked);
    if (elapsed == account.periods) {
        plan.earned = plan.earned + (elapsed - account.drawn) * price;
        account.start = now;
        account.periods = periods;
        account.drawn = 0;
    } else {
        assert!(account.periods - elapsed + periods <= MAX_PERIODS, ETooManyPeriods);
        account.periods = account.periods + periods;
    };
    plan.emit_paid(id, periods);
}

/// Give back the periods that haven't started, for their price. The running period stays good, and paid for.
public fun cancel<T>(plan: &mut Plan<T>, pass: &Pass, clock: &Clock, ctx: &mut TxContext): Coin<T> {
    plan.assert_version();
    let id = plan.assert_pass(pass);
    let elapsed = plan.elapsed(id, clock, ctx);
    let account = plan.accounts.borrow(id);
    assert!(!account.revoked, ERevoked);
    let kept = if (elapsed < account.periods) elapsed + 1 else elapsed;
    plan.give_back(id, kept, false, ctx)
}

/// Give back all periods that haven't elapsed, the running one included, while the host refuses the holder: the service
/// was removed, or the holder is on the deny-list or not on its allow-list. The pass can be renewed when the host lets
/// the holder in again.
public fun cancel_refused<T>(
    plan: &mut Plan<T>,
    host: &Host,
    pass: &Pass,
    clock: &Clock,
    ctx: &mut TxContext,
): Coin<T> {
    plan.assert_version();
    assert!(plan.host == object::id(host), EForeignHost);
    let id = plan.assert_pass(pass);
    let elapsed = plan.elapsed(id, clock, ctx);
    let account = plan.accounts.borrow(id);
    assert!(!account.revoked, ERevoked);
    assert!(host.refuses(plan.service, account.holder), ENotRefused);
    plan.give_back(id, elapsed, false, ctx)
}

/// Throw away a pass that is over, or that the plan has forgotten; its storage deposit comes back.
public fun destroy<T>(plan: &mut Plan<T>, pass: Pass, clock: &Clock, ctx: &mut TxContext) {
    plan.assert_version();
    let id = plan.assert_pass(&pass);
    if (plan.accounts.contains(id)) plan.close_account(id, clock, ctx);
    pass.discard();
}

/// Throw away a pass without its plan, for when that was retired. What it has ahead of it is not paid back.
public fun discard(pass: Pass) {
    let Pass { id, .. } = pass;
    id.delete();
}

// === Reading ===

/// True when the pass is good now: known, not revoked, and with a period left.
#[allow(lint(prefer_mut_tx_context))]
public fun is_valid<T>(plan: &Plan<T>, pass: ID, clock: &Clock, ctx: &TxContext): bool {
    if (!plan.accounts.contains(pass)) return false;
    let account = plan.accounts.borrow(pass);
    !account.revoked && plan.elapsed(pass, clock, ctx) < account.periods
}

/// End of the last period of a pass: in ms, or the first epoch that it isn't good for.
public fun valid_until<T>(plan: &Plan<T>, pass: ID): u64 {
    assert!(plan.accounts.contains(pass), EUnknownPass);
    let account = plan.accounts.borrow(pass);
    account.start + account.periods * plan.period_length()
}

/// Who holds a pass.
public fun holder<T>(plan: &Plan<T>, pass: ID): address {
    assert!(plan.accounts.contains(pass), EUnknownPass);
    plan.accounts.borrow(pass).holder
}

/// The host that the plan belongs to.
public fun plan_host<T>(plan: &Plan<T>): ID { plan.host }

/// The service that the plan is for.
public fun plan_service<T>(plan: &Plan<T>): u16 { plan.service }

/// True while the plan is on sale.
public fun is_on_sale<T>(plan: &Plan<T>): bool { plan.on_sale }

/// Price of a period.
public fun price<T>(plan: &Plan<T>): u64 { plan.price }

/// Length of a period in ms; 0 is an epoch.
public fun period_ms<T>(plan: &Plan<T>): u64 { plan.period_ms }

/// Requests and bytes per period; 0 is no limit.
public fun quotas<T>(plan: &Plan<T>): (u64, u64) { (plan.quota_requests, plan.quota_bytes) }

/// What was paid and neither drawn nor refunded.
public fun pot<T>(plan: &Plan<T>): u64 { plan.pot.value() }

/// The plan of a pass.
public fun pass_plan(pass: &Pass): ID { pass.plan }

/// The host of a pass.
public fun pass_host(pass: &Pass): ID { pass.host }

/// The service of a pass.
public fun pass_service(pass: &Pass): u16 { pass.service }

// === For the other modules of this package ===

/// Abort unless the pass is of this plan, the plan of this host, and good now.
public(package) fun assert_good<T>(
    plan: &Plan<T>,
    pass: &Pass,
    host: ID,
    clock: &Clock,
    ctx: &TxContext,
) {
    plan.assert_version();
    assert!(plan.host == host, EForeignHost);
    let id = plan.assert_pass(pass);
    let elapsed = plan.elapsed(id, clock, ctx);
    let account = plan.accounts.borrow(id);
    assert!(!account.revoked, ERevoked);
    assert!(elapsed < account.periods, ELapsed);
}

// === Private ===

fun assert_version<T>(plan: &Plan<T>) {
    assert!(plan.version == VERSION, EWrongVersion);
}

fun assert_plan_owner<T>(plan: &Plan<T>, cap: &HostCap) {
    plan.assert_version();
    assert!(plan.host == cap.cap_host(), EWrongCap);
}

fun assert_sale<T>(plan: &Plan<T>, host: &Host, ctx: &TxContext) {
    plan.assert_version();
    assert!(plan.host == object::id(host), EForeignHost);
    assert!(plan.on_sale, ENotOnSale);
    // Nobody pays for a service that is closed, or closed to the payer.
    let _ = host.admissible(plan.service, ctx.sender());
}

fun assert_pass<T>(plan: &Plan<T>, pass: &Pass): ID {
    assert!(pass.plan == object::id(plan), EForeignPass);
    object::id(pass)
}

/// Periods are counted in ms, or in epochs when `period_ms` is 0.
fun now<T>(plan: &Plan<T>, clock: &Clock, ctx: &TxContext): u64 {
    if (plan.period_ms == 0) ctx.epoch() else clock.timestamp_ms()
}

fun period_length<T>(plan: &Plan<T>): u64 {
    if (plan.period_ms == 0) 1 else plan.period_ms
}

/// Periods of a pass that are over, never more than it has.
fun elapsed<T>(plan: &Plan<T>, pass: ID, clock: &Clock, ctx: &TxContext): u64 {
    assert!(plan.accounts.contains(pass), EUnknownPass);
    let account = plan.accounts.borrow(pass);
    let elapsed = (plan.now(clock, ctx) - account.start) / plan.period_length();
    if (elapsed < account.periods) elapsed else account.periods
}

fun take_payment<T>(plan: &mut Plan<T>, payment: Coin<T>, periods: u64) {
    assert!(periods > 0, ENoPeriods);
    assert!(periods <= MAX_PERIODS, ETooManyPeriods);
    assert!(payment.value() == plan.price * periods, EWrongPayment);
    plan.pot.join(payment.into_balance());
}

/// Revoke a pass, and pay its holder back what hasn't elapsed.
fun end_pass<T>(plan: &mut Plan<T>, pass: ID, clock: &Clock, ctx: &mut TxContext) {
    let elapsed = plan.elapsed(pass, clock, ctx);
    let account = plan.accounts.borrow_mut(pass);
    assert!(!account.revoked, ERevoked);
    account.revoked = true;
    let holder = account.holder;
    let back = plan.give_back(pass, elapsed, true, ctx);
    // The holder isn't the sender, so the refund can't be a return value: it goes to the address on record.
    if (back.value() > 0) transfer::public_transfer(back, holder) else back.destroy_zero();
}

/// Cut the pass down to `kept` periods and pay the others out.
fun give_back<T>(
    plan: &mut Plan<T>,
    pass: ID,
    kept: u64,
    revoked: bool,
    ctx: &mut TxContext,
): Coin<T> {
    let account = plan.accounts.borrow_mut(pass);
    let periods = account.periods - kept;
    account.periods = kept;
    let amount = periods * plan.price;
    let coin = type_name::with_defining_ids<T>();
    event::emit(PassRefunded { plan: object::id(plan), pass, periods, revoked, amount, coin });
    coin::from_balance(plan.pot.split(amount), ctx)
}

/// Remove what the plan knows of a pass that is over; what it earned stays earned.
fun close_account<T>(plan: &mut Plan<T>, pass: ID, clock: &Clock, ctx: &TxContext) {
    let elapsed = plan.elapsed(pass, clock, ctx);
    let account = plan.accounts.remove(pass);
    assert!(elapsed == account.periods, EStillRunning);
    plan.earned = plan.earned + (elapsed - account.drawn) * plan.price;
}

fun emit_paid<T>(plan: &Plan<T>, pass: ID, periods: u64) {
    event::emit(PassPaid {
        plan: object::id(plan),
        pass,
        holder: plan.accounts.borrow(pass).holder,
        periods,
        until: plan.valid_until(pass),
        amount: periods * plan.price,
        coin: type_name::with_defining_ids<T>(),
    });
}

// === Tests ===

#[test_only]
public fun set_version_for_testing<T>(plan: &mut Plan<T>, version: u16) { plan.version = version }
