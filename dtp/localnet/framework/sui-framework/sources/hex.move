/// Bytes as hex digits and back.
module sui::hex;

const EInvalidHexLength: u64 = 0;
const ENotValidHexCharacter: u64 = 1;

public fun encode(bytes: vector<u8>): vector<u8> {
    let digits = b"0123456789abcdef";
    let mut text = vector[];
    let mut at = 0;
    while (at < bytes.length()) {
        let byte = bytes[at];
        text.push_back(digits[(byte / 16) as u64]);
        text.push_back(digits[(byte % 16) as u64]);
        at = at + 1;
    };
    text
}

public fun decode(hex: vector<u8>): vector<u8> {
    let length = hex.length();
    assert!(length % 2 == 0, EInvalidHexLength);
    let mut bytes = vector[];
    let mut at = 0;
    while (at < length) {
        bytes.push_back(decode_byte(hex[at]) * 16 + decode_byte(hex[at + 1]));
        at = at + 2;
    };
    bytes
}

fun decode_byte(hex: u8): u8 {
    if (hex >= 48 && hex <= 57) hex - 48
    else if (hex >= 65 && hex <= 70) hex - 55
    else if (hex >= 97 && hex <= 102) hex - 87
    else abort ENotValidHexCharacter
}
