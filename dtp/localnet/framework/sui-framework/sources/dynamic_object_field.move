/// Dynamic fields whose values stay objects that can be found by their own ids.
module sui::dynamic_object_field;

use sui::dynamic_field as field;

public struct Wrapper<Name> has copy, drop, store {
    name: Name,
}

public fun add<Name: copy + drop + store, Value: key + store>(object: &mut UID, name: Name, value: Value) {
    internal_add(object, name, value)
}

public fun borrow<Name: copy + drop + store, Value: key + store>(object: &UID, name: Name): &Value {
    internal_borrow(object, name)
}

public fun borrow_mut<Name: copy + drop + store, Value: key + store>(object: &mut UID, name: Name): &mut Value {
    internal_borrow_mut(object, name)
}

public fun remove<Name: copy + drop + store, Value: key + store>(object: &mut UID, name: Name): Value {
    internal_remove(object, name)
}

public fun exists_<Name: copy + drop + store>(object: &UID, name: Name): bool {
    field::exists_with_type<Wrapper<Name>, ID>(object, Wrapper { name })
}

public fun exists_with_type<Name: copy + drop + store, Value: key + store>(object: &UID, name: Name): bool {
    internal_exists_with_type<Name, Value>(object, name)
}

public fun id<Name: copy + drop + store>(object: &UID, name: Name): Option<ID> {
    let key = Wrapper { name };
    if (!field::exists_with_type<Wrapper<Name>, ID>(object, key)) return option::none();
    let (_, value) = field::field_info<Wrapper<Name>>(object, key);
    option::some(object::id_from_address(value))
}

public(package) fun internal_add<Name: copy + drop + store, Value: key>(object: &mut UID, name: Name, value: Value) {
    let key = Wrapper { name };
    field::add(object, key, object::id(&value));
    let (holder, _) = field::field_info<Wrapper<Name>>(object, key);
    field::add_child_object(holder.to_address(), value)
}

public(package) fun internal_borrow<Name: copy + drop + store, Value: key>(object: &UID, name: Name): &Value {
    let (holder, value) = field::field_info<Wrapper<Name>>(object, Wrapper { name });
    field::borrow_child_object(holder, value)
}

public(package) fun internal_borrow_mut<Name: copy + drop + store, Value: key>(
    object: &mut UID,
    name: Name,
): &mut Value {
    let (holder, value) = field::field_info_mut<Wrapper<Name>>(object, Wrapper { name });
    field::borrow_child_object_mut(holder, value)
}

public(package) fun internal_remove<Name: copy + drop + store, Value: key>(object: &mut UID, name: Name): Value {
    let key = Wrapper { name };
    let (holder, id) = field::field_info<Wrapper<Name>>(object, key);
    let value = field::remove_child_object<Value>(holder.to_address(), id);
    field::remove<Wrapper<Name>, ID>(object, key);
    value
}

public(package) fun internal_exists_with_type<Name: copy + drop + store, Value: key>(
    object: &UID,
    name: Name,
): bool {
    let key = Wrapper { name };
    if (!field::exists_with_type<Wrapper<Name>, ID>(object, key)) return false;
    let (holder, id) = field::field_info<Wrapper<Name>>(object, key);
    field::has_child_object_with_ty<Value>(holder.to_address(), id)
}
