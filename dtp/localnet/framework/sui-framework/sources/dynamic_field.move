/// Fields that are added to an object while it lives; each is an object of its own, a child of it.
module sui::dynamic_field;

const EFieldAlreadyExists: u64 = 0;
#[allow(unused_const)]
const EFieldDoesNotExist: u64 = 1;
#[allow(unused_const)]
const EFieldTypeMismatch: u64 = 2;
#[allow(unused_const)]
const EBCSSerializationFailure: u64 = 3;
#[allow(unused_const)]
const ESharedObjectOperationNotSupported: u64 = 4;

public struct Field<Name: copy + drop + store, Value: store> has key {
    id: UID,
    name: Name,
    value: Value,
}

public fun add<Name: copy + drop + store, Value: store>(object: &mut UID, name: Name, value: Value) {
    let parent = object.to_address();
    let id = hash_type_and_key(parent, name);
    assert!(!has_child_object(parent, id), EFieldAlreadyExists);
    add_child_object(parent, Field { id: object::new_uid_from_hash(id), name, value })
}

public fun borrow<Name: copy + drop + store, Value: store>(object: &UID, name: Name): &Value {
    let id = hash_type_and_key(object.to_address(), name);
    let field: &Field<Name, Value> = borrow_child_object(object, id);
    &field.value
}

public fun borrow_mut<Name: copy + drop + store, Value: store>(object: &mut UID, name: Name): &mut Value {
    let id = hash_type_and_key(object.to_address(), name);
    let field: &mut Field<Name, Value> = borrow_child_object_mut(object, id);
    &mut field.value
}

public fun remove<Name: copy + drop + store, Value: store>(object: &mut UID, name: Name): Value {
    let parent = object.to_address();
    let field_id = hash_type_and_key(parent, name);
    let Field<Name, Value> { id, name: _, value } = remove_child_object(parent, field_id);
    id.delete();
    value
}

public fun exists_<Name: copy + drop + store>(object: &UID, name: Name): bool {
    let parent = object.to_address();
    has_child_object(parent, hash_type_and_key(parent, name))
}

public fun remove_if_exists<Name: copy + drop + store, Value: store>(object: &mut UID, name: Name): Option<Value> {
    if (exists_<Name>(object, name)) option::some(remove(object, name)) else option::none()
}

public fun exists_with_type<Name: copy + drop + store, Value: store>(object: &UID, name: Name): bool {
    let parent = object.to_address();
    has_child_object_with_ty<Field<Name, Value>>(parent, hash_type_and_key(parent, name))
}

public(package) fun field_info<Name: copy + drop + store>(object: &UID, name: Name): (&UID, address) {
    let id = hash_type_and_key(object.to_address(), name);
    let field: &Field<Name, ID> = borrow_child_object(object, id);
    (&field.id, field.value.to_address())
}

public(package) fun field_info_mut<Name: copy + drop + store>(object: &mut UID, name: Name): (&mut UID, address) {
    let id = hash_type_and_key(object.to_address(), name);
    let field: &mut Field<Name, ID> = borrow_child_object_mut(object, id);
    (&mut field.id, field.value.to_address())
}

public(package) native fun hash_type_and_key<K: copy + drop + store>(parent: address, k: K): address;
public(package) native fun add_child_object<Child: key>(parent: address, child: Child);
public(package) native fun borrow_child_object<Child: key>(object: &UID, id: address): &Child;
public(package) native fun borrow_child_object_mut<Child: key>(object: &mut UID, id: address): &mut Child;
public(package) native fun remove_child_object<Child: key>(parent: address, id: address): Child;
public(package) native fun has_child_object(parent: address, id: address): bool;
public(package) native fun has_child_object_with_ty<Child: key>(parent: address, id: address): bool;
