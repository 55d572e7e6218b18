/// What our packages use of `sui::object`.
module sui::object;

public use fun uid_to_inner as UID.to_inner;
public use fun id_to_address as ID.to_address;

public struct ID has copy, drop, store {
    bytes: address,
}

public struct UID has store {
    id: ID,
}

public native fun id_to_address(id: &ID): address;

public native fun id_from_address(bytes: address): ID;

public native fun uid_to_inner(uid: &UID): ID;

public native fun new(ctx: &mut TxContext): UID;

public native fun delete(id: UID);

public native fun id<T: key>(obj: &T): ID;
