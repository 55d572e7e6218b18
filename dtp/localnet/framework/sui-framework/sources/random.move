/// Random numbers from the beacon's bytes of this moment, different for every generator.
module sui::random;

use std::bcs;
use sui::hmac::hmac_sha3_256;
use sui::versioned::{Self, Versioned};

const ENotSystemAddress: u64 = 0;
const EWrongInnerVersion: u64 = 1;
const EInvalidRandomnessUpdate: u64 = 2;
const EInvalidRange: u64 = 3;
const EInvalidLength: u64 = 4;

const CURRENT_VERSION: u64 = 1;
const BLOCK: u16 = 32;
const U16_MAX: u64 = 0xFFFF;

public struct Random has key {
    id: UID,
    inner: Versioned,
}

public struct RandomInner has store {
    version: u64,
    epoch: u64,
    randomness_round: u64,
    random_bytes: vector<u8>,
}

public struct RandomGenerator has drop {
    seed: vector<u8>,
    counter: u16,
    buffer: vector<u8>,
}

#[allow(unused_function)]
fun create(ctx: &mut TxContext) {
    assert!(ctx.sender() == @0x0, ENotSystemAddress);
    let inner = RandomInner {
        version: CURRENT_VERSION,
        epoch: ctx.epoch(),
        randomness_round: 0,
        random_bytes: vector[],
    };
    transfer::share_object(Random {
        id: object::randomness_state(),
        inner: versioned::create(CURRENT_VERSION, inner, ctx),
    })
}

fun load_inner_mut(self: &mut Random): &mut RandomInner {
    let version = self.inner.version();
    assert!(version == CURRENT_VERSION, EWrongInnerVersion);
    let inner: &mut RandomInner = self.inner.load_value_mut();
    assert!(inner.version == version, EWrongInnerVersion);
    inner
}

fun load_inner(self: &Random): &RandomInner {
    let version = self.inner.version();
    assert!(version == CURRENT_VERSION, EWrongInnerVersion);
    let inner: &RandomInner = self.inner.load_value();
    assert!(inner.version == version, EWrongInnerVersion);
    inner
}

/// Rounds count up from 0 in each epoch.
#[allow(unused_function)]
fun update_randomness_state(self: &mut Random, new_round: u64, new_bytes: vector<u8>, ctx: &TxContext) {
    assert!(ctx.sender() == @0x0, ENotSystemAddress);
    let epoch = ctx.epoch();
    let inner = self.load_inner_mut();
    if (inner.randomness_round == 0 && inner.epoch == 0 && inner.random_bytes.is_empty()) {
        assert!(new_round == 0, EInvalidRandomnessUpdate);
    } else {
        assert!(
            (epoch > inner.epoch && new_round == 0)
                || (epoch == inner.epoch && new_round == inner.randomness_round + 1),
            EInvalidRandomnessUpdate,
        );
    };
    inner.epoch = epoch;
    inner.randomness_round = new_round;
    inner.random_bytes = new_bytes;
}

public fun new_generator(r: &Random, ctx: &mut TxContext): RandomGenerator {
    let inner = r.load_inner();
    let seed = hmac_sha3_256(&inner.random_bytes, &bcs::to_bytes(&ctx.fresh_object_address()));
    RandomGenerator { seed, counter: 0, buffer: vector[] }
}

fun derive_next_block(g: &mut RandomGenerator): vector<u8> {
    g.counter = g.counter + 1;
    hmac_sha3_256(&g.seed, &bcs::to_bytes(&g.counter))
}

/// Whole blocks go out directly; only the rest is taken from the buffer.
public fun generate_bytes(g: &mut RandomGenerator, num_of_bytes: u16): vector<u8> {
    let mut bytes = vector[];
    let mut blocks = num_of_bytes / BLOCK;
    while (blocks > 0) {
        bytes.append(g.derive_next_block());
        blocks = blocks - 1;
    };
    let wanted = num_of_bytes as u64;
    g.refill(wanted - bytes.length());
    while (bytes.length() < wanted) bytes.push_back(g.buffer.pop_back());
    bytes
}

fun refill(g: &mut RandomGenerator, wanted: u64) {
    if (g.buffer.length() < wanted) {
        let block = g.derive_next_block();
        g.buffer.append(block);
    }
}

fun number(g: &mut RandomGenerator, size: u64): u256 {
    g.refill(size);
    let mut value = 0u256;
    let mut left = size;
    while (left > 0) {
        value = (value << 8) | (g.buffer.pop_back() as u256);
        left = left - 1;
    };
    value
}

public fun generate_u256(g: &mut RandomGenerator): u256 {
    number(g, 32)
}

public fun generate_u128(g: &mut RandomGenerator): u128 {
    number(g, 16) as u128
}

public fun generate_u64(g: &mut RandomGenerator): u64 {
    number(g, 8) as u64
}

public fun generate_u32(g: &mut RandomGenerator): u32 {
    number(g, 4) as u32
}

public fun generate_u16(g: &mut RandomGenerator): u16 {
    number(g, 2) as u16
}

public fun generate_u8(g: &mut RandomGenerator): u8 {
    number(g, 1) as u8
}

public fun generate_bool(g: &mut RandomGenerator): bool {
    generate_u8(g) % 2 == 1
}

/// `size` has eight bytes more than the type, so that the remainder's bias can be neglected.
fun in_range(g: &mut RandomGenerator, min: u256, max: u256, size: u64): u256 {
    assert!(min <= max, EInvalidRange);
    if (min == max) return min;
    min + number(g, size) % (max - min + 1)
}

public fun generate_u128_in_range(g: &mut RandomGenerator, min: u128, max: u128): u128 {
    in_range(g, min as u256, max as u256, 24) as u128
}

public fun generate_u64_in_range(g: &mut RandomGenerator, min: u64, max: u64): u64 {
    in_range(g, min as u256, max as u256, 16) as u64
}

public fun generate_u32_in_range(g: &mut RandomGenerator, min: u32, max: u32): u32 {
    in_range(g, min as u256, max as u256, 12) as u32
}

public fun generate_u16_in_range(g: &mut RandomGenerator, min: u16, max: u16): u16 {
    in_range(g, min as u256, max as u256, 10) as u16
}

public fun generate_u8_in_range(g: &mut RandomGenerator, min: u8, max: u8): u8 {
    in_range(g, min as u256, max as u256, 9) as u8
}

public fun shuffle<T>(g: &mut RandomGenerator, v: &mut vector<T>) {
    let length = v.length();
    assert!(length <= U16_MAX, EInvalidLength);
    if (length == 0) return;
    let end = (length as u16) - 1;
    let mut at = 0;
    while (at < end) {
        let other = generate_u16_in_range(g, at, end);
        v.swap(at as u64, other as u64);
        at = at + 1;
    }
}

#[test_only]
public fun create_for_testing(ctx: &mut TxContext) {
    create(ctx)
}

#[test_only]
public fun update_randomness_state_for_testing(
    self: &mut Random,
    new_round: u64,
    new_bytes: vector<u8>,
    ctx: &TxContext,
) {
    update_randomness_state(self, new_round, new_bytes, ctx)
}

#[test_only]
public fun new_generator_for_testing(): RandomGenerator {
    new_generator_from_seed_for_testing(b"any seed, the same in every test")
}

#[test_only]
public fun new_generator_from_seed_for_testing(seed: vector<u8>): RandomGenerator {
    RandomGenerator { seed, counter: 0, buffer: vector[] }
}
