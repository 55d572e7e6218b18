/// Metered escrow: a deposit that a server is paid from, by vouchers that the client signs off-chain.
///
/// A channel costs two transactions in a connection's whole life: open and close. In between the client signs
/// cumulative vouchers with the key of a lane (one lane for each device or connection), and the server claims the newest
/// ones when it is worth the gas. At all times: claimed + credited + refunded + held = deposited.
///
/// Who is paid is fixed when the channel opens, so claims, finalizing and the close of an idle channel may be submitted
/// by anyone: a watcher needs no right. Of a lane's vouchers the one for most counts: replaying or reordering gains nothing.
module transport::channel;

use std::{bcs, hash, type_name::{Self, TypeName}};
use sui::{
    address,
    balance::{Self, Balance},
    clock::Clock,
    coin::{Self, Coin},
    ed25519,
    event,
    hash as sui_hash
};
use transport::{host::{Self, Host, Beacon, Terms}, pass::{Plan, Pass}};

// === Constants ===

const VERSION: u16 = 1;

/// Lanes of one channel.
const MAX_LANES: u64 = 16;
/// Pipes of one channel in one direction.
const MAX_PIPES: u64 = 16;
/// Length of a hash lock and of its preimage.
const HASH_BYTES: u64 = 32;
/// A MiB is two to this power: prices are per MiB.
const MIB_SHIFT: u8 = 20;
/// What `credit` is for: 16 KiB of frames.
const CREDIT_BYTES: u64 = 16_384;

/// Domain of a voucher's signature.
const VOUCHER_DOMAIN: vector<u8> = b"dtp.voucher.v1";
/// Domain of an agreed close's signature.
const CLOSE_DOMAIN: vector<u8> = b"dtp.close.v1";
/// Flag byte of Ed25519 in a Sui address.
const ED25519_FLAG: u8 = 0;

/// Metering; claims count.
const STATE_OPEN: u8 = 0;
/// A close was requested; claims count for `claim_ms`.
const STATE_CLOSING: u8 = 1;
/// The client has its refund; what is owed leaves by the epoch cap.
const STATE_DRAINING: u8 = 2;
/// Everything is paid out.
const STATE_CLOSED: u8 = 3;

/// Direction of a pipe: the client sends.
const TO_SERVER: u8 = 0;
/// Direction of a pipe: the server sends.
const TO_CLIENT: u8 = 1;

// === Errors ===

#[error(code = 0)]
const EWrongVersion: vector<u8> =
    b"object is of another version: call the package's newest release";
#[error(code = 1)]
const ETermsChanged: vector<u8> = b"the terms have another revision: read them again and decide";
#[error(code = 2)]
const EDepositTooSmall: vector<u8> = b"the deposit is below the service's minimum";
#[error(code = 3)]
const EBadKey: vector<u8> = b"an Ed25519 public key is 32 bytes";
#[error(code = 4)]
const ESelfChannel: vector<u8> = b"client and server are the same address";
#[error(code = 5)]
const ENotClient: vector<u8> = b"only the channel's client may do this";
#[error(code = 6)]
const ENotServer: vector<u8> = b"only the channel's server may do this";
#[error(code = 7)]
const ENotParty: vector<u8> = b"only the channel's client or server may do this";
#[error(code = 8)]
const EChannelClosed: vector<u8> = b"the channel is closed or closing";
#[error(code = 9)]
const EClaimWindowOver: vector<u8> = b"the time for claims after the requested close is over";
#[error(code = 10)]
const ENoLane: vector<u8> = b"the channel has no lane of that number";
#[error(code = 11)]
const ETooManyLanes: vector<u8> = b"a channel has at most 16 lanes";
#[error(code = 12)]
const ERotationPending: vector<u8> =
    b"the lane's previous key is still honoured: rotate again after that";
#[error(code = 13)]
const EForeignVoucher: vector<u8> = b"the voucher is for another channel";
#[error(code = 14)]
const EVoucherExpired: vector<u8> = b"the voucher's time is over";
#[error(code = 15)]
const EStaleVoucher: vector<u8> = b"the voucher is for nothing beyond what was already claimed";
#[error(code = 16)]
const EShrunkVoucher: vector<u8> = b"the voucher's amount is below what was already claimed";
#[error(code = 17)]
const EOverPrice: vector<u8> = b"the amount is above what the requests and bytes cost";
#[error(code = 18)]
const EBadHashLock: vector<u8> = b"a hash lock is 32 bytes";
#[error(code = 19)]
const EWrongPreimage: vector<u8> =
    b"the preimage is not the 32 bytes that the voucher's lock asks for";
#[error(code = 20)]
const EBadSignature: vector<u8> = b"the signature does not verify";
#[error(code = 21)]
const ENotClosing: vector<u8> = b"no close was requested";
#[error(code = 22)]
const ETooEarly: vector<u8> = b"the time for this has not come yet";
#[error(code = 23)]
const EAgreementExpired: vector<u8> = b"the agreement's time is over";
#[error(code = 24)]
const EWrongSigner: vector<u8> = b"the public key is not the other party's";
#[error(code = 25)]
const EAgreedTooLow: vector<u8> = b"the agreed total is below what was already claimed";
#[error(code = 26)]
const EAgreedTooHigh: vector<u8> = b"the agreed total is above what the channel holds";
#[error(code = 27)]
const ENotClosed: vector<u8> = b"the channel is not closed yet";
#[error(code = 28)]
const EUnderPass: vector<u8> = b"a channel under a pass holds no deposit";
#[error(code = 29)]
const ENotBorne: vector<u8> =
    b"by the terms the other side doesn't bear the cost of this direction";
#[error(code = 30)]
const ETooManyPipes: vector<u8> = b"a channel has at most 16 pipes in each direction";
#[error(code = 31)]
const ENoPipe: vector<u8> = b"the channel has no pipe of that index in this direction";
#[error(code = 32)]
const EStaleAck: vector<u8> = b"that frame or a later one was already acknowledged";
#[error(code = 33)]
const EWeakKey: vector<u8> =
    b"anyone can sign for this key: it is a point of small order, or not in its one encoding";
#[error(code = 34)]
const EUpToDate: vector<u8> = b"the object is of this version already";
#[error(code = 35)]
const EUnsentAck: vector<u8> = b"the pipe is closed, and has sent no frame of that number";

// === Types ===

/// A metered escrow between one client and one server. Shared.
public struct Channel<phantom T> has key {
    id: UID,
    version: u16,
    host: ID,
    service: u16,
    client: address,
    server: address,
    terms: Terms,
    /// The pass it was opened under.
    pass: Option<ID>,
    state: u8,
    /// What is held and not a credit of the client.
    balance: Balance<T>,
    /// Transport credits of the client, kept back from payments to the server.
    client_credit: Balance<T>,
    deposited: u64,
    /// Paid to the server for vouchers.
    claimed: u64,
    /// Given to either side for transport cost.
    credited: u64,
    /// Paid back to the client, its credits not counted.
    refunded: u64,
    /// Vouched and not yet paid, because of the epoch cap or because the deposit was too small.
    owed: u128,
    /// Transport credits that the client has earned and that the next payments to the server bear.
    credit_due: u128,
    /// Requests and bytes that the accepted vouchers count; bytes are the evidence for credits.
    requests: u128,
    bytes: u128,
    /// Bytes of frames credited so far, never more than the vouched `bytes`.
    credited_bytes: u128,
    /// The epoch that `epoch_spent` counts.
    epoch: u64,
    epoch_spent: u64,
    lanes: vector<Lane>,
    /// Newest acknowledged sequence of each pipe towards the server, and towards the client.
    acks_to_server: vector<u64>,
    acks_to_client: vector<u64>,
    /// Pipes that were closed, towards the server and towards the client: the next pipe takes the place of one of them.
    free_to_server: vector<ClosedPipe>,
    free_to_client: vector<ClosedPipe>,
    opened_ms: u64,
    /// Time of the last opening, claim or acknowledgement: what `idle_ms` counts from.
    active_ms: u64,
    /// When the close was requested; 0 before.
    closing_ms: u64,
}

/// A key that signs vouchers, with the most that was accepted from it. The counts are those of the server's own claims.
public struct Lane has copy, drop, store {
    key: vector<u8>,
    /// The key before the last rotation, or empty.
    old_key: vector<u8>,
    /// Until when the old key is honoured.
    old_until_ms: u64,
    sequence: u64,
    amount: u64,
    requests: u64,
    bytes: u64,
}

/// What is left of a pipe that was closed: its index, the number of its last frame, and how far it has used the rate.
public struct ClosedPipe has copy, drop, store {
    index: u8,
    sequence: u64,
    requests_tat: u128,
    bytes_tat: u128,
}

/// What a lane's key signs, in BCS, in this order of fields. All counts are cumulative for the lane.
public struct Voucher has copy, drop {
    domain: vector<u8>,
    channel: ID,
    lane: u8,
    sequence: u64,
    amount: u64,
    requests: u64,
    bytes: u64,
    hash_lock: Option<vector<u8>>,
    not_after_ms: u64,
}

/// What the other party signs for a close by agreement, in BCS, in this order of fields.
public struct Agreement has copy, drop {
    domain: vector<u8>,
    channel: ID,
    /// All that the server gets for vouchers over the channel's whole life.
    total: u64,
    not_after_ms: u64,
}

// === Events ===

/// A channel was opened.
public struct ChannelOpened has copy, drop {
    channel: ID,
    host: ID,
    service: u16,
    client: address,
    server: address,
    deposit: u64,
    revision: u64,
    pass: Option<ID>,
    coin: TypeName,
}

/// Money was added.
public struct ToppedUp has copy, drop {
    channel: ID,
    amount: u64,
    coin: TypeName,
}

/// A lane was added, or got another key.
public struct LaneChanged has copy, drop {
    channel: ID,
    lane: u8,
    key: vector<u8>,
}

/// A voucher was accepted. `preimage` is what its hash lock asked for, or empty: here the client finds it.
public struct Claimed has copy, drop {
    channel: ID,
    lane: u8,
    sequence: u64,
    amount: u64,
    paid: u64,
    preimage: vector<u8>,
    coin: TypeName,
}

/// What earlier claims left owed was paid to the server, outside of a claim.
public struct OwedPaid has copy, drop {
    channel: ID,
    amount: u64,
    coin: TypeName,
}

/// A close was requested, by the client or of an idle channel; claims count until `until_ms`.
public struct CloseRequested has copy, drop {
    channel: ID,
    until_ms: u64,
}

/// Money went out at or after the end of metering; `state` says whether anything is left.
public struct Settled has copy, drop {
    channel: ID,
    to_server: u64,
    to_client: u64,
    state: u8,
    coin: TypeName,
}

/// The channel was moved to another version of the package.
public struct ChannelMigrated has copy, drop {
    channel: ID,
    from: u16,
    to: u16,
}

// === Opening ===

/// Open a channel with a deposit. `revision` is that of the terms the client agreed to; `key` is the first lane's.
/// Refused when the service is closed, the sender is denied or not allowed, or no endpoint is alive. Share it
/// with `share`.
public fun open<T>(
    host: &Host,
    beacon: &Beacon,
    service: u16,
    revision: u64,
    deposit: Coin<T>,
    key: vector<u8>,
    clock: &Clock,
    ctx: &mut TxContext,
): Channel<T> {
    let terms = host.admit(beacon, service, ctx.sender(), false, clock);
    terms.assert_coin<T>();
    assert!(deposit.value() >= terms.min_deposit(), EDepositTooSmall);
    assert!(terms.revision() == revision, ETermsChanged);
    new_channel(host, service, terms, deposit.into_balance(), option::none(), key, clock, ctx)
}

/// Open a channel without a deposit, under a valid pass of the sender. Its vouchers are receipts: they cost nothing.
public fun open_with_pass<T>(
    host: &Host,
    beacon: &Beacon,
    plan: &Plan<T>,
    pass: &Pass,
    revision: u64,
    key: vector<u8>,
    clock: &Clock,
    ctx: &mut TxContext,
): Channel<T> {
    let service = pass.pass_service();
    plan.assert_good(pass, object::id(host), clock, ctx);
    let terms = host.admit(beacon, service, ctx.sender(), true, clock);
    assert!(terms.revision() == revision, ETermsChanged);
    let under = option::some(object::id(pass));
    new_channel(host, service, terms.free<T>(), balance::zero(), under, key, clock, ctx)
}

/// Share a new channel.
public fun share<T>(channel: Channel<T>) { transfer::share_object(channel) }

/// Add money; what is left goes to the client. The client may add any sum but nothing, others at least the terms' least
/// deposit: else anyone could fill the channel's history with events of dust.
public fun top_up<T>(channel: &mut Channel<T>, payment: Coin<T>, ctx: &mut TxContext) {
    channel.assert_open();
    assert!(channel.pass.is_none(), EUnderPass);
    let amount = payment.value();
    let least = if (ctx.sender() == channel.client) 0 else channel.terms.min_deposit();
    assert!(amount > 0 && amount >= least, EDepositTooSmall);
    channel.deposited = channel.deposited + amount;
    channel.balance.join(payment.into_balance());
    event::emit(ToppedUp { channel: object::id(channel), amount, coin: coin_of<T>() });
}

/// Add a lane with a key of its own: a device, or a connection. Client only.
public fun add_lane<T>(channel: &mut Channel<T>, key: vector<u8>, ctx: &mut TxContext) {
    channel.assert_open();
    channel.assert_client(ctx);
    assert!(channel.lanes.length() < MAX_LANES, ETooManyLanes);
    channel.push_lane(key);
}

/// Change a lane's key. Vouchers of the old key are honoured for `claim_ms`, and to the end of the claims when a close
/// is requested within that time; only then may the key change again: else two quick rotations would void what the
/// server holds. Client only.
public fun rotate_lane<T>(
    channel: &mut Channel<T>,
    lane: u8,
    key: vector<u8>,
    clock: &Clock,
    ctx: &mut TxContext,
) {
    channel.assert_open();
    channel.assert_client(ctx);
    assert_key(&key);
    let grace_until = clock.timestamp_ms() + channel.terms.claim_ms();
    let entry = channel.lane_mut(lane);
    assert!(clock.timestamp_ms() >= entry.old_until_ms, ERotationPending);
    entry.old_key = entry.key;
    entry.old_until_ms = grace_until;
    entry.key = key;
    event::emit(LaneChanged { channel: object::id(channel), lane, key });
}

// === Claiming ===

/// A voucher as the client signed it. A `not_after_ms` of 2^64-1 never expires.
public fun new_voucher(
    channel: ID,
    lane: u8,
    sequence: u64,
    amount: u64,
    requests: u64,
    bytes: u64,
    hash_lock: Option<vector<u8>>,
    not_after_ms: u64,
): Voucher {
    Voucher {
        domain: VOUCHER_DOMAIN,
        channel,
        lane,
        sequence,
        amount,
        requests,
        bytes,
        hash_lock,
        not_after_ms,
    }
}

/// Claim with the newest voucher of a lane and take the money. Server only. `preimage` is empty when the voucher has
/// no hash lock. What the epoch cap keeps back stays owed: see `pay_owed`.
public fun claim<T>(
    channel: &mut Channel<T>,
    voucher: Voucher,
    signature: vector<u8>,
    preimage: vector<u8>,
    clock: &Clock,
    ctx: &mut TxContext,
): Coin<T> {
    assert!(ctx.sender() == channel.server, ENotServer);
    let paid = channel.accept(voucher, signature, preimage, clock, ctx);
    coin::from_balance(paid, ctx)
}

/// Claim for the server: anyone may submit the voucher, the money goes to the server's address.
public fun claim_for<T>(
    channel: &mut Channel<T>,
    voucher: Voucher,
    signature: vector<u8>,
    preimage: vector<u8>,
    clock: &Clock,
    ctx: &mut TxContext,
) {
    let paid = channel.accept(voucher, signature, preimage, clock, ctx);
    send(paid, channel.server, ctx);
}

/// Pay what earlier claims left owed, as far as this epoch's cap and the deposit go. Anyone may call it; the money goes
/// to the server's address.
public fun pay_owed<T>(channel: &mut Channel<T>, ctx: &mut TxContext) {
    channel.assert_version();
    assert!(channel.state <= STATE_CLOSING, EChannelClosed);
    let paid = channel.take_due(ctx);
    event::emit(OwedPaid {
        channel: object::id(channel),
        amount: paid.value(),
        coin: coin_of<T>(),
    });
    send(paid, channel.server, ctx);
}

// === Closing ===

/// Ask to close. Claims still count for `claim_ms`, then anyone may `finalize`. The client at any time, anyone once
/// nobody has used the channel for `idle_ms`: what is idle on chain may be in use off it, so the server has its time
/// to claim in either case.
public fun request_close<T>(channel: &mut Channel<T>, clock: &Clock, ctx: &mut TxContext) {
    channel.assert_open();
    let idle_at = channel.active_ms + channel.terms.idle_ms();
    assert!(ctx.sender() == channel.client || clock.timestamp_ms() >= idle_at, ETooEarly);
    channel.state = STATE_CLOSING;
    channel.closing_ms = clock.timestamp_ms();
    event::emit(CloseRequested {
        channel: object::id(channel),
        until_ms: channel.claims_until_ms(),
    });
}

/// After a requested close and its time for claims: pay both sides. While the epoch cap keeps something owed back,
/// the channel drains, and this can be called again in later epochs. Anyone may call it.
public fun finalize<T>(channel: &mut Channel<T>, clock: &Clock, ctx: &mut TxContext) {
    channel.assert_version();
    assert!(channel.state == STATE_CLOSING || channel.state == STATE_DRAINING, ENotClosing);
    assert!(
        channel.state == STATE_DRAINING || clock.timestamp_ms() >= channel.claims_until_ms(),
        ETooEarly,
    );
    channel.settle(ctx);
}

/// End the channel at once, with what has been claimed. Server only: it alone could lose by it.
public fun release<T>(channel: &mut Channel<T>, ctx: &mut TxContext) {
    channel.assert_version();
    assert!(channel.state <= STATE_CLOSING, EChannelClosed);
    assert!(ctx.sender() == channel.server, ENotServer);
    channel.settle(ctx);
}

/// End the channel at once by both: the sender is one party, the signature (over BCS of `Agreement`, by the Ed25519 key
/// of its address) is the other's. `total` is all that the server gets for vouchers over the channel's life; neither
/// cap nor price bounds it, since both account keys agreed.
public fun close_agreed<T>(
    channel: &mut Channel<T>,
    total: u64,
    not_after_ms: u64,
    public_key: vector<u8>,
    signature: vector<u8>,
    clock: &Clock,
    ctx: &mut TxContext,
) {
    channel.assert_version();
    assert!(channel.state <= STATE_CLOSING, EChannelClosed);
    let sender = ctx.sender();
    assert!(sender == channel.client || sender == channel.server, ENotParty);
    assert!(clock.timestamp_ms() <= not_after_ms, EAgreementExpired);
    let other = if (sender == channel.client) channel.server else channel.client;
    assert_key(&public_key);
    assert!(ed25519_address(&public_key) == other, EWrongSigner);
    let agreement = Agreement {
        domain: CLOSE_DOMAIN,
        channel: object::id(channel),
        total,
        not_after_ms,
    };
    let message = bcs::to_bytes(&agreement);
    assert!(ed25519::ed25519_verify(&signature, &public_key, &message), EBadSignature);
    assert!(total >= channel.claimed, EAgreedTooLow);
    let rest = total - channel.claimed;
    assert!(rest <= channel.balance.value(), EAgreedTooHigh);
    channel.claimed = total;
    channel.owed = 0;
    let to_server = channel.balance.split(rest);
    let to_client = channel.take_refund();
    channel.finish(to_server, to_client, ctx);
}

/// Delete a closed channel; its storage deposit comes back. Client only, who paid for it.
public fun destroy<T>(channel: Channel<T>, ctx: &mut TxContext) {
    channel.assert_version();
    channel.assert_client(ctx);
    assert!(channel.state == STATE_CLOSED, ENotClosed);
    let Channel { id, balance, client_credit, .. } = channel;
    id.delete();
    balance.destroy_zero();
    client_credit.destroy_zero();
}

/// Move a channel to this version of the package: older ones refuse it from then on. Server only: its claims have an
/// end and the client's refund has none, so who has not changed to this version yet loses nothing by it.
public fun migrate<T>(channel: &mut Channel<T>, ctx: &mut TxContext) {
    assert!(ctx.sender() == channel.server, ENotServer);
    assert!(channel.version < VERSION, EUpToDate);
    event::emit(ChannelMigrated {
        channel: object::id(channel),
        from: channel.version,
        to: VERSION,
    });
    channel.version = VERSION;
}

// === Reading ===

/// The host.
public fun host<T>(channel: &Channel<T>): ID { channel.host }

/// The service's number.
public fun service<T>(channel: &Channel<T>): u16 { channel.service }

/// The client's address.
public fun client<T>(channel: &Channel<T>): address { channel.client }

/// The server's address.
public fun server<T>(channel: &Channel<T>): address { channel.server }

/// The terms, as they were when the channel opened.
public fun terms<T>(channel: &Channel<T>): &Terms { &channel.terms }

/// The pass the channel was opened under.
public fun pass<T>(channel: &Channel<T>): Option<ID> { channel.pass }

/// 0 open, 1 closing, 2 draining, 3 closed.
public fun state<T>(channel: &Channel<T>): u8 { channel.state }

/// All that was deposited.
public fun deposited<T>(channel: &Channel<T>): u64 { channel.deposited }

/// All that the server was paid for vouchers.
public fun claimed<T>(channel: &Channel<T>): u64 { channel.claimed }

/// All that either side was given for transport cost.
public fun credited<T>(channel: &Channel<T>): u64 { channel.credited }

/// All that the client was paid back, its credits not counted.
public fun refunded<T>(channel: &Channel<T>): u64 { channel.refunded }

/// What the channel holds, the client's credits not counted.
public fun held<T>(channel: &Channel<T>): u64 { channel.balance.value() }

/// Credits of the client that the channel holds for it.
public fun client_credit<T>(channel: &Channel<T>): u64 { channel.client_credit.value() }

/// Vouched and not yet paid.
public fun owed<T>(channel: &Channel<T>): u128 { channel.owed }

/// Requests and bytes that the accepted vouchers count.
public fun usage<T>(channel: &Channel<T>): (u128, u128) { (channel.requests, channel.bytes) }

/// Number of lanes.
public fun lane_count<T>(channel: &Channel<T>): u64 { channel.lanes.length() }

/// Newest accepted sequence of a lane, and the amount vouched by it.
public fun lane_progress<T>(channel: &Channel<T>, lane: u8): (u64, u64) {
    assert!((lane as u64) < channel.lanes.length(), ENoLane);
    let entry = &channel.lanes[lane as u64];
    (entry.sequence, entry.amount)
}

/// The exact bytes that a lane's key signs for this voucher.
public fun voucher_bytes(voucher: &Voucher): vector<u8> { bcs::to_bytes(voucher) }

/// The Sui address of an Ed25519 public key.
public fun ed25519_address(public_key: &vector<u8>): address {
    let mut preimage = vector[ED25519_FLAG];
    preimage.append(*public_key);
    address::from_bytes(sui_hash::blake2b256(&preimage))
}

// === For the other modules of this package ===

/// Abort unless the channel is open.
public(package) fun assert_open<T>(channel: &Channel<T>) {
    channel.assert_version();
    assert!(channel.state == STATE_OPEN, EChannelClosed);
}

/// Register a pipe of the sender; returns its direction, its index, the last sequence number that this index has had,
/// and how far the rates are used. An index that was given back is taken first. Its numbers go on, so that no frame,
/// acknowledgement or transaction of the pipe before is taken for one of the new pipe, and so do its rates and what it
/// has used of the window, so that nobody gets around them by opening pipes.
public(package) fun register_pipe<T>(
    channel: &mut Channel<T>,
    ctx: &TxContext,
): (u8, u8, u64, u128, u128) {
    channel.assert_open();
    let direction = channel.direction_from(ctx);
    let free = channel.free_mut(direction);
    if (!free.is_empty()) {
        let ClosedPipe { index, sequence, requests_tat, bytes_tat } = free.pop_back();
        return (direction, index, sequence, requests_tat, bytes_tat)
    };
    let acks = channel.acks_mut(direction);
    let index = acks.length();
    assert!(index < MAX_PIPES, ETooManyPipes);
    acks.push_back(0);
    (direction, index as u8, 0, 0, 0)
}

/// Give the index of a pipe back, whose last frame had this sequence number. What it has sent and nobody acknowledged
/// goes on to take room in the window, and an acknowledgement of more than was sent comes down to what was.
public(package) fun release_pipe<T>(
    channel: &mut Channel<T>,
    direction: u8,
    index: u8,
    sequence: u64,
    requests_tat: u128,
    bytes_tat: u128,
) {
    channel.assert_version();
    let ack = &mut channel.acks_mut(direction)[index as u64];
    *ack = min(*ack, sequence);
    channel.free_mut(direction).push_back(ClosedPipe { index, sequence, requests_tat, bytes_tat });
}

/// Acknowledge frames of the other side's pipe; the sender is the receiver of that direction. Of a closed pipe it is
/// known what it has sent, and no more is acknowledged; one that is open counts its frames itself, and whoever
/// acknowledges more than it has sent only lets it send more.
public(package) fun acknowledge<T>(
    channel: &mut Channel<T>,
    index: u8,
    sequence: u64,
    clock: &Clock,
    ctx: &TxContext,
) {
    channel.assert_open();
    let direction = if (channel.direction_from(ctx) == TO_SERVER) TO_CLIENT else TO_SERVER;
    let acks = channel.acks_mut(direction);
    assert!((index as u64) < acks.length(), ENoPipe);
    let ack = &mut acks[index as u64];
    assert!(sequence > *ack, EStaleAck);
    *ack = sequence;
    channel.assert_sent(direction, index, sequence);
    channel.active_ms = clock.timestamp_ms();
}

/// Newest acknowledged sequence of a pipe.
public(package) fun acked<T>(channel: &Channel<T>, direction: u8, index: u8): u64 {
    if (direction == TO_SERVER) channel.acks_to_server[index as u64]
    else channel.acks_to_client[index as u64]
}

public(package) fun to_server(): u8 { TO_SERVER }

/// Pay the server its transport credits for up to `bytes` of frames, from what the deposit holds beyond what is owed,
/// within the epoch cap and the time for claims, and for no more bytes than the client's vouchers count.
/// Returns the money and the bytes paid.
public(package) fun credit_server<T>(
    channel: &mut Channel<T>,
    bytes: u64,
    clock: &Clock,
    ctx: &mut TxContext,
): (Coin<T>, u64) {
    channel.assert_creditable(host::bearer_client(), clock);
    let mut paid = channel.acknowledged(bytes);
    let due = channel.credit_for(paid);
    let amount = capped(due, min(channel.unowed(), channel.room(ctx)));
    if ((amount as u128) < due) {
        // The rest is paid another time: of the bytes so many are, rounded up, that none of them is paid twice.
        let credit = channel.terms.credit() as u128;
        paid = (((amount as u128) * (CREDIT_BYTES as u128) + credit - 1) / credit) as u64;
    };
    channel.credited_bytes = channel.credited_bytes + (paid as u128);
    channel.credited = channel.credited + amount;
    channel.epoch_spent = channel.epoch_spent + amount;
    (coin::from_balance(channel.balance.split(amount), ctx), paid)
}

/// Note transport credits of the client for up to `bytes` of frames, within the time for claims: the next payments to
/// the server bear them. Returns the credit and the bytes noted.
public(package) fun credit_client<T>(
    channel: &mut Channel<T>,
    bytes: u64,
    clock: &Clock,
): (u128, u64) {
    channel.assert_creditable(host::bearer_server(), clock);
    let noted = channel.acknowledged(bytes);
    let credit = channel.credit_for(noted);
    channel.credited_bytes = channel.credited_bytes + (noted as u128);
    channel.credit_due = channel.credit_due + credit;
    (credit, noted)
}

// === Private ===

fun new_channel<T>(
    host: &Host,
    service: u16,
    terms: Terms,
    deposit: Balance<T>,
    pass: Option<ID>,
    key: vector<u8>,
    clock: &Clock,
    ctx: &mut TxContext,
): Channel<T> {
    let now = clock.timestamp_ms();
    assert!(ctx.sender() != host.owner(), ESelfChannel);
    let mut channel = Channel<T> {
        id: object::new(ctx),
        version: VERSION,
        host: object::id(host),
        service,
        client: ctx.sender(),
        server: host.owner(),
        terms,
        pass,
        state: STATE_OPEN,
        deposited: deposit.value(),
        balance: deposit,
        client_credit: balance::zero(),
        claimed: 0,
        credited: 0,
        refunded: 0,
        owed: 0,
        credit_due: 0,
        requests: 0,
        bytes: 0,
        credited_bytes: 0,
        epoch: ctx.epoch(),
        epoch_spent: 0,
        lanes: vector[],
        acks_to_server: vector[],
        acks_to_client: vector[],
        free_to_server: vector[],
        free_to_client: vector[],
        opened_ms: now,
        active_ms: now,
        closing_ms: 0,
    };
    event::emit(ChannelOpened {
        channel: object::id(&channel),
        host: channel.host,
        service,
        client: channel.client,
        server: channel.server,
        deposit: channel.deposited,
        revision: terms.revision(),
        pass,
        coin: coin_of<T>(),
    });
    channel.push_lane(key);
    channel
}

fun push_lane<T>(channel: &mut Channel<T>, key: vector<u8>) {
    assert_key(&key);
    let lane = channel.lanes.length() as u8;
    channel
        .lanes
        .push_back(Lane {
            key,
            old_key: vector[],
            old_until_ms: 0,
            sequence: 0,
            amount: 0,
            requests: 0,
            bytes: 0,
        });
    event::emit(LaneChanged { channel: object::id(channel), lane, key });
}

/// Check a voucher, note it, and take out what can be paid now. Everything is checked before anything changes.
fun accept<T>(
    channel: &mut Channel<T>,
    voucher: Voucher,
    signature: vector<u8>,
    preimage: vector<u8>,
    clock: &Clock,
    ctx: &TxContext,
): Balance<T> {
    channel.assert_version();
    let now = clock.timestamp_ms();
    assert!(channel.state <= STATE_CLOSING, EChannelClosed);
    channel.assert_claimable(now);
    assert!(voucher.channel == object::id(channel), EForeignVoucher);
    assert!((voucher.lane as u64) < channel.lanes.length(), ENoLane);
    assert!(now <= voucher.not_after_ms, EVoucherExpired);
    channel.terms.assert_price(&voucher);
    voucher.assert_preimage(&preimage);
    // Counts are evidence of use, which only the server gives: a client's own claim could say anything that is free.
    let by_server = ctx.sender() == channel.server;
    // A key that was honoured when the close was requested is so to the end of the claims: else a rotation before the
    // close would shorten the time that vouchers of the old key have.
    let honoured_ms = if (channel.state == STATE_CLOSING) channel.closing_ms else now;
    let entry = channel.lane_mut(voucher.lane);
    // What pays more wins, whatever its sequence: else a client that claims a voucher for less under a sequence above
    // all others would void what the server holds. Its evidence stands whatever a client has paid by claims of its own.
    let more_amount = voucher.amount.beyond(entry.amount);
    let more_requests = if (by_server) voucher.requests.beyond(entry.requests) else 0;
    let more_bytes = if (by_server) voucher.bytes.beyond(entry.bytes) else 0;
    let more = more_amount > 0 || more_requests > 0 || more_bytes > 0;
    assert!(more || voucher.amount >= entry.amount, EShrunkVoucher);
    assert!(more, EStaleVoucher);
    entry.assert_signature(&voucher, &signature, honoured_ms);
    if (voucher.sequence > entry.sequence) entry.sequence = voucher.sequence;
    entry.amount = entry.amount + more_amount;
    entry.requests = entry.requests + more_requests;
    entry.bytes = entry.bytes + more_bytes;
    channel.owed = channel.owed + (more_amount as u128);
    channel.requests = channel.requests + (more_requests as u128);
    channel.bytes = channel.bytes + (more_bytes as u128);
    channel.active_ms = now;
    let paid = channel.take_due(ctx);
    event::emit(Claimed {
        channel: object::id(channel),
        lane: voucher.lane,
        sequence: voucher.sequence,
        amount: voucher.amount,
        paid: paid.value(),
        preimage,
        coin: coin_of<T>(),
    });
    paid
}

use fun beyond as u64.beyond;

/// How much `count` is above `known`; 0 when it isn't.
fun beyond(count: u64, known: u64): u64 { if (count > known) count - known else 0 }

use fun assert_voucher_price as Terms.assert_price;

/// The amount must not be above requests times price plus bytes times price per MiB, rounded down once over the
/// whole life of the lane. In 256 bits, so that no product overflows.
fun assert_voucher_price(terms: &Terms, voucher: &Voucher) {
    let requests = (voucher.requests as u256) * (terms.price_request() as u256);
    let bytes = (voucher.bytes as u256) * (terms.price_mib() as u256);
    let bound = (requests << MIB_SHIFT) + bytes;
    assert!((voucher.amount as u256) << MIB_SHIFT <= bound, EOverPrice);
}

fun assert_preimage(voucher: &Voucher, preimage: &vector<u8>) {
    if (voucher.hash_lock.is_none()) return;
    let lock = voucher.hash_lock.borrow();
    assert!(lock.length() == HASH_BYTES, EBadHashLock);
    assert!(preimage.length() == HASH_BYTES && hash::sha2_256(*preimage) == *lock, EWrongPreimage);
}

fun assert_signature(lane: &Lane, voucher: &Voucher, signature: &vector<u8>, honoured_ms: u64) {
    let message = bcs::to_bytes(voucher);
    let valid =
        ed25519::ed25519_verify(signature, &lane.key, &message)
        || (honoured_ms < lane.old_until_ms && ed25519::ed25519_verify(signature, &lane.old_key, &message));
    assert!(valid, EBadSignature);
}

/// Take out of the balance what is owed to the server, within deposit and epoch cap. The client's due credits are kept
/// back from it.
fun take_due<T>(channel: &mut Channel<T>, ctx: &TxContext): Balance<T> {
    let due = min(channel.reserved(), channel.room(ctx));
    let kept_back = capped(channel.credit_due, due);
    channel.owed = channel.owed - (due as u128);
    channel.credit_due = channel.credit_due - (kept_back as u128);
    channel.epoch_spent = channel.epoch_spent + due;
    channel.credited = channel.credited + kept_back;
    channel.claimed = channel.claimed + (due - kept_back);
    let credit = channel.balance.split(kept_back);
    channel.client_credit.join(credit);
    channel.balance.split(due - kept_back)
}

/// The end of metering: the server gets what is owed as far as the cap goes, the client all that isn't owed.
fun settle<T>(channel: &mut Channel<T>, ctx: &mut TxContext) {
    let to_server = channel.take_due(ctx);
    let to_client = channel.take_refund();
    channel.finish(to_server, to_client, ctx);
}

/// Take out what belongs to the client: the balance that isn't owed, and its credits.
fun take_refund<T>(channel: &mut Channel<T>): Balance<T> {
    let free = channel.unowed();
    channel.refunded = channel.refunded + free;
    let mut refund = channel.balance.split(free);
    refund.join(channel.client_credit.withdraw_all());
    refund
}

/// Send the money and move on: to draining while anything is held, else to closed.
fun finish<T>(
    channel: &mut Channel<T>,
    to_server: Balance<T>,
    to_client: Balance<T>,
    ctx: &mut TxContext,
) {
    channel.state = if (channel.balance.value() > 0) STATE_DRAINING else STATE_CLOSED;
    event::emit(Settled {
        channel: object::id(channel),
        to_server: to_server.value(),
        to_client: to_client.value(),
        state: channel.state,
        coin: coin_of<T>(),
    });
    send(to_server, channel.server, ctx);
    send(to_client, channel.client, ctx);
}

/// Send a balance as a coin; nothing is made of nothing. Not a return value, because who receives it is a party of the
/// channel and not the sender.
fun send<T>(money: Balance<T>, to: address, ctx: &mut TxContext) {
    if (money.value() == 0) {
        money.destroy_zero();
    } else {
        transfer::public_transfer(coin::from_balance(money, ctx), to);
    }
}

/// How much may still leave in this epoch.
fun room<T>(channel: &mut Channel<T>, ctx: &TxContext): u64 {
    if (ctx.epoch() != channel.epoch) {
        channel.epoch = ctx.epoch();
        channel.epoch_spent = 0;
    };
    channel.terms.epoch_cap() - channel.epoch_spent
}

/// The part of the balance that is owed to the server.
fun reserved<T>(channel: &Channel<T>): u64 {
    capped(channel.owed, channel.balance.value())
}

/// The part of the balance that is not owed to the server.
fun unowed<T>(channel: &Channel<T>): u64 { channel.balance.value() - channel.reserved() }

/// How many of `bytes` the accepted vouchers count and no credit was given for yet: what the client has signed for and
/// the server has claimed with. Nothing else is evidence, so frames that carried nothing earn nothing.
fun acknowledged<T>(channel: &Channel<T>, bytes: u64): u64 {
    capped(channel.bytes - channel.credited_bytes, bytes)
}

/// The credit for so many bytes of frames, rounded down.
fun credit_for<T>(channel: &Channel<T>, bytes: u64): u128 {
    (bytes as u128) * (channel.terms.credit() as u128) / (CREDIT_BYTES as u128)
}

/// Abort unless this side bears the cost of transport, and claims count.
fun assert_creditable<T>(channel: &Channel<T>, bearer: u8, clock: &Clock) {
    channel.assert_version();
    assert!(channel.state <= STATE_CLOSING, EChannelClosed);
    assert!(channel.terms.bearer() == bearer, ENotBorne);
    channel.assert_claimable(clock.timestamp_ms());
}

/// Abort after the time for claims that a requested close leaves.
fun assert_claimable<T>(channel: &Channel<T>, now: u64) {
    assert!(channel.state == STATE_OPEN || now < channel.claims_until_ms(), EClaimWindowOver);
}

/// The less of both.
fun capped(amount: u128, most: u64): u64 { if (amount < (most as u128)) amount as u64 else most }

fun claims_until_ms<T>(channel: &Channel<T>): u64 {
    channel.closing_ms + channel.terms.claim_ms()
}

fun direction_from<T>(channel: &Channel<T>, ctx: &TxContext): u8 {
    let sender = ctx.sender();
    assert!(sender == channel.client || sender == channel.server, ENotParty);
    if (sender == channel.client) TO_SERVER else TO_CLIENT
}

fun acks_mut<T>(channel: &mut Channel<T>, direction: u8): &mut vector<u64> {
    if (direction == TO_SERVER) &mut channel.acks_to_server else &mut channel.acks_to_client
}

fun free_mut<T>(channel: &mut Channel<T>, direction: u8): &mut vector<ClosedPipe> {
    if (direction == TO_SERVER) &mut channel.free_to_server else &mut channel.free_to_client
}

/// Abort if the pipe is closed and has sent no frame of this number.
fun assert_sent<T>(channel: &mut Channel<T>, direction: u8, index: u8, sequence: u64) {
    let free = channel.free_mut(direction);
    let mut i = 0;
    while (i < free.length()) {
        let closed = &free[i];
        assert!(closed.index != index || sequence <= closed.sequence, EUnsentAck);
        i = i + 1;
    };
}

fun lane_mut<T>(channel: &mut Channel<T>, lane: u8): &mut Lane {
    assert!((lane as u64) < channel.lanes.length(), ENoLane);
    &mut channel.lanes[lane as u64]
}

fun assert_version<T>(channel: &Channel<T>) {
    assert!(channel.version == VERSION, EWrongVersion);
}

fun assert_client<T>(channel: &Channel<T>, ctx: &TxContext) {
    assert!(ctx.sender() == channel.client, ENotClient);
}

fun assert_key(key: &vector<u8>) {
    assert!(key.length() == host::key_bytes(), EBadKey);
    assert!(!host::is_weak_key(key), EWeakKey);
}

fun coin_of<T>(): TypeName { type_name::with_defining_ids<T>() }

fun min(a: u64, b: u64): u64 { if (a < b) a else b }

// === Tests ===

#[test_only]
public fun set_version_for_testing<T>(channel: &mut Channel<T>, version: u16) {
    channel.version = version
}
