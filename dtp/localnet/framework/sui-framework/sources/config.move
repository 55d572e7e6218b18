/// Settings that count from the next epoch on, so that all transactions of an epoch read the same.
module sui::config;

use sui::dynamic_field::{Self as field, Field};

const EAlreadySetForEpoch: u64 = 0;
const ENotSetForEpoch: u64 = 1;

public struct Config<phantom WriteCap> has key {
    id: UID,
}

public struct Setting<Value: copy + drop + store> has drop, store {
    data: Option<SettingData<Value>>,
}

/// `newer_value` was set in `newer_value_epoch` and counts after it; until then it is `older_value_opt`.
public struct SettingData<Value: copy + drop + store> has drop, store {
    newer_value_epoch: u64,
    newer_value: Option<Value>,
    older_value_opt: Option<Value>,
}

public(package) fun new<WriteCap>(_cap: &mut WriteCap, ctx: &mut TxContext): Config<WriteCap> {
    Config { id: object::new(ctx) }
}

public(package) fun share<WriteCap>(config: Config<WriteCap>) {
    transfer::share_object(config)
}

public(package) fun transfer<WriteCap>(config: Config<WriteCap>, owner: address) {
    transfer::transfer(config, owner)
}

#[allow(unused_mut_parameter)]
/// Set a value for the next epochs; what was to be forgotten by then is returned.
public(package) fun add_for_next_epoch<WriteCap, Name: copy + drop + store, Value: copy + drop + store>(
    config: &mut Config<WriteCap>,
    _cap: &mut WriteCap,
    name: Name,
    value: Value,
    ctx: &mut TxContext,
): Option<Value> {
    let epoch = ctx.epoch();
    let fresh = option::some(value);
    if (!field::exists_(&config.id, name)) {
        let data = SettingData { newer_value_epoch: epoch, newer_value: fresh, older_value_opt: option::none() };
        field::add(&mut config.id, name, Setting { data: option::some(data) });
        return option::none()
    };
    let setting: &mut Setting<Value> = field::borrow_mut(&mut config.id, name);
    let SettingData { newer_value_epoch, newer_value, older_value_opt } = setting.data.extract();
    let (older, gone) = if (newer_value_epoch < epoch) {
        (newer_value, older_value_opt)
    } else {
        assert!(newer_value.is_none(), EAlreadySetForEpoch);
        (older_value_opt, option::none())
    };
    setting.data.fill(SettingData { newer_value_epoch: epoch, newer_value: fresh, older_value_opt: older });
    gone
}

#[allow(unused_mut_parameter)]
/// Take a value away for the next epochs; what was set in this one is returned.
public(package) fun remove_for_next_epoch<WriteCap, Name: copy + drop + store, Value: copy + drop + store>(
    config: &mut Config<WriteCap>,
    _cap: &mut WriteCap,
    name: Name,
    ctx: &mut TxContext,
): Option<Value> {
    if (!field::exists_(&config.id, name)) return option::none();
    let epoch = ctx.epoch();
    let setting: &mut Setting<Value> = field::borrow_mut(&mut config.id, name);
    let SettingData { newer_value_epoch, newer_value, older_value_opt } = setting.data.extract();
    let (older, gone) = if (newer_value_epoch < epoch) {
        (newer_value, option::none())
    } else {
        (older_value_opt, newer_value)
    };
    let empty = older.is_none();
    setting
        .data
        .fill(SettingData { newer_value_epoch: epoch, newer_value: option::none(), older_value_opt: older });
    if (empty) {
        field::remove<Name, Setting<Value>>(&mut config.id, name);
    };
    gone
}

public(package) fun exists_with_type<WriteCap, Name: copy + drop + store, Value: copy + drop + store>(
    config: &Config<WriteCap>,
    name: Name,
): bool {
    field::exists_with_type<Name, Setting<Value>>(&config.id, name)
}

public(package) fun exists_with_type_for_next_epoch<
    WriteCap,
    Name: copy + drop + store,
    Value: copy + drop + store,
>(
    config: &Config<WriteCap>,
    name: Name,
    ctx: &TxContext,
): bool {
    if (!exists_with_type<WriteCap, Name, Value>(config, name)) return false;
    let setting: &Setting<Value> = field::borrow(&config.id, name);
    let data = setting.data.borrow();
    data.newer_value_epoch == ctx.epoch() && data.newer_value.is_some()
}

#[allow(unused_mut_parameter)]
public(package) fun borrow_for_next_epoch_mut<
    WriteCap,
    Name: copy + drop + store,
    Value: copy + drop + store,
>(
    config: &mut Config<WriteCap>,
    _cap: &mut WriteCap,
    name: Name,
    ctx: &mut TxContext,
): &mut Value {
    let epoch = ctx.epoch();
    let setting: &mut Setting<Value> = field::borrow_mut(&mut config.id, name);
    let data = setting.data.borrow_mut();
    assert!(data.newer_value_epoch == epoch && data.newer_value.is_some(), ENotSetForEpoch);
    data.newer_value.borrow_mut()
}

public(package) fun read_setting_for_next_epoch<
    WriteCap,
    Name: copy + drop + store,
    Value: copy + drop + store,
>(
    config: &Config<WriteCap>,
    name: Name,
): Option<Value> {
    if (!exists_with_type<WriteCap, Name, Value>(config, name)) return option::none();
    let setting: &Setting<Value> = field::borrow(&config.id, name);
    setting.data.borrow().newer_value
}

/// What counts in this epoch, of a configuration that needs not be an input of the transaction.
public(package) fun read_setting<Name: copy + drop + store, Value: copy + drop + store>(
    config: ID,
    name: Name,
    ctx: &TxContext,
): Option<Value> {
    let parent = config.to_address();
    let place = field::hash_type_and_key(parent, name);
    read_setting_impl<Field<Name, Setting<Value>>, Setting<Value>, SettingData<Value>, Value>(
        parent,
        place,
        ctx.epoch(),
    )
}

native fun read_setting_impl<
    FieldSettingValue: key,
    SettingValue: store,
    SettingDataValue: store,
    Value: copy + drop + store,
>(
    config: address,
    name: address,
    current_epoch: u64,
): Option<Value>;
