/// Functions of `u256`.
#[defines_primitive(u256)]
module std::u256;

use std::string::String;

public fun bitwise_not(x: u256): u256 {
    x ^ 0xffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff
}

public fun max(x: u256, y: u256): u256 {
    if (x > y) x else y
}

public fun min(x: u256, y: u256): u256 {
    if (x < y) x else y
}

public fun diff(x: u256, y: u256): u256 {
    if (x > y) x - y else y - x
}

public fun divide_and_round_up(x: u256, y: u256): u256 {
    if (x % y == 0) x / y else x / y + 1
}

/// Fails only if the power itself is too large.
public fun pow(mut base: u256, mut exponent: u8): u256 {
    let mut power = 1;
    while (exponent > 0) {
        if (exponent % 2 == 1) power = power * base;
        exponent = exponent / 2;
        if (exponent > 0) base = base * base;
    };
    power
}

public fun try_as_u8(x: u256): Option<u8> {
    if (x > 0xff) option::none() else option::some(x as u8)
}

public fun try_as_u16(x: u256): Option<u16> {
    if (x > 0xffff) option::none() else option::some(x as u16)
}

public fun try_as_u32(x: u256): Option<u32> {
    if (x > 0xffffffff) option::none() else option::some(x as u32)
}

public fun try_as_u64(x: u256): Option<u64> {
    if (x > 0xffffffffffffffff) option::none() else option::some(x as u64)
}

public fun try_as_u128(x: u256): Option<u128> {
    if (x > 0xffffffffffffffffffffffffffffffff) option::none() else option::some(x as u128)
}

/// Decimal digits.
public fun to_string(mut x: u256): String {
    if (x == 0) return std::string::utf8(b"0");
    let mut digits = vector[];
    while (x > 0) {
        digits.push_back((x % 10 as u8) + 48);
        x = x / 10;
    };
    digits.reverse();
    std::string::utf8(digits)
}
