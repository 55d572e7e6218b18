/// Something of everything in the binary format, for the tests of the reader.
module probe::shapes;

use std::bcs;

#[error(code = 200)]
const ETooLarge: vector<u8> = b"too large";
#[error]
const EUncoded: vector<u8> = b"no number";
const PLAIN: u64 = 77;
const WORDS: vector<vector<u8>> = vector[b"ab", b""];
const NUMBERS: vector<u16> = vector[1, 515];
const FLAG: bool = true;
const HOME: address = @0xA11CE;
const WIDE: u256 = 115792089237316195423570985008687907853269984665640564039457584007913129639935;

public enum Shape has copy, drop, store {
    Dot,
    Circle { radius: u64 },
    Box(u32, u32),
}

public enum Maybe<T> has drop {
    Nothing,
    Some { value: T },
}

public struct Pair<phantom A, B: copy + drop> has copy, drop, store {
    first: vector<B>,
    second: B,
}

public fun area(shape: &Shape): u64 {
    match (shape) {
        Shape::Dot => 0,
        Shape::Circle { radius } => 3 * *radius * *radius,
        Shape::Box(width, height) => (*width as u64) * (*height as u64),
    }
}

public fun grow(shape: &mut Shape) {
    match (shape) {
        Shape::Circle { radius } => *radius = *radius + 1,
        _ => (),
    }
}

public fun box(width: u32, height: u32): Shape { Shape::Box(width, height) }

public fun or<T: drop>(maybe: Maybe<T>, other: T): T {
    match (maybe) {
        Maybe::Nothing => other,
        Maybe::Some { value } => value,
    }
}

public fun some<T>(value: T): Maybe<T> { Maybe::Some { value } }

public fun nothing<T>(): Maybe<T> { Maybe::Nothing }

public fun pair<A, B: copy + drop>(second: B): Pair<A, B> {
    Pair { first: vector[second, second], second }
}

public fun swap<A, B: copy + drop>(pair: &mut Pair<A, B>) {
    let old = pair.second;
    pair.second = pair.first[0];
    *&mut pair.first[1] = old;
    pair.first.swap(0, 1);
    pair.first.push_back(old);
    pair.first.pop_back();
}

entry fun check(value: u64): u8 {
    assert!(value < 1_000, ETooLarge);
    assert!(value < 2_000, EUncoded);
    assert!(value < 3_000, PLAIN);
    (value % 256) as u8
}

public fun constants(): (vector<vector<u8>>, vector<u16>, bool, address, u256) {
    (WORDS, NUMBERS, FLAG, HOME, WIDE)
}

public(package) fun numbers(a: u128, b: u16): vector<u8> {
    let mut sum = (b as u256) + (a as u256) << 3u8;
    sum = (sum ^ 5 | 9 & 7) >> 1u8;
    let small = (sum % 65_536) as u16;
    if (!(small >= 7) || small != 9 && a > 340282366920938463463374607431768211454) {
        bcs::to_bytes(&(small as u32 / 3 - 1))
    } else {
        bcs::to_bytes(&small)
    }
}

fun hidden(): u64 { 1 }

public fun loops(mut n: u64): u64 {
    let mut sum = 0;
    while (n > 0) {
        sum = sum + n * hidden();
        n = n - 1;
    };
    sum
}
