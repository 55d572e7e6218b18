/// A place for a value whose type may change from one version of a package to the next.
module sui::versioned;

use sui::dynamic_field as field;

const EInvalidUpgrade: u64 = 0;

public struct Versioned has key, store {
    id: UID,
    version: u64,
}

public struct VersionChangeCap {
    versioned_id: ID,
    old_version: u64,
}

public fun create<T: store>(init_version: u64, init_value: T, ctx: &mut TxContext): Versioned {
    let mut self = Versioned { id: object::new(ctx), version: init_version };
    field::add(&mut self.id, init_version, init_value);
    self
}

public fun version(self: &Versioned): u64 {
    self.version
}

public fun load_value<T: store>(self: &Versioned): &T {
    field::borrow(&self.id, self.version)
}

public fun load_value_mut<T: store>(self: &mut Versioned): &mut T {
    field::borrow_mut(&mut self.id, self.version)
}

public fun remove_value_for_upgrade<T: store>(self: &mut Versioned): (T, VersionChangeCap) {
    let value = field::remove(&mut self.id, self.version);
    (value, VersionChangeCap { versioned_id: object::id(self), old_version: self.version })
}

public fun upgrade<T: store>(self: &mut Versioned, new_version: u64, new_value: T, cap: VersionChangeCap) {
    let VersionChangeCap { versioned_id, old_version } = cap;
    assert!(versioned_id == object::id(self), EInvalidUpgrade);
    assert!(old_version < new_version, EInvalidUpgrade);
    field::add(&mut self.id, new_version, new_value);
    self.version = new_version;
}

public fun destroy<T: store>(self: Versioned): T {
    let Versioned { mut id, version } = self;
    let value = field::remove(&mut id, version);
    id.delete();
    value
}
