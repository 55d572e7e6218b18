/// Helpers of Move unit tests.
#[test_only]
module std::unit_test;

/// Called by every module compiled for tests, so that it links nowhere else.
public native fun poison();

/// Make a value of any type go away.
public native fun destroy<T>(v: T);

/// Abort unless the two are equal.
public macro fun assert_eq<$T: drop>($t1: $T, $t2: $T) {
    let t1 = $t1;
    let t2 = $t2;
    assert_ref_eq!(&t1, &t2)
}

/// Abort unless the two are equal, by reference.
public macro fun assert_ref_eq<$T>($t1: &$T, $t2: &$T) {
    let t1 = $t1;
    let t2 = $t2;
    let equal = t1 == t2;
    if (!equal) {
        std::debug::print(t1);
        std::debug::print(t2);
        assert!(false);
    }
}
