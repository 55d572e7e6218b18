/// Text of bytes below 128.
module std::ascii;

const EInvalidASCIICharacter: u64 = 0x10000;
const EInvalidIndex: u64 = 0x10001;

public struct String has copy, drop, store {
    bytes: vector<u8>,
}

public struct Char has copy, drop, store {
    byte: u8,
}

public use fun std::string::from_ascii as String.to_string;

public fun char(byte: u8): Char {
    assert!(is_valid_char(byte), EInvalidASCIICharacter);
    Char { byte }
}

public fun string(bytes: vector<u8>): String {
    let parsed = try_string(bytes);
    assert!(parsed.is_some(), EInvalidASCIICharacter);
    parsed.destroy_some()
}

public fun try_string(bytes: vector<u8>): Option<String> {
    let length = bytes.length();
    let mut at = 0;
    while (at < length) {
        if (!is_valid_char(bytes[at])) return option::none();
        at = at + 1;
    };
    option::some(String { bytes })
}

public fun all_characters_printable(string: &String): bool {
    let length = string.bytes.length();
    let mut at = 0;
    while (at < length) {
        if (!is_printable_char(string.bytes[at])) return false;
        at = at + 1;
    };
    true
}

public fun push_char(string: &mut String, char: Char) {
    string.bytes.push_back(char.byte)
}

public fun pop_char(string: &mut String): Char {
    Char { byte: string.bytes.pop_back() }
}

public fun length(string: &String): u64 {
    string.bytes.length()
}

public fun append(string: &mut String, other: String) {
    string.bytes.append(other.into_bytes())
}

public fun insert(s: &mut String, at: u64, o: String) {
    assert!(at <= s.length(), EInvalidIndex);
    let mut inserted = o.into_bytes();
    while (!inserted.is_empty()) s.bytes.insert(inserted.pop_back(), at);
}

public fun substring(string: &String, i: u64, j: u64): String {
    assert!(i <= j && j <= string.length(), EInvalidIndex);
    let mut bytes = vector[];
    let mut at = i;
    while (at < j) {
        bytes.push_back(string.bytes[at]);
        at = at + 1;
    };
    String { bytes }
}

public fun as_bytes(string: &String): &vector<u8> {
    &string.bytes
}

public fun into_bytes(string: String): vector<u8> {
    let String { bytes } = string;
    bytes
}

public fun byte(char: Char): u8 {
    let Char { byte } = char;
    byte
}

public fun is_valid_char(b: u8): bool {
    b <= 0x7F
}

public fun is_printable_char(byte: u8): bool {
    byte >= 0x20 && byte <= 0x7E
}

public fun is_empty(string: &String): bool {
    string.bytes.is_empty()
}

public fun to_uppercase(string: &String): String {
    let mut bytes = string.bytes;
    let mut at = 0;
    while (at < bytes.length()) {
        let byte = &mut bytes[at];
        *byte = char_to_uppercase(*byte);
        at = at + 1;
    };
    String { bytes }
}

public fun to_lowercase(string: &String): String {
    let mut bytes = string.bytes;
    let mut at = 0;
    while (at < bytes.length()) {
        let byte = &mut bytes[at];
        *byte = char_to_lowercase(*byte);
        at = at + 1;
    };
    String { bytes }
}

/// Where `substr` starts in `string`, or the length of `string`.
public fun index_of(string: &String, substr: &String): u64 {
    let (n, m) = (string.length(), substr.length());
    if (m > n) return n;
    let mut at = 0;
    while (at + m <= n) {
        let mut same = 0;
        while (same < m && string.bytes[at + same] == substr.bytes[same]) same = same + 1;
        if (same == m) return at;
        at = at + 1;
    };
    n
}

fun char_to_uppercase(byte: u8): u8 {
    if (byte >= 0x61 && byte <= 0x7A) byte - 0x20 else byte
}

fun char_to_lowercase(byte: u8): u8 {
    if (byte >= 0x41 && byte <= 0x5A) byte + 0x20 else byte
}
