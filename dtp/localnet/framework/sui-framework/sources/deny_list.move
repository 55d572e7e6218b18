/// Who may not use coins of a type (object 0x403). What is denied by version 2 counts at once for who sends, and from the
/// next epoch on for who receives; what is denied by version 1 counts for who sends only.
module sui::deny_list;

use sui::bag::{Self, Bag};
use sui::config::{Self, Config};
use sui::dynamic_object_field as ofield;
use sui::event;
use sui::table::{Self, Table};
use sui::vec_set::{Self, VecSet};

const ENotSystemAddress: u64 = 0;
const ENotDenied: u64 = 1;
const EInvalidAddress: u64 = 1;

/// Where coins are in `lists`.
const COIN_INDEX: u64 = 0;

public struct DenyList has key {
    id: UID,
    lists: Bag,
}

public struct ConfigWriteCap() has drop;

public struct ConfigKey has copy, drop, store {
    per_type_index: u64,
    per_type_key: vector<u8>,
}

public struct AddressKey(address) has copy, drop, store;

public struct GlobalPauseKey() has copy, drop, store;

public struct PerTypeConfigCreated has copy, drop, store {
    key: ConfigKey,
    config_id: ID,
}

public struct PerTypeList has key, store {
    id: UID,
    denied_count: Table<address, u64>,
    denied_addresses: Table<vector<u8>, VecSet<address>>,
}

// Version 2.

public(package) fun v2_add(
    deny_list: &mut DenyList,
    per_type_index: u64,
    per_type_key: vector<u8>,
    addr: address,
    ctx: &mut TxContext,
) {
    deny_list.set(ConfigKey { per_type_index, per_type_key }, AddressKey(addr), ctx)
}

public(package) fun v2_remove(
    deny_list: &mut DenyList,
    per_type_index: u64,
    per_type_key: vector<u8>,
    addr: address,
    ctx: &mut TxContext,
) {
    deny_list.unset(ConfigKey { per_type_index, per_type_key }, AddressKey(addr), ctx)
}

public(package) fun v2_contains_current_epoch(
    deny_list: &DenyList,
    per_type_index: u64,
    per_type_key: vector<u8>,
    addr: address,
    ctx: &TxContext,
): bool {
    deny_list.counts(ConfigKey { per_type_index, per_type_key }, AddressKey(addr), ctx)
}

public(package) fun v2_contains_next_epoch(
    deny_list: &DenyList,
    per_type_index: u64,
    per_type_key: vector<u8>,
    addr: address,
): bool {
    deny_list.will_count(ConfigKey { per_type_index, per_type_key }, AddressKey(addr))
}

public(package) fun v2_enable_global_pause(
    deny_list: &mut DenyList,
    per_type_index: u64,
    per_type_key: vector<u8>,
    ctx: &mut TxContext,
) {
    deny_list.set(ConfigKey { per_type_index, per_type_key }, GlobalPauseKey(), ctx)
}

public(package) fun v2_disable_global_pause(
    deny_list: &mut DenyList,
    per_type_index: u64,
    per_type_key: vector<u8>,
    ctx: &mut TxContext,
) {
    deny_list.unset(ConfigKey { per_type_index, per_type_key }, GlobalPauseKey(), ctx)
}

public(package) fun v2_is_global_pause_enabled_current_epoch(
    deny_list: &DenyList,
    per_type_index: u64,
    per_type_key: vector<u8>,
    ctx: &TxContext,
): bool {
    deny_list.counts(ConfigKey { per_type_index, per_type_key }, GlobalPauseKey(), ctx)
}

public(package) fun v2_is_global_pause_enabled_next_epoch(
    deny_list: &DenyList,
    per_type_index: u64,
    per_type_key: vector<u8>,
): bool {
    deny_list.will_count(ConfigKey { per_type_index, per_type_key }, GlobalPauseKey())
}

/// Take who is denied by version 1 over into version 2.
public(package) fun migrate_v1_to_v2(
    deny_list: &mut DenyList,
    per_type_index: u64,
    per_type_key: vector<u8>,
    ctx: &mut TxContext,
) {
    let list: &mut PerTypeList = &mut deny_list.lists[per_type_index];
    let denied = if (list.denied_addresses.contains(per_type_key)) {
        list.denied_addresses.remove(per_type_key).into_keys()
    } else {
        vector[]
    };
    let mut at = 0;
    while (at < denied.length()) {
        list.count_less(denied[at]);
        at = at + 1;
    };
    while (at > 0) {
        at = at - 1;
        deny_list.set(ConfigKey { per_type_index, per_type_key }, AddressKey(denied[at]), ctx);
    };
}

fun set<Name: copy + drop + store>(deny_list: &mut DenyList, key: ConfigKey, name: Name, ctx: &mut TxContext) {
    let config = config_mut!(deny_list, key, ctx);
    let cap = &mut ConfigWriteCap();
    if (!config.exists_with_type_for_next_epoch<ConfigWriteCap, Name, bool>(name, ctx)) {
        config.add_for_next_epoch(cap, name, true, ctx);
    };
    *config.borrow_for_next_epoch_mut<ConfigWriteCap, Name, bool>(cap, name, ctx) = true;
}

fun unset<Name: copy + drop + store>(deny_list: &mut DenyList, key: ConfigKey, name: Name, ctx: &mut TxContext) {
    let config = config_mut!(deny_list, key, ctx);
    config.remove_for_next_epoch<ConfigWriteCap, Name, bool>(&mut ConfigWriteCap(), name, ctx);
}

/// The configuration of a type, made where there is none.
macro fun config_mut($deny_list: &mut DenyList, $key: ConfigKey, $ctx: &mut TxContext): &mut Config<ConfigWriteCap> {
    let deny_list = $deny_list;
    let key = $key;
    let ctx = $ctx;
    if (!ofield::exists_(&deny_list.id, key)) {
        let config = config::new(&mut ConfigWriteCap(), ctx);
        let config_id = object::id(&config);
        ofield::internal_add(&mut deny_list.id, key, config);
        event::emit(PerTypeConfigCreated { key, config_id });
    };
    ofield::internal_borrow_mut(&mut deny_list.id, key)
}

fun counts<Name: copy + drop + store>(deny_list: &DenyList, key: ConfigKey, name: Name, ctx: &TxContext): bool {
    if (!ofield::exists_(&deny_list.id, key)) return false;
    let config: &Config<ConfigWriteCap> = ofield::internal_borrow(&deny_list.id, key);
    config::read_setting(object::id(config), name, ctx).destroy_with_default(false)
}

fun will_count<Name: copy + drop + store>(deny_list: &DenyList, key: ConfigKey, name: Name): bool {
    if (!ofield::exists_(&deny_list.id, key)) return false;
    let config: &Config<ConfigWriteCap> = ofield::internal_borrow(&deny_list.id, key);
    config.read_setting_for_next_epoch(name).destroy_with_default(false)
}

// Version 1.

public(package) fun v1_add(deny_list: &mut DenyList, per_type_index: u64, `type`: vector<u8>, addr: address) {
    assert!(!is_reserved(addr), EInvalidAddress);
    let list: &mut PerTypeList = &mut deny_list.lists[per_type_index];
    if (!list.denied_addresses.contains(`type`)) {
        list.denied_addresses.add(`type`, vec_set::empty());
    };
    let denied = &mut list.denied_addresses[`type`];
    if (denied.contains(&addr)) return;
    denied.insert(addr);
    if (!list.denied_count.contains(addr)) {
        list.denied_count.add(addr, 0);
    };
    let count = &mut list.denied_count[addr];
    *count = *count + 1;
}

public(package) fun v1_remove(deny_list: &mut DenyList, per_type_index: u64, `type`: vector<u8>, addr: address) {
    assert!(!is_reserved(addr), EInvalidAddress);
    let list: &mut PerTypeList = &mut deny_list.lists[per_type_index];
    let denied = &mut list.denied_addresses[`type`];
    assert!(denied.contains(&addr), ENotDenied);
    denied.remove(&addr);
    list.count_less(addr);
}

public(package) fun v1_contains(deny_list: &DenyList, per_type_index: u64, `type`: vector<u8>, addr: address): bool {
    if (is_reserved(addr)) return false;
    let list: &PerTypeList = &deny_list.lists[per_type_index];
    let counted = list.denied_count.contains(addr) && list.denied_count[addr] > 0;
    counted && list.denied_addresses.contains(`type`) && list.denied_addresses[`type`].contains(&addr)
}

/// In how many types an address is denied: one fewer.
fun count_less(list: &mut PerTypeList, addr: address) {
    let count = &mut list.denied_count[addr];
    *count = *count - 1;
    if (*count == 0) {
        list.denied_count.remove(addr);
    }
}

/// Addresses of the system: nobody denies them.
fun is_reserved(addr: address): bool {
    let number = sui::address::to_u256(addr);
    number < 0x10 || number == 0x403 || number == 0xDEE9
}

#[allow(unused_function)]
/// Only genesis calls it.
fun create(ctx: &mut TxContext) {
    assert!(ctx.sender() == @0x0, ENotSystemAddress);
    let coins = PerTypeList {
        id: object::new(ctx),
        denied_count: table::new(ctx),
        denied_addresses: table::new(ctx),
    };
    let mut lists = bag::new(ctx);
    lists.add(COIN_INDEX, coins);
    transfer::share_object(DenyList { id: object::sui_deny_list_object_id(), lists })
}

#[test_only]
public fun create_for_testing(ctx: &mut TxContext) {
    create(ctx)
}
