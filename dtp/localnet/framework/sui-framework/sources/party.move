/// Who may use an object, by permissions. Only one owner with all of them is possible by now.
module sui::party;

use sui::vec_map::{Self, VecMap};

const READ: u8 = 0x01;
const WRITE: u8 = 0x02;
const DELETE: u8 = 0x04;
const TRANSFER: u8 = 0x08;
const NO_PERMISSIONS: u64 = 0;
const ALL_PERMISSIONS: u64 = (READ | WRITE | DELETE | TRANSFER) as u64;

public struct Party has copy, drop {
    default: Permissions,
    members: VecMap<address, Permissions>,
}

public struct Permissions(u64) has copy, drop;

public fun single_owner(owner: address): Party {
    let mut party = empty();
    party.set_permissions(owner, Permissions(ALL_PERMISSIONS));
    party
}

fun empty(): Party {
    Party { default: Permissions(NO_PERMISSIONS), members: vec_map::empty() }
}

fun set_permissions(p: &mut Party, address: address, permissions: Permissions) {
    if (p.members.contains(&address)) {
        p.members.remove(&address);
    };
    p.members.insert(address, permissions);
}

public(package) fun is_single_owner(p: &Party): bool {
    if (p.default.0 != NO_PERMISSIONS || p.members.length() != 1) return false;
    let (_, permissions) = p.members.get_entry_by_idx(0);
    permissions.0 == ALL_PERMISSIONS
}

public(package) fun into_native(p: Party): (u64, vector<address>, vector<u64>) {
    let Party { default, members } = p;
    let (addresses, permissions) = members.into_keys_values();
    let mut numbers = vector[];
    let mut at = 0;
    while (at < permissions.length()) {
        numbers.push_back(permissions[at].0);
        at = at + 1;
    };
    (default.0, addresses, numbers)
}
