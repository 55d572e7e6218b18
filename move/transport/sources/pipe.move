/// Data through events, for when nothing else gets through: frames of ciphertext on an owned object, so that
/// senders don't contend, and connectionless messages.
///
/// A pipe belongs to one side of a channel and sends in one direction, which comes from the object and never from
/// the caller. Several pipes are a connection with several channels. What refuses a frame aborts the
/// transaction: no event, and nothing for the receiver to pay or look at.
module transport::pipe;

use std::type_name::{Self, TypeName};
use sui::{clock::Clock, coin::Coin, event};
use transport::{channel::{Self, Channel}, host::{Host, Rate}};

// === Constants ===

/// Bytes of one frame or message: a transaction can't carry more, and a chunk must not be repeated to fake it.
const MAX_FRAME_BYTES: u64 = 131_072;
/// Length of the X25519 key that an answer to a message is sealed to.
const REPLY_KEY_BYTES: u64 = 32;
const NS_PER_MS: u128 = 1_000_000;

// === Errors ===

#[error(code = 0)]
const EForeignChannel: vector<u8> = b"the pipe belongs to another channel";
#[error(code = 1)]
const EForeignHost: vector<u8> = b"the channel belongs to another host";
#[error(code = 2)]
const EFrameTooLarge: vector<u8> = b"a frame or message is at most 128 KiB";
#[error(code = 3)]
const EOverWindow: vector<u8> = b"the window is full: wait for an acknowledgement";
#[error(code = 4)]
const EOverRate: vector<u8> = b"over the service's rate: wait and send again";
#[error(code = 5)]
const EWrongDirection: vector<u8> = b"this is for pipes of the other direction";
#[error(code = 6)]
const EBadReplyKey: vector<u8> = b"a reply key is 32 bytes";
#[error(code = 7)]
const EEmptyMessage: vector<u8> = b"a message needs at least one byte";
#[error(code = 8)]
const EFeeTooSmall: vector<u8> = b"the fee is below the service's least fee for a message";

// === Types ===

/// One sender's end. Owned, and not transferable: it has no `store`.
public struct Pipe has key {
    id: UID,
    channel: ID,
    /// 0 towards the server, 1 towards the client.
    direction: u8,
    index: u8,
    /// Number of the last frame; the next has this plus one. An index that another pipe had goes on with its numbers
    /// and its rates.
    sequence: u64,
    /// Bytes of the frames sent, and how many of them were credited.
    metered: u64,
    credited: u64,
    /// GCRA state: theoretical arrival times in ns.
    requests_tat: u128,
    bytes_tat: u128,
}

// === Events ===

/// One frame, ciphertext: the chunks, one after another. They stay as they came, because joining them costs gas for
/// every byte, a hundred times what carrying it costs.
public struct Frame has copy, drop {
    channel: ID,
    direction: u8,
    index: u8,
    sequence: u64,
    flags: u8,
    chunks: vector<vector<u8>>,
}

/// A connectionless message, ciphertext: the chunks, one after another.
public struct Posted has copy, drop {
    host: ID,
    service: u16,
    sender: address,
    reply_key: vector<u8>,
    fee: u64,
    coin: TypeName,
    chunks: vector<vector<u8>>,
}

/// Credits for transport: paid to the server (direction 1), or noted for the client (direction 0), for so many bytes of
/// frames of this pipe.
public struct Credited has copy, drop {
    channel: ID,
    direction: u8,
    index: u8,
    bytes: u64,
    amount: u128,
}

// === Pipes ===

/// A pipe of the sender in this channel: towards the server if it is the client, towards the client if it is the
/// server. Keep it with `keep`.
public fun open<T>(channel: &mut Channel<T>, ctx: &mut TxContext): Pipe {
    let (direction, index, sequence, requests_tat, bytes_tat) = channel.register_pipe(ctx);
    Pipe {
        id: object::new(ctx),
        channel: object::id(channel),
        direction,
        index,
        sequence,
        metered: 0,
        credited: 0,
        requests_tat,
        bytes_tat,
    }
}

/// Send a new pipe to the sender.
public fun keep(pipe: Pipe, ctx: &mut TxContext) { transfer::transfer(pipe, ctx.sender()) }

/// Send one frame, in chunks: one argument of a transaction holds at most 16 KiB. Refused when the channel or
/// the service is closed, the client is denied, the window is full, or (towards the server) over the rate.
public fun send<T>(
    pipe: &mut Pipe,
    channel: &Channel<T>,
    host: &Host,
    flags: u8,
    chunks: vector<vector<u8>>,
    clock: &Clock,
) {
    assert!(pipe.channel == object::id(channel), EForeignChannel);
    assert!(channel.host() == object::id(host), EForeignHost);
    channel.assert_open();
    let service = host.reachable(channel.service(), channel.client());
    let acked = channel.acked(pipe.direction, pipe.index);
    let window = service.window();
    assert!(window == 0 || pipe.sequence < acked || pipe.sequence - acked < window, EOverWindow);
    let size = size_of(&chunks);
    if (pipe.direction == channel::to_server()) {
        let now_ns = (clock.timestamp_ms() as u128) * NS_PER_MS;
        let rate = service.rate();
        pipe.requests_tat = gcra(pipe.requests_tat, now_ns, rate.requests(), 1);
        pipe.bytes_tat = gcra(pipe.bytes_tat, now_ns, rate.bytes(), size);
    };
    pipe.sequence = pipe.sequence + 1;
    pipe.metered = pipe.metered + size;
    event::emit(Frame {
        channel: pipe.channel,
        direction: pipe.direction,
        index: pipe.index,
        sequence: pipe.sequence,
        flags,
        chunks,
    });
}

/// Acknowledge the other side's frames of pipe `index` up to `sequence`, which moves its window on. Either party.
public fun ack<T>(
    channel: &mut Channel<T>,
    index: u8,
    sequence: u64,
    clock: &Clock,
    ctx: &mut TxContext,
) {
    channel.acknowledge(index, sequence, clock, ctx);
}

/// Where the client bears transport cost: the server takes the credits for the bytes of its pipe. No byte is credited
/// twice, none that the client's vouchers don't count, and none after the time for claims that a requested close leaves.
public fun collect_credit<T>(
    pipe: &mut Pipe,
    channel: &mut Channel<T>,
    clock: &Clock,
    ctx: &mut TxContext,
): Coin<T> {
    assert!(pipe.channel == object::id(channel), EForeignChannel);
    assert!(pipe.direction != channel::to_server(), EWrongDirection);
    let (money, bytes) = channel.credit_server(pipe.metered - pipe.credited, clock, ctx);
    pipe.note_credit(bytes, money.value() as u128);
    money
}

/// Where the server bears transport cost: the client notes the credits for the bytes of its pipe, within the time for
/// claims; the next payments to the server bear them, and the client gets them with its refund.
public fun charge_credit<T>(pipe: &mut Pipe, channel: &mut Channel<T>, clock: &Clock) {
    assert!(pipe.channel == object::id(channel), EForeignChannel);
    assert!(pipe.direction == channel::to_server(), EWrongDirection);
    let (amount, bytes) = channel.credit_client(pipe.metered - pipe.credited, clock);
    pipe.note_credit(bytes, amount);
}

/// Throw away a pipe and give its index back to the channel, for the next pipe of this direction. Frames that were not
/// credited yet never are.
public fun close<T>(pipe: Pipe, channel: &mut Channel<T>) {
    assert!(pipe.channel == object::id(channel), EForeignChannel);
    let Pipe { id, direction, index, sequence, requests_tat, bytes_tat, .. } = pipe;
    channel.release_pipe(direction, index, sequence, requests_tat, bytes_tat);
    id.delete();
}

/// Throw away a pipe without its channel, for when that was deleted; its storage deposit comes back.
public fun destroy(pipe: Pipe) {
    let Pipe { id, .. } = pipe;
    id.delete();
}

// === Messages ===

/// Send a connectionless message to a service: first contact, or a tip. `chunks` are ciphertext, the answer is to be
/// sealed to `reply_key`. The fee goes to the host's owner.
public fun post<T>(
    host: &Host,
    service: u16,
    reply_key: vector<u8>,
    chunks: vector<vector<u8>>,
    fee: Coin<T>,
    ctx: &mut TxContext,
) {
    let entry = host.admissible(service, ctx.sender());
    entry.terms().assert_coin<T>();
    assert!(reply_key.length() == REPLY_KEY_BYTES, EBadReplyKey);
    assert!(size_of(&chunks) > 0, EEmptyMessage);
    let amount = fee.value();
    assert!(amount >= entry.post_fee(), EFeeTooSmall);
    event::emit(Posted {
        host: object::id(host),
        service,
        sender: ctx.sender(),
        reply_key,
        fee: amount,
        coin: type_name::with_defining_ids<T>(),
        chunks,
    });
    // The receiver is the host's owner, not the sender: a transfer, not a return value.
    if (amount == 0) fee.destroy_zero() else transfer::public_transfer(fee, host.owner());
}

// === Reading ===

/// The channel of a pipe.
public fun channel(pipe: &Pipe): ID { pipe.channel }

/// 0 towards the server, 1 towards the client.
public fun direction(pipe: &Pipe): u8 { pipe.direction }

/// The pipe's number in its direction.
public fun index(pipe: &Pipe): u8 { pipe.index }

/// Number of the last frame that was sent.
public fun sequence(pipe: &Pipe): u64 { pipe.sequence }

/// Bytes of the frames sent, and how many of them were credited.
public fun metered(pipe: &Pipe): (u64, u64) { (pipe.metered, pipe.credited) }

// === Private ===

/// Remember that so many further bytes were credited, and say so.
fun note_credit(pipe: &mut Pipe, bytes: u64, amount: u128) {
    pipe.credited = pipe.credited + bytes;
    event::emit(Credited {
        channel: pipe.channel,
        direction: pipe.direction,
        index: pipe.index,
        bytes,
        amount,
    });
}

/// Bytes of all chunks together, at most those of a frame.
fun size_of(chunks: &vector<vector<u8>>): u64 {
    let mut size = 0;
    let mut i = 0;
    while (i < chunks.length()) {
        size = size + chunks[i].length();
        i = i + 1;
    };
    assert!(size <= MAX_FRAME_BYTES, EFrameTooLarge);
    size
}

/// The generic cell rate algorithm: each unit moves the theoretical arrival time on by the interval, and it may be at
/// most `burst` intervals ahead of now. Returns the new time.
fun gcra(tat: u128, now_ns: u128, rate: &Rate, units: u64): u128 {
    let interval = rate.interval_ns() as u128;
    if (interval == 0) return tat;
    let start = if (tat > now_ns) tat else now_ns;
    let next = start + interval * (units as u128);
    assert!(next <= now_ns + interval * (rate.burst() as u128), EOverRate);
    next
}
