/// What our packages and tests use of `sui::clock`.
module sui::clock;

public struct Clock has key {
    id: UID,
    timestamp_ms: u64,
}

public native fun timestamp_ms(clock: &Clock): u64;

#[test_only]
public native fun create_for_testing(ctx: &mut TxContext): Clock;

#[test_only]
public native fun increment_for_testing(clock: &mut Clock, tick: u64);

#[test_only]
public native fun set_for_testing(clock: &mut Clock, timestamp_ms: u64);

#[test_only]
public native fun destroy_for_testing(clock: Clock);
