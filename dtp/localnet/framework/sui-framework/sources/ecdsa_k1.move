/// ECDSA over secp256k1. `hash` is 0 for Keccak-256, 1 for SHA-256.
module sui::ecdsa_k1;

#[allow(unused_const)]
const EFailToRecoverPubKey: u64 = 0;
#[allow(unused_const)]
const EInvalidSignature: u64 = 1;
#[allow(unused_const)]
const EInvalidPubKey: u64 = 2;

public native fun secp256k1_ecrecover(signature: &vector<u8>, msg: &vector<u8>, hash: u8): vector<u8>;
public native fun decompress_pubkey(pubkey: &vector<u8>): vector<u8>;
public native fun secp256k1_verify(
    signature: &vector<u8>,
    public_key: &vector<u8>,
    msg: &vector<u8>,
    hash: u8,
): bool;
