/// What our packages and tests use of `sui::coin`, and packages on top of them.
module sui::coin;

use sui::balance::Balance;

public struct Coin<phantom T> has key, store {
    id: UID,
    balance: Balance<T>,
}

public native fun value<T>(self: &Coin<T>): u64;

public native fun from_balance<T>(balance: Balance<T>, ctx: &mut TxContext): Coin<T>;

public native fun into_balance<T>(coin: Coin<T>): Balance<T>;

public native fun split<T>(self: &mut Coin<T>, split_amount: u64, ctx: &mut TxContext): Coin<T>;

public native fun join<T>(self: &mut Coin<T>, c: Coin<T>);

public native fun zero<T>(ctx: &mut TxContext): Coin<T>;

public native fun destroy_zero<T>(c: Coin<T>);

#[test_only]
public native fun mint_for_testing<T>(value: u64, ctx: &mut TxContext): Coin<T>;

#[test_only]
public native fun burn_for_testing<T>(coin: Coin<T>): u64;
