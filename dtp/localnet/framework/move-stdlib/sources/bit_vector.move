/// A row of bits of fixed length.
module std::bit_vector;

const EIndex: u64 = 0x20000;
const ELength: u64 = 0x20001;

#[test_only]
const WORD_SIZE: u64 = 1;
const MAX_SIZE: u64 = 1024;

public struct BitVector has copy, drop, store {
    length: u64,
    bit_field: vector<bool>,
}

/// All bits are clear.
public fun new(length: u64): BitVector {
    assert!(length > 0 && length < MAX_SIZE, ELength);
    let mut bit_field = vector[];
    while (bit_field.length() < length) bit_field.push_back(false);
    BitVector { length, bit_field }
}

public fun set(bitvector: &mut BitVector, bit_index: u64) {
    bitvector.write(bit_index, true)
}

public fun unset(bitvector: &mut BitVector, bit_index: u64) {
    bitvector.write(bit_index, false)
}

fun write(bitvector: &mut BitVector, bit_index: u64, bit: bool) {
    assert!(bit_index < bitvector.bit_field.length(), EIndex);
    *&mut bitvector.bit_field[bit_index] = bit
}

/// Bits move to lower indices; clear ones follow.
public fun shift_left(bitvector: &mut BitVector, amount: u64) {
    let length = bitvector.bit_field.length();
    let mut at = 0;
    while (at < length) {
        let moved = amount < length && at < length - amount && bitvector.is_index_set(at + amount);
        bitvector.write(at, moved);
        at = at + 1;
    }
}

public fun is_index_set(bitvector: &BitVector, bit_index: u64): bool {
    assert!(bit_index < bitvector.bit_field.length(), EIndex);
    bitvector.bit_field[bit_index]
}

public fun length(bitvector: &BitVector): u64 {
    bitvector.bit_field.length()
}

/// How many bits are set in a row, from `start_index`.
public fun longest_set_sequence_starting_at(bitvector: &BitVector, start_index: u64): u64 {
    assert!(start_index < bitvector.length, EIndex);
    let mut at = start_index;
    while (at < bitvector.length && bitvector.bit_field[at]) at = at + 1;
    at - start_index
}

#[test_only]
public fun word_size(): u64 {
    WORD_SIZE
}
