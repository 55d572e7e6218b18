/// What our packages use of `std::type_name`.
module std::type_name;

use std::ascii::String;

public struct TypeName has copy, drop, store {
    name: String,
}

public native fun with_defining_ids<T>(): TypeName;
