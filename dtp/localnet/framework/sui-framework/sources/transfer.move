/// Giving objects an owner.
module sui::transfer;

use sui::party::Party;

public use fun receiving_object_id as Receiving.object_id;

public struct Receiving<phantom T: key> has drop {
    id: ID,
    version: u64,
}

#[allow(unused_const)]
const ESharedNonNewObject: u64 = 0;
#[allow(unused_const)]
const EBCSSerializationFailure: u64 = 1;
#[allow(unused_const)]
const EReceivingObjectTypeMismatch: u64 = 2;
#[allow(unused_const)]
const EUnableToReceiveObject: u64 = 3;
#[allow(unused_const)]
const ESharedObjectOperationNotSupported: u64 = 4;
#[allow(unused_const)]
const ENotSupported: u64 = 5;
#[error]
const EInvalidPartyPermissions: vector<u8> = b"Party transfer is currently limited to one party.";

public fun transfer<T: key>(obj: T, recipient: address) {
    transfer_impl(obj, recipient)
}

public fun public_transfer<T: key + store>(obj: T, recipient: address) {
    transfer_impl(obj, recipient)
}

public fun party_transfer<T: key>(obj: T, party: Party) {
    assert!(party.is_single_owner(), EInvalidPartyPermissions);
    let (default, addresses, permissions) = party.into_native();
    party_transfer_impl(obj, default, addresses, permissions)
}

public fun public_party_transfer<T: key + store>(obj: T, party: Party) {
    assert!(party.is_single_owner(), EInvalidPartyPermissions);
    let (default, addresses, permissions) = party.into_native();
    party_transfer_impl(obj, default, addresses, permissions)
}

public fun freeze_object<T: key>(obj: T) {
    freeze_object_impl(obj)
}

public fun public_freeze_object<T: key + store>(obj: T) {
    freeze_object_impl(obj)
}

public fun share_object<T: key>(obj: T) {
    share_object_impl(obj)
}

public fun public_share_object<T: key + store>(obj: T) {
    share_object_impl(obj)
}

public fun receive<T: key>(parent: &mut UID, to_receive: Receiving<T>): T {
    let Receiving { id, version } = to_receive;
    receive_impl(parent.to_address(), id, version)
}

public fun public_receive<T: key + store>(parent: &mut UID, to_receive: Receiving<T>): T {
    let Receiving { id, version } = to_receive;
    receive_impl(parent.to_address(), id, version)
}

public fun receiving_object_id<T: key>(receiving: &Receiving<T>): ID {
    receiving.id
}

public(package) native fun freeze_object_impl<T: key>(obj: T);
public(package) native fun share_object_impl<T: key>(obj: T);
public(package) native fun party_transfer_impl<T: key>(
    obj: T,
    default_permissions: u64,
    addresses: vector<address>,
    permissions: vector<u64>,
);
public(package) native fun transfer_impl<T: key>(obj: T, recipient: address);
native fun receive_impl<T: key>(parent: address, to_receive: ID, version: u64): T;

#[test_only]
public(package) fun make_receiver<T: key>(id: ID, version: u64): Receiving<T> {
    Receiving { id, version }
}

#[test_only]
public(package) fun receiving_id<T: key>(r: &Receiving<T>): ID {
    r.id
}
