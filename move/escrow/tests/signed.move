/// Signatures for the tests. Written by `tests/move/signed_fixtures.py`; don't edit.
#[test_only]
module escrow::signed;

public fun key_a(): vector<u8> { x"ed4928c628d1c2c6eae90338905995612959273a5c63f93636c14614ac8737d1" }

public fun preimage(): vector<u8> { x"0707070707070707070707070707070707070707070707070707070707070707" }

public fun hash(): vector<u8> { x"4bb06f8e4e3a7715d201d573d0aa423762e55dabd61a2c02278fa56cc6d294e0" }

public fun lock_id(): ID { object::id_from_address(@0x63d9a65220318469fb169034d8a011eae3f014fed2a1f8c006183e2ece3c3975) }

/// The key names @0xB0B.
public fun release(): vector<u8> { x"916eb14c90a03ae5cdede1ec3f34857dd46cf0b27c857bcf67d06ba4ea162c05d505d106253b8267e6356fe092a24a5ef5b34562991c103db1f75c3b265bcf09" }

/// Another key names @0xB0B.
public fun forged(): vector<u8> { x"197b8c3c2af3209bcbb6157bf5d9718ff186c6c7d0d8dd421da3852974151278abd6f888b4c0092db6e5a7d59d873459af35cceb4981d723d012233122aded0d" }
