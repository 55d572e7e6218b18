/// Types as text.
module std::type_name;

use std::ascii::String;

const ASCII_COLON: u8 = 58;
const ASCII_V: u8 = 118;
const ASCII_E: u8 = 101;
const ASCII_C: u8 = 99;
const ASCII_T: u8 = 116;
const ASCII_O: u8 = 111;
const ASCII_R: u8 = 114;
const ENonModuleType: u64 = 0;

public struct TypeName has copy, drop, store {
    name: String,
}

public native fun with_defining_ids<T>(): TypeName;
public native fun with_original_ids<T>(): TypeName;
public native fun defining_id<T>(): address;
public native fun original_id<T>(): address;

public fun is_primitive(self: &TypeName): bool {
    let bytes = self.name.as_bytes();
    bytes == &b"bool" || bytes == &b"u8" || bytes == &b"u16" || bytes == &b"u32" || bytes == &b"u64"
        || bytes == &b"u128" || bytes == &b"u256" || bytes == &b"address" || starts_with_vector(bytes)
}

fun starts_with_vector(bytes: &vector<u8>): bool {
    let word = vector[ASCII_V, ASCII_E, ASCII_C, ASCII_T, ASCII_O, ASCII_R];
    if (bytes.length() < 6) return false;
    let mut at = 0;
    while (at < 6) {
        if (bytes[at] != word[at]) return false;
        at = at + 1;
    };
    true
}

public fun as_string(self: &TypeName): &String {
    &self.name
}

public fun address_string(self: &TypeName): String {
    assert!(!self.is_primitive(), ENonModuleType);
    self.name.substring(0, 64)
}

public fun module_string(self: &TypeName): String {
    assert!(!self.is_primitive(), ENonModuleType);
    // The name starts after 64 digits and two colons.
    let start = 66;
    let bytes = self.name.as_bytes();
    let mut end = start;
    while (bytes[end] != ASCII_COLON) end = end + 1;
    self.name.substring(start, end)
}

public fun into_string(self: TypeName): String {
    self.name
}

/// The older name of `with_defining_ids`.
public fun get<T>(): TypeName {
    with_defining_ids<T>()
}

/// The older name of `with_original_ids`.
public fun get_with_original_ids<T>(): TypeName {
    with_original_ids<T>()
}

/// The older name of `as_string`.
public fun borrow_string(self: &TypeName): &String {
    &self.name
}

/// The older name of `address_string`.
public fun get_address(self: &TypeName): String {
    self.address_string()
}

/// The older name of `module_string`.
public fun get_module(self: &TypeName): String {
    self.module_string()
}
