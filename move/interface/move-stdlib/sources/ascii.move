/// What our packages use of `std::ascii`.
module std::ascii;

public struct String has copy, drop, store {
    bytes: vector<u8>,
}
