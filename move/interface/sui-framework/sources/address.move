/// What our packages use of `sui::address`.
module sui::address;

public native fun from_bytes(bytes: vector<u8>): address;
