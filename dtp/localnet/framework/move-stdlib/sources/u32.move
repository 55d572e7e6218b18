/// Functions of `u32`.
#[defines_primitive(u32)]
module std::u32;

use std::string::String;

public fun bitwise_not(x: u32): u32 {
    x ^ 0xffffffff
}

public fun max(x: u32, y: u32): u32 {
    if (x > y) x else y
}

public fun min(x: u32, y: u32): u32 {
    if (x < y) x else y
}

public fun diff(x: u32, y: u32): u32 {
    if (x > y) x - y else y - x
}

public fun divide_and_round_up(x: u32, y: u32): u32 {
    if (x % y == 0) x / y else x / y + 1
}

/// Fails only if the power itself is too large.
public fun pow(mut base: u32, mut exponent: u8): u32 {
    let mut power = 1;
    while (exponent > 0) {
        if (exponent % 2 == 1) power = power * base;
        exponent = exponent / 2;
        if (exponent > 0) base = base * base;
    };
    power
}

/// The largest number whose square is at most `x`.
public fun sqrt(x: u32): u32 {
    if (x < 2) return x;
    let wide = x as u256;
    let mut root = wide;
    let mut next = (wide + 1) / 2;
    while (next < root) {
        root = next;
        next = (root + wide / root) / 2;
    };
    root as u32
}

public fun try_as_u8(x: u32): Option<u8> {
    if (x > 0xff) option::none() else option::some(x as u8)
}

public fun try_as_u16(x: u32): Option<u16> {
    if (x > 0xffff) option::none() else option::some(x as u16)
}

/// Decimal digits.
public fun to_string(mut x: u32): String {
    if (x == 0) return std::string::utf8(b"0");
    let mut digits = vector[];
    while (x > 0) {
        digits.push_back((x % 10 as u8) + 48);
        x = x / 10;
    };
    digits.reverse();
    std::string::utf8(digits)
}
