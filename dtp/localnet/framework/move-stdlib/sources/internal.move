/// A value that only the module that defines `T` can make.
module std::internal;

public struct Permit<phantom T> has drop {}

/// The compiler lets only the module of `T` call this.
public fun permit<T>(): Permit<T> {
    Permit {}
}
