/// Addresses as numbers, bytes and text.
module sui::address;

use std::ascii;
use std::bcs;
use std::string;
use sui::hex;


const LENGTH: u64 = 32;
const MAX: u256 = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFF;

const EAddressParseError: u64 = 0;

public native fun to_u256(a: address): u256;
public native fun from_u256(n: u256): address;
public native fun from_bytes(bytes: vector<u8>): address;

public fun to_bytes(a: address): vector<u8> {
    bcs::to_bytes(&a)
}

/// 64 hex digits without `0x`.
public fun to_ascii_string(a: address): ascii::String {
    ascii::string(hex::encode(to_bytes(a)))
}

/// 64 hex digits without `0x`.
public fun to_string(a: address): string::String {
    to_ascii_string(a).to_string()
}

/// The address that 64 hex digits mean.
public fun from_ascii_bytes(bytes: &vector<u8>): address {
    assert!(bytes.length() == 2 * LENGTH, EAddressParseError);
    let mut raw = vector[];
    let mut at = 0;
    while (at < 2 * LENGTH) {
        raw.push_back(hex_char_value(bytes[at]) * 16 + hex_char_value(bytes[at + 1]));
        at = at + 2;
    };
    from_bytes(raw)
}

fun hex_char_value(c: u8): u8 {
    if (c >= 48 && c <= 57) c - 48
    else if (c >= 65 && c <= 70) c - 55
    else if (c >= 97 && c <= 102) c - 87
    else abort EAddressParseError
}

public fun length(): u64 {
    LENGTH
}

public fun max(): u256 {
    MAX
}
