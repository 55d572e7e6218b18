/// What our packages use of `sui::balance`.
module sui::balance;

public struct Balance<phantom T> has store {
    value: u64,
}

public native fun value<T>(self: &Balance<T>): u64;

public native fun zero<T>(): Balance<T>;

public native fun join<T>(self: &mut Balance<T>, balance: Balance<T>): u64;

public native fun split<T>(self: &mut Balance<T>, value: u64): Balance<T>;

public native fun withdraw_all<T>(self: &mut Balance<T>): Balance<T>;

public native fun destroy_zero<T>(balance: Balance<T>);
