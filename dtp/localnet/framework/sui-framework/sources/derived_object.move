/// Objects whose ids are derived from a parent and a key: each can be claimed once.
module sui::derived_object;

use sui::dynamic_field as field;

#[error]
const EObjectAlreadyExists: vector<u8> = b"Derived object is already claimed.";

public struct Claimed(ID) has copy, drop, store;

public struct DerivedObjectKey<K: copy + drop + store>(K) has copy, drop, store;

public enum ClaimedStatus has store {
    Reserved,
}

public fun claim<K: copy + drop + store>(parent: &mut UID, key: K): UID {
    let address = derive_address(parent.to_inner(), key);
    let id = object::id_from_address(address);
    assert!(!field::exists_(parent, Claimed(id)), EObjectAlreadyExists);
    let uid = object::new_uid_from_hash(address);
    field::add(parent, Claimed(id), ClaimedStatus::Reserved);
    uid
}

public fun exists<K: copy + drop + store>(parent: &UID, key: K): bool {
    let address = derive_address(parent.to_inner(), key);
    field::exists_(parent, Claimed(object::id_from_address(address)))
}

public fun derive_address<K: copy + drop + store>(parent: ID, key: K): address {
    field::hash_type_and_key(parent.to_address(), DerivedObjectKey(key))
}
