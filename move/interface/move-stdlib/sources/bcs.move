/// What our packages use of `std::bcs`.
module std::bcs;

public native fun to_bytes<MoveValue>(v: &MoveValue): vector<u8>;
