/// One escrow for two kinds of promise: money for whoever knows a secret, or for whomever a key names.
///
/// A hash lock pays its fixed payee against the preimage (the fee for an answer that is encrypted under the preimage).
/// A key lock pays the recipient that a signature of the key names (the reward of a tipster, who needs neither an
/// address beforehand nor gas). Either may be submitted by anyone, for the lock's relay fee; nobody can turn the
/// money elsewhere by submitting first. After the deadline the payer gets all of it back. A lock is paid out once
/// and is gone with it.
module escrow::lock;

use std::{bcs, hash, type_name::{Self, TypeName}};
use sui::{balance::Balance, clock::Clock, coin::{Self, Coin}, ed25519, event};

// === Constants ===

const VERSION: u16 = 1;

/// Length of a hash and of its preimage. The preimage's length is fixed so that a secret that opens a lock here opens
/// the lock on another chain, too.
const HASH_BYTES: u64 = 32;
/// Length of an Ed25519 public key.
const KEY_BYTES: u64 = 32;
/// Last byte of an Ed25519 public key without the sign of x.
const SIGN_MASK: u8 = 0x7f;
/// y of the eight points of small order, without the sign of x.
const SMALL_ORDER: vector<vector<u8>> = vector[
    x"0000000000000000000000000000000000000000000000000000000000000000",
    x"0100000000000000000000000000000000000000000000000000000000000000",
    x"26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
    x"c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
    x"ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
];
/// First byte of the smallest y that isn't reduced, 2^255 - 19; its last is `SIGN_MASK`, the others are 0xff.
const UNREDUCED: u8 = 0xed;
/// Farthest deadline: two years of 366 days, so that a slip of the pen doesn't bury the money.
const MAX_TERM_MS: u64 = 63_244_800_000;

/// Condition: the preimage of `commitment` under SHA2-256.
const BY_HASH: u8 = 0;
/// Condition: a signature by the Ed25519 key `commitment`.
const BY_KEY: u8 = 1;

/// Domain of a release's signature.
const LOCK_DOMAIN: vector<u8> = b"dtp.lock.v1";

// === Errors ===

#[error(code = 0)]
const EWrongVersion: vector<u8> =
    b"object is of another version: call the package's newest release";
#[error(code = 1)]
const EZeroAmount: vector<u8> = b"there is nothing in the payment";
#[error(code = 2)]
const EFeeTooLarge: vector<u8> = b"the relay fee is above the amount";
#[error(code = 3)]
const EBadHash: vector<u8> = b"a hash is 32 bytes";
#[error(code = 4)]
const EBadKey: vector<u8> = b"an Ed25519 public key is 32 bytes";
#[error(code = 5)]
const EDeadlinePassed: vector<u8> = b"the deadline has passed";
#[error(code = 6)]
const EDeadlineTooFar: vector<u8> = b"the deadline is more than two years away";
#[error(code = 7)]
const ETooEarly: vector<u8> = b"the deadline has not passed yet";
#[error(code = 8)]
const ENotHashLock: vector<u8> = b"this lock opens by a key";
#[error(code = 9)]
const ENotKeyLock: vector<u8> = b"this lock opens by a preimage";
#[error(code = 10)]
const EWrongPreimage: vector<u8> = b"the preimage is not the 32 bytes that the lock asks for";
#[error(code = 11)]
const EBadSignature: vector<u8> = b"the signature does not verify";
#[error(code = 12)]
const EWeakKey: vector<u8> =
    b"anyone can sign for this key: it is a point of small order, or not in its one encoding";
#[error(code = 13)]
const ENoPayee: vector<u8> = b"the zero address can't be paid";

// === Types ===

/// Money under a condition until a deadline. Shared; deleted when it pays out.
public struct Lock<phantom T> has key {
    id: UID,
    version: u16,
    payer: address,
    /// Who a hash lock pays; of a key lock, the payer, and without meaning.
    payee: address,
    balance: Balance<T>,
    condition: u8,
    /// SHA2-256 hash, or Ed25519 public key.
    commitment: vector<u8>,
    /// Part of the amount for whoever submits the claim.
    relay_fee: u64,
    /// Last ms at which the lock can be claimed.
    deadline_ms: u64,
}

/// What the key of a key lock signs, in BCS, in this order of fields.
public struct Release has copy, drop {
    domain: vector<u8>,
    lock: ID,
    recipient: address,
}

// === Events ===

/// Money was locked.
public struct Locked has copy, drop {
    lock: ID,
    payer: address,
    amount: u64,
    condition: u8,
    commitment: vector<u8>,
    deadline_ms: u64,
    coin: TypeName,
}

/// A lock was claimed. `preimage` is what opened a hash lock, or empty: here the payer finds it.
public struct Claimed has copy, drop {
    lock: ID,
    recipient: address,
    amount: u64,
    relay_fee: u64,
    preimage: vector<u8>,
    coin: TypeName,
}

/// A lock was paid back.
public struct Refunded has copy, drop {
    lock: ID,
    amount: u64,
    coin: TypeName,
}

// === Locking ===

/// Lock money for `payee` under a SHA2-256 hash of 32 secret bytes. Share it with `share`.
public fun new_hash_lock<T>(
    payment: Coin<T>,
    hash: vector<u8>,
    payee: address,
    relay_fee: u64,
    deadline_ms: u64,
    clock: &Clock,
    ctx: &mut TxContext,
): Lock<T> {
    assert!(hash.length() == HASH_BYTES, EBadHash);
    assert!(payee != @0x0, ENoPayee);
    new(payment, BY_HASH, hash, payee, relay_fee, deadline_ms, clock, ctx)
}

/// Lock money for whomever the Ed25519 key names. Share it with `share`.
public fun new_key_lock<T>(
    payment: Coin<T>,
    key: vector<u8>,
    relay_fee: u64,
    deadline_ms: u64,
    clock: &Clock,
    ctx: &mut TxContext,
): Lock<T> {
    assert!(key.length() == KEY_BYTES, EBadKey);
    assert!(!is_weak_key(&key), EWeakKey);
    let payer = ctx.sender();
    new(payment, BY_KEY, key, payer, relay_fee, deadline_ms, clock, ctx)
}

/// Share a new lock.
public fun share<T>(lock: Lock<T>) { transfer::share_object(lock) }

// === Paying out ===

/// Open a hash lock. The payee is paid, whoever submits; the submitter gets the relay fee.
public fun claim_by_preimage<T>(
    lock: Lock<T>,
    preimage: vector<u8>,
    clock: &Clock,
    ctx: &mut TxContext,
) {
    lock.assert_claimable(clock);
    assert!(lock.condition == BY_HASH, ENotHashLock);
    assert!(
        preimage.length() == HASH_BYTES && hash::sha2_256(preimage) == lock.commitment,
        EWrongPreimage,
    );
    let payee = lock.payee;
    lock.pay(payee, preimage, ctx);
}

/// Open a key lock. The recipient that the signature (over BCS of `Release`) names is paid, whoever submits; the
/// submitter gets the relay fee.
public fun claim_by_key<T>(
    lock: Lock<T>,
    recipient: address,
    signature: vector<u8>,
    clock: &Clock,
    ctx: &mut TxContext,
) {
    lock.assert_claimable(clock);
    assert!(lock.condition == BY_KEY, ENotKeyLock);
    assert!(recipient != @0x0, ENoPayee);
    let message = release_bytes(object::id(&lock), recipient);
    assert!(ed25519::ed25519_verify(&signature, &lock.commitment, &message), EBadSignature);
    lock.pay(recipient, vector[], ctx);
}

/// After the deadline: pay the payer back. Anyone may call it.
public fun refund<T>(lock: Lock<T>, clock: &Clock, ctx: &mut TxContext) {
    lock.assert_version();
    assert!(clock.timestamp_ms() > lock.deadline_ms, ETooEarly);
    let Lock { id, payer, balance, .. } = lock;
    let amount = balance.value();
    event::emit(Refunded { lock: id.to_inner(), amount, coin: type_name::with_defining_ids<T>() });
    id.delete();
    send(balance, payer, ctx);
}

// === Reading ===

/// Who locked the money.
public fun payer<T>(lock: &Lock<T>): address { lock.payer }

/// Who a hash lock pays.
public fun payee<T>(lock: &Lock<T>): address { lock.payee }

/// How much is locked, the relay fee included.
public fun amount<T>(lock: &Lock<T>): u64 { lock.balance.value() }

/// 0 by hash, 1 by key.
public fun condition<T>(lock: &Lock<T>): u8 { lock.condition }

/// SHA2-256 hash, or Ed25519 public key.
public fun commitment<T>(lock: &Lock<T>): vector<u8> { lock.commitment }

/// Part of the amount for whoever submits the claim.
public fun relay_fee<T>(lock: &Lock<T>): u64 { lock.relay_fee }

/// Last ms at which the lock can be claimed.
public fun deadline_ms<T>(lock: &Lock<T>): u64 { lock.deadline_ms }

/// The exact bytes that a key lock's key signs to name the recipient.
public fun release_bytes(lock: ID, recipient: address): vector<u8> {
    bcs::to_bytes(&Release { domain: LOCK_DOMAIN, lock, recipient })
}

// === Private ===

fun new<T>(
    payment: Coin<T>,
    condition: u8,
    commitment: vector<u8>,
    payee: address,
    relay_fee: u64,
    deadline_ms: u64,
    clock: &Clock,
    ctx: &mut TxContext,
): Lock<T> {
    let amount = payment.value();
    let now = clock.timestamp_ms();
    assert!(amount > 0, EZeroAmount);
    assert!(relay_fee <= amount, EFeeTooLarge);
    assert!(deadline_ms > now, EDeadlinePassed);
    assert!(deadline_ms - now <= MAX_TERM_MS, EDeadlineTooFar);
    let lock = Lock<T> {
        id: object::new(ctx),
        version: VERSION,
        payer: ctx.sender(),
        payee,
        balance: payment.into_balance(),
        condition,
        commitment,
        relay_fee,
        deadline_ms,
    };
    event::emit(Locked {
        lock: object::id(&lock),
        payer: lock.payer,
        amount,
        condition,
        commitment,
        deadline_ms,
        coin: type_name::with_defining_ids<T>(),
    });
    lock
}

fun assert_claimable<T>(lock: &Lock<T>, clock: &Clock) {
    lock.assert_version();
    assert!(clock.timestamp_ms() <= lock.deadline_ms, EDeadlinePassed);
}

fun pay<T>(lock: Lock<T>, recipient: address, preimage: vector<u8>, ctx: &mut TxContext) {
    let Lock { id, mut balance, relay_fee, .. } = lock;
    let fee = balance.split(relay_fee);
    event::emit(Claimed {
        lock: id.to_inner(),
        recipient,
        amount: balance.value(),
        relay_fee,
        preimage,
        coin: type_name::with_defining_ids<T>(),
    });
    id.delete();
    send(balance, recipient, ctx);
    send(fee, ctx.sender(), ctx);
}

/// Send a balance as a coin; nothing is made of nothing. Not a return value, because who receives it isn't always the
/// sender.
fun send<T>(money: Balance<T>, to: address, ctx: &mut TxContext) {
    if (money.value() == 0) {
        money.destroy_zero();
    } else {
        transfer::public_transfer(coin::from_balance(money, ctx), to);
    }
}

/// True when signatures of the key can be made without its secret, or when it is not in the one encoding of its point.
/// The chain checks Ed25519 by ZIP-215: it takes such keys, and any message is signed by a point of small order.
fun is_weak_key(key: &vector<u8>): bool {
    let mut y = *key;
    let last = KEY_BYTES - 1;
    let top = y[last] & SIGN_MASK;
    *(&mut y[last]) = top;
    let small = SMALL_ORDER;
    small.contains(&y) || is_unreduced(&y)
}

/// True when y is 2^255 - 19 or more: its point has another encoding.
fun is_unreduced(y: &vector<u8>): bool {
    if (y[0] < UNREDUCED || y[KEY_BYTES - 1] != SIGN_MASK) return false;
    let mut i = 1;
    while (i < KEY_BYTES - 1) {
        if (y[i] != 0xff) return false;
        i = i + 1;
    };
    true
}

fun assert_version<T>(lock: &Lock<T>) {
    assert!(lock.version == VERSION, EWrongVersion);
}

// === Tests ===

#[test_only]
public fun set_version_for_testing<T>(lock: &mut Lock<T>, version: u16) { lock.version = version }
