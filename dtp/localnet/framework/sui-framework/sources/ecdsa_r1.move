/// ECDSA over secp256r1. `hash` is 0 for Keccak-256, 1 for SHA-256.
module sui::ecdsa_r1;

public native fun secp256r1_verify(
    signature: &vector<u8>,
    public_key: &vector<u8>,
    msg: &vector<u8>,
    hash: u8,
): bool;
