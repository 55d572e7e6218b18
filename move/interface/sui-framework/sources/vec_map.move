/// What our packages use of `sui::vec_map`.
module sui::vec_map;

public struct VecMap<K: copy, V> has copy, drop, store {
    contents: vector<Entry<K, V>>,
}

public struct Entry<K: copy, V> has copy, drop, store {
    key: K,
    value: V,
}

public native fun empty<K: copy, V>(): VecMap<K, V>;

public native fun insert<K: copy, V>(self: &mut VecMap<K, V>, key: K, value: V);

public native fun remove<K: copy, V>(self: &mut VecMap<K, V>, key: &K): (K, V);

public native fun contains<K: copy, V>(self: &VecMap<K, V>, key: &K): bool;

public native fun length<K: copy, V>(self: &VecMap<K, V>): u64;

public native fun get_idx_opt<K: copy, V>(self: &VecMap<K, V>, key: &K): Option<u64>;

public native fun get_entry_by_idx<K: copy, V>(self: &VecMap<K, V>, idx: u64): (&K, &V);

public native fun get_entry_by_idx_mut<K: copy, V>(self: &mut VecMap<K, V>, idx: u64): (&K, &mut V);
