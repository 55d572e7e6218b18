/// Values out of bytes, one after the other. The bytes are kept reversed, so that taking from the front is cheap.
module sui::bcs;

use std::bcs;
use sui::address;

const EOutOfRange: u64 = 0;
const ENotBool: u64 = 1;
const ELenOutOfRange: u64 = 2;

public struct BCS has copy, drop, store {
    bytes: vector<u8>,
}

public fun to_bytes<T>(value: &T): vector<u8> {
    bcs::to_bytes(value)
}

public fun new(mut bytes: vector<u8>): BCS {
    bytes.reverse();
    BCS { bytes }
}

public fun into_remainder_bytes(bcs: BCS): vector<u8> {
    let BCS { mut bytes } = bcs;
    bytes.reverse();
    bytes
}

public fun peel_address(bcs: &mut BCS): address {
    assert!(bcs.bytes.length() >= address::length(), EOutOfRange);
    let mut raw = vector[];
    while (raw.length() < address::length()) raw.push_back(bcs.bytes.pop_back());
    address::from_bytes(raw)
}

public fun peel_bool(bcs: &mut BCS): bool {
    let value = bcs.peel_u8();
    assert!(value <= 1, ENotBool);
    value == 1
}

public fun peel_u8(bcs: &mut BCS): u8 {
    assert!(bcs.bytes.length() >= 1, EOutOfRange);
    bcs.bytes.pop_back()
}

public fun peel_u16(bcs: &mut BCS): u16 {
    peel_number(bcs, 2) as u16
}

public fun peel_u32(bcs: &mut BCS): u32 {
    peel_number(bcs, 4) as u32
}

public fun peel_u64(bcs: &mut BCS): u64 {
    peel_number(bcs, 8) as u64
}

public fun peel_u128(bcs: &mut BCS): u128 {
    peel_number(bcs, 16) as u128
}

public fun peel_u256(bcs: &mut BCS): u256 {
    peel_number(bcs, 32)
}

/// A little-endian number of `size` bytes.
fun peel_number(bcs: &mut BCS, size: u64): u256 {
    assert!(bcs.bytes.length() >= size, EOutOfRange);
    let mut number = 0u256;
    let mut at = 0;
    while (at < size) {
        number = number | ((bcs.bytes.pop_back() as u256) << (8 * at as u8));
        at = at + 1;
    };
    number
}

/// A length in ULEB128, of at most four bytes here.
public fun peel_vec_length(bcs: &mut BCS): u64 {
    let (mut total, mut shift, mut read) = (0u64, 0, 0u8);
    loop {
        assert!(read <= 4, ELenOutOfRange);
        let byte = bcs.bytes.pop_back() as u64;
        read = read + 1;
        total = total | ((byte & 0x7F) << shift);
        if (byte & 0x80 == 0) break;
        shift = shift + 7;
    };
    total
}

public fun peel_vec_address(bcs: &mut BCS): vector<address> {
    let length = bcs.peel_vec_length();
    let mut items = vector[];
    while (items.length() < length) items.push_back(bcs.peel_address());
    items
}

public fun peel_vec_bool(bcs: &mut BCS): vector<bool> {
    let length = bcs.peel_vec_length();
    let mut items = vector[];
    while (items.length() < length) items.push_back(bcs.peel_bool());
    items
}

public fun peel_vec_u8(bcs: &mut BCS): vector<u8> {
    let length = bcs.peel_vec_length();
    let mut items = vector[];
    while (items.length() < length) items.push_back(bcs.peel_u8());
    items
}

public fun peel_vec_vec_u8(bcs: &mut BCS): vector<vector<u8>> {
    let length = bcs.peel_vec_length();
    let mut items = vector[];
    while (items.length() < length) items.push_back(bcs.peel_vec_u8());
    items
}

public fun peel_vec_u16(bcs: &mut BCS): vector<u16> {
    let length = bcs.peel_vec_length();
    let mut items = vector[];
    while (items.length() < length) items.push_back(bcs.peel_u16());
    items
}

public fun peel_vec_u32(bcs: &mut BCS): vector<u32> {
    let length = bcs.peel_vec_length();
    let mut items = vector[];
    while (items.length() < length) items.push_back(bcs.peel_u32());
    items
}

public fun peel_vec_u64(bcs: &mut BCS): vector<u64> {
    let length = bcs.peel_vec_length();
    let mut items = vector[];
    while (items.length() < length) items.push_back(bcs.peel_u64());
    items
}

public fun peel_vec_u128(bcs: &mut BCS): vector<u128> {
    let length = bcs.peel_vec_length();
    let mut items = vector[];
    while (items.length() < length) items.push_back(bcs.peel_u128());
    items
}

public fun peel_vec_u256(bcs: &mut BCS): vector<u256> {
    let length = bcs.peel_vec_length();
    let mut items = vector[];
    while (items.length() < length) items.push_back(bcs.peel_u256());
    items
}

public fun peel_enum_tag(bcs: &mut BCS): u32 {
    let tag = bcs.peel_vec_length();
    assert!(tag <= 0xFFFFFFFF, EOutOfRange);
    tag as u32
}

public fun peel_option_address(bcs: &mut BCS): Option<address> {
    if (bcs.peel_bool()) option::some(bcs.peel_address()) else option::none()
}

public fun peel_option_bool(bcs: &mut BCS): Option<bool> {
    if (bcs.peel_bool()) option::some(bcs.peel_bool()) else option::none()
}

public fun peel_option_u8(bcs: &mut BCS): Option<u8> {
    if (bcs.peel_bool()) option::some(bcs.peel_u8()) else option::none()
}

public fun peel_option_u16(bcs: &mut BCS): Option<u16> {
    if (bcs.peel_bool()) option::some(bcs.peel_u16()) else option::none()
}

public fun peel_option_u32(bcs: &mut BCS): Option<u32> {
    if (bcs.peel_bool()) option::some(bcs.peel_u32()) else option::none()
}

public fun peel_option_u64(bcs: &mut BCS): Option<u64> {
    if (bcs.peel_bool()) option::some(bcs.peel_u64()) else option::none()
}

public fun peel_option_u128(bcs: &mut BCS): Option<u128> {
    if (bcs.peel_bool()) option::some(bcs.peel_u128()) else option::none()
}

public fun peel_option_u256(bcs: &mut BCS): Option<u256> {
    if (bcs.peel_bool()) option::some(bcs.peel_u256()) else option::none()
}
