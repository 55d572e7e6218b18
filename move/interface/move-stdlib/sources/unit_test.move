/// What our tests use of `std::unit_test`.
#[test_only]
module std::unit_test;

public native fun poison();

public native fun destroy<T>(v: T);
