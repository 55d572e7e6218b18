/// What our tests use of `sui::sui`.
module sui::sui;

public struct SUI has drop {}
