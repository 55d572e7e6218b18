/// Balances as objects, and the right to make them.
module sui::coin;

use std::ascii;
use std::string;
use std::type_name;
use sui::balance::{Self, Balance, Supply};
use sui::deny_list::DenyList;
use sui::url::{Self, Url};

public use fun sui::pay::split_vec as Coin.split_vec;
public use fun sui::pay::join_vec as Coin.join_vec;
public use fun sui::pay::split_and_transfer as Coin.split_and_transfer;
public use fun sui::pay::divide_and_keep as Coin.divide_and_keep;

const EBadWitness: u64 = 0;
const EInvalidArg: u64 = 1;
const ENotEnough: u64 = 2;
const EGlobalPauseNotAllowed: u64 = 3;

/// Where coins are in the deny list.
const DENY_LIST_COIN_INDEX: u64 = 0;

public struct Coin<phantom T> has key, store {
    id: UID,
    balance: Balance<T>,
}

public struct CoinMetadata<phantom T> has key, store {
    id: UID,
    decimals: u8,
    name: string::String,
    symbol: ascii::String,
    description: string::String,
    icon_url: Option<Url>,
}

public struct RegulatedCoinMetadata<phantom T> has key {
    id: UID,
    coin_metadata_object: ID,
    deny_cap_object: ID,
}

/// The right to deny addresses the use of a coin; and, where it may, to pause it for all.
public struct DenyCapV2<phantom T> has key, store {
    id: UID,
    allow_global_pause: bool,
}

/// The same by version 1 of the deny list.
public struct DenyCap<phantom T> has key, store {
    id: UID,
}

public struct TreasuryCap<phantom T> has key, store {
    id: UID,
    total_supply: Supply<T>,
}

public fun total_supply<T>(cap: &TreasuryCap<T>): u64 {
    cap.total_supply.value()
}

public fun treasury_into_supply<T>(treasury: TreasuryCap<T>): Supply<T> {
    let TreasuryCap { id, total_supply } = treasury;
    id.delete();
    total_supply
}

public fun supply_immut<T>(treasury: &TreasuryCap<T>): &Supply<T> {
    &treasury.total_supply
}

public fun supply_mut<T>(treasury: &mut TreasuryCap<T>): &mut Supply<T> {
    &mut treasury.total_supply
}

public fun value<T>(self: &Coin<T>): u64 {
    self.balance.value()
}

public fun balance<T>(coin: &Coin<T>): &Balance<T> {
    &coin.balance
}

public fun balance_mut<T>(coin: &mut Coin<T>): &mut Balance<T> {
    &mut coin.balance
}

public fun from_balance<T>(balance: Balance<T>, ctx: &mut TxContext): Coin<T> {
    Coin { id: object::new(ctx), balance }
}

public fun into_balance<T>(coin: Coin<T>): Balance<T> {
    let Coin { id, balance } = coin;
    id.delete();
    balance
}

public fun take<T>(balance: &mut Balance<T>, value: u64, ctx: &mut TxContext): Coin<T> {
    Coin { id: object::new(ctx), balance: balance.split(value) }
}

public fun put<T>(balance: &mut Balance<T>, coin: Coin<T>) {
    balance.join(coin.into_balance());
}

public entry fun join<T>(self: &mut Coin<T>, c: Coin<T>) {
    let Coin { id, balance } = c;
    id.delete();
    self.balance.join(balance);
}

public fun split<T>(self: &mut Coin<T>, split_amount: u64, ctx: &mut TxContext): Coin<T> {
    take(&mut self.balance, split_amount, ctx)
}

/// `n - 1` equal coins; what is left stays.
public fun divide_into_n<T>(self: &mut Coin<T>, n: u64, ctx: &mut TxContext): vector<Coin<T>> {
    assert!(n > 0, EInvalidArg);
    assert!(n <= self.value(), ENotEnough);
    let amount = self.value() / n;
    let mut coins = vector[];
    let mut made = 1;
    while (made < n) {
        coins.push_back(self.split(amount, ctx));
        made = made + 1;
    };
    coins
}

public fun zero<T>(ctx: &mut TxContext): Coin<T> {
    Coin { id: object::new(ctx), balance: balance::zero() }
}

public fun destroy_zero<T>(c: Coin<T>) {
    let Coin { id, balance } = c;
    id.delete();
    balance.destroy_zero()
}

#[deprecated]
public fun create_currency<T: drop>(
    witness: T,
    decimals: u8,
    symbol: vector<u8>,
    name: vector<u8>,
    description: vector<u8>,
    icon_url: Option<Url>,
    ctx: &mut TxContext,
): (TreasuryCap<T>, CoinMetadata<T>) {
    assert!(sui::types::is_one_time_witness(&witness), EBadWitness);
    (
        TreasuryCap { id: object::new(ctx), total_supply: balance::create_supply(witness) },
        CoinMetadata {
            id: object::new(ctx),
            decimals,
            name: string::utf8(name),
            symbol: ascii::string(symbol),
            description: string::utf8(description),
            icon_url,
        },
    )
}

#[deprecated]
#[allow(deprecated_usage)]
public fun create_regulated_currency_v2<T: drop>(
    witness: T,
    decimals: u8,
    symbol: vector<u8>,
    name: vector<u8>,
    description: vector<u8>,
    icon_url: Option<Url>,
    allow_global_pause: bool,
    ctx: &mut TxContext,
): (TreasuryCap<T>, DenyCapV2<T>, CoinMetadata<T>) {
    let (treasury, metadata) = create_currency(witness, decimals, symbol, name, description, icon_url, ctx);
    let cap = DenyCapV2 { id: object::new(ctx), allow_global_pause };
    note_regulated(&metadata, object::id(&cap), ctx);
    (treasury, cap, metadata)
}

#[deprecated]
#[allow(deprecated_usage)]
public fun create_regulated_currency<T: drop>(
    witness: T,
    decimals: u8,
    symbol: vector<u8>,
    name: vector<u8>,
    description: vector<u8>,
    icon_url: Option<Url>,
    ctx: &mut TxContext,
): (TreasuryCap<T>, DenyCap<T>, CoinMetadata<T>) {
    let (treasury, metadata) = create_currency(witness, decimals, symbol, name, description, icon_url, ctx);
    let cap = DenyCap { id: object::new(ctx) };
    note_regulated(&metadata, object::id(&cap), ctx);
    (treasury, cap, metadata)
}

fun note_regulated<T>(metadata: &CoinMetadata<T>, deny_cap_object: ID, ctx: &mut TxContext) {
    let id = object::new(ctx);
    let coin_metadata_object = object::id(metadata);
    transfer::freeze_object(RegulatedCoinMetadata<T> { id, coin_metadata_object, deny_cap_object })
}

public fun migrate_regulated_currency_to_v2<T>(
    deny_list: &mut DenyList,
    cap: DenyCap<T>,
    allow_global_pause: bool,
    ctx: &mut TxContext,
): DenyCapV2<T> {
    let DenyCap { id } = cap;
    id.delete();
    deny_list.migrate_v1_to_v2(DENY_LIST_COIN_INDEX, name_of<T>(), ctx);
    DenyCapV2 { id: object::new(ctx), allow_global_pause }
}

/// The type of a coin, as deny lists name it.
fun name_of<T>(): vector<u8> {
    type_name::with_original_ids<T>().into_string().into_bytes()
}

public fun mint<T>(cap: &mut TreasuryCap<T>, value: u64, ctx: &mut TxContext): Coin<T> {
    Coin { id: object::new(ctx), balance: cap.total_supply.increase_supply(value) }
}

public fun mint_balance<T>(cap: &mut TreasuryCap<T>, value: u64): Balance<T> {
    cap.total_supply.increase_supply(value)
}

#[allow(lint(public_entry))]
public entry fun burn<T>(cap: &mut TreasuryCap<T>, c: Coin<T>): u64 {
    let Coin { id, balance } = c;
    id.delete();
    cap.total_supply.decrease_supply(balance)
}

public fun deny_list_v2_add<T>(
    deny_list: &mut DenyList,
    _deny_cap: &mut DenyCapV2<T>,
    addr: address,
    ctx: &mut TxContext,
) {
    deny_list.v2_add(DENY_LIST_COIN_INDEX, name_of<T>(), addr, ctx)
}

public fun deny_list_v2_remove<T>(
    deny_list: &mut DenyList,
    _deny_cap: &mut DenyCapV2<T>,
    addr: address,
    ctx: &mut TxContext,
) {
    deny_list.v2_remove(DENY_LIST_COIN_INDEX, name_of<T>(), addr, ctx)
}

public fun deny_list_v2_contains_current_epoch<T>(deny_list: &DenyList, addr: address, ctx: &TxContext): bool {
    deny_list.v2_contains_current_epoch(DENY_LIST_COIN_INDEX, name_of<T>(), addr, ctx)
}

public fun deny_list_v2_contains_next_epoch<T>(deny_list: &DenyList, addr: address): bool {
    deny_list.v2_contains_next_epoch(DENY_LIST_COIN_INDEX, name_of<T>(), addr)
}

public fun deny_list_v2_enable_global_pause<T>(
    deny_list: &mut DenyList,
    deny_cap: &mut DenyCapV2<T>,
    ctx: &mut TxContext,
) {
    assert!(deny_cap.allow_global_pause, EGlobalPauseNotAllowed);
    deny_list.v2_enable_global_pause(DENY_LIST_COIN_INDEX, name_of<T>(), ctx)
}

public fun deny_list_v2_disable_global_pause<T>(
    deny_list: &mut DenyList,
    deny_cap: &mut DenyCapV2<T>,
    ctx: &mut TxContext,
) {
    assert!(deny_cap.allow_global_pause, EGlobalPauseNotAllowed);
    deny_list.v2_disable_global_pause(DENY_LIST_COIN_INDEX, name_of<T>(), ctx)
}

public fun deny_list_v2_is_global_pause_enabled_current_epoch<T>(deny_list: &DenyList, ctx: &TxContext): bool {
    deny_list.v2_is_global_pause_enabled_current_epoch(DENY_LIST_COIN_INDEX, name_of<T>(), ctx)
}

public fun deny_list_v2_is_global_pause_enabled_next_epoch<T>(deny_list: &DenyList): bool {
    deny_list.v2_is_global_pause_enabled_next_epoch(DENY_LIST_COIN_INDEX, name_of<T>())
}

#[deprecated]
public fun deny_list_add<T>(
    deny_list: &mut DenyList,
    _deny_cap: &mut DenyCap<T>,
    addr: address,
    _ctx: &mut TxContext,
) {
    deny_list.v1_add(DENY_LIST_COIN_INDEX, name_of<T>(), addr)
}

#[deprecated]
public fun deny_list_remove<T>(
    deny_list: &mut DenyList,
    _deny_cap: &mut DenyCap<T>,
    addr: address,
    _ctx: &mut TxContext,
) {
    deny_list.v1_remove(DENY_LIST_COIN_INDEX, name_of<T>(), addr)
}

#[deprecated]
public fun deny_list_contains<T>(deny_list: &DenyList, addr: address): bool {
    let name = type_name::with_original_ids<T>();
    !name.is_primitive() && deny_list.v1_contains(DENY_LIST_COIN_INDEX, name.into_string().into_bytes(), addr)
}

#[allow(lint(public_entry))]
public entry fun mint_and_transfer<T>(
    c: &mut TreasuryCap<T>,
    amount: u64,
    recipient: address,
    ctx: &mut TxContext,
) {
    transfer::public_transfer(c.mint(amount, ctx), recipient)
}

public entry fun update_name<T>(_treasury: &TreasuryCap<T>, metadata: &mut CoinMetadata<T>, name: string::String) {
    metadata.name = name;
}

public entry fun update_symbol<T>(_treasury: &TreasuryCap<T>, metadata: &mut CoinMetadata<T>, symbol: ascii::String) {
    metadata.symbol = symbol;
}

public entry fun update_description<T>(
    _treasury: &TreasuryCap<T>,
    metadata: &mut CoinMetadata<T>,
    description: string::String,
) {
    metadata.description = description;
}

public entry fun update_icon_url<T>(_treasury: &TreasuryCap<T>, metadata: &mut CoinMetadata<T>, url: ascii::String) {
    metadata.icon_url = option::some(url::new_unsafe(url));
}

public fun get_decimals<T>(metadata: &CoinMetadata<T>): u8 {
    metadata.decimals
}

public fun get_name<T>(metadata: &CoinMetadata<T>): string::String {
    metadata.name
}

public fun get_symbol<T>(metadata: &CoinMetadata<T>): ascii::String {
    metadata.symbol
}

public fun get_description<T>(metadata: &CoinMetadata<T>): string::String {
    metadata.description
}

public fun get_icon_url<T>(metadata: &CoinMetadata<T>): Option<Url> {
    metadata.icon_url
}

/// The older name of `supply_immut`.
public fun supply<T>(treasury: &mut TreasuryCap<T>): &Supply<T> {
    &treasury.total_supply
}

#[test_only]
public fun mint_for_testing<T>(value: u64, ctx: &mut TxContext): Coin<T> {
    Coin { id: object::new(ctx), balance: balance::create_for_testing(value) }
}

#[test_only]
public fun burn_for_testing<T>(coin: Coin<T>): u64 {
    let Coin { id, balance } = coin;
    id.delete();
    balance.destroy_for_testing()
}

#[test_only]
public fun create_treasury_cap_for_testing<T>(ctx: &mut TxContext): TreasuryCap<T> {
    TreasuryCap { id: object::new(ctx), total_supply: balance::create_supply_for_testing() }
}
