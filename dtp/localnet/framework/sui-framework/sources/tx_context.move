/// The transaction that is running. Its data is the machine's; the struct is a token for it.
module sui::tx_context;

#[test_only]
const TX_HASH_LENGTH: u64 = 32;

#[test_only]
const EBadTxHashLength: u64 = 0;

#[allow(unused_field)]
public struct TxContext has drop {
    sender: address,
    tx_hash: vector<u8>,
    epoch: u64,
    epoch_timestamp_ms: u64,
    ids_created: u64,
}

public fun sender(_self: &TxContext): address {
    native_sender()
}
native fun native_sender(): address;

public fun digest(self: &TxContext): &vector<u8> {
    &self.tx_hash
}

public fun epoch(_self: &TxContext): u64 {
    native_epoch()
}
native fun native_epoch(): u64;

public fun epoch_timestamp_ms(_self: &TxContext): u64 {
    native_epoch_timestamp_ms()
}
native fun native_epoch_timestamp_ms(): u64;

public fun sponsor(_self: &TxContext): Option<address> {
    option_sponsor()
}

public fun fresh_object_address(_ctx: &mut TxContext): address {
    fresh_id()
}
native fun fresh_id(): address;

public fun reference_gas_price(_self: &TxContext): u64 {
    native_rgp()
}
native fun native_rgp(): u64;

public fun gas_price(_self: &TxContext): u64 {
    native_gas_price()
}
native fun native_gas_price(): u64;

#[allow(unused_function)]
native fun native_ids_created(): u64;

#[allow(unused_function)]
native fun native_gas_budget(): u64;

fun option_sponsor(): Option<address> {
    let sponsor = native_sponsor();
    if (sponsor.is_empty()) option::none() else option::some(sponsor[0])
}
native fun native_sponsor(): vector<address>;

#[allow(unused_function)]
native fun derive_id(tx_hash: vector<u8>, ids_created: u64): address;

#[test_only]
public fun ids_created(_self: &TxContext): u64 {
    native_ids_created()
}

#[test_only]
public fun gas_budget(_self: &TxContext): u64 {
    native_gas_budget()
}

#[test_only]
public fun create(
    sender: address,
    tx_hash: vector<u8>,
    epoch: u64,
    epoch_timestamp_ms: u64,
    ids_created: u64,
    rgp: u64,
    gas_price: u64,
    gas_budget: u64,
    sponsor: Option<address>,
): TxContext {
    assert!(tx_hash.length() == TX_HASH_LENGTH, EBadTxHashLength);
    replace(
        sender,
        tx_hash,
        epoch,
        epoch_timestamp_ms,
        ids_created,
        rgp,
        gas_price,
        gas_budget,
        sponsor.to_vec(),
    );
    TxContext { sender: @0x0, tx_hash, epoch: 0, epoch_timestamp_ms: 0, ids_created: 0 }
}

#[test_only]
public fun new(
    sender: address,
    tx_hash: vector<u8>,
    epoch: u64,
    epoch_timestamp_ms: u64,
    ids_created: u64,
): TxContext {
    create(
        sender,
        tx_hash,
        epoch,
        epoch_timestamp_ms,
        ids_created,
        native_rgp(),
        native_gas_price(),
        native_gas_budget(),
        option_sponsor(),
    )
}

#[test_only]
public fun new_from_hint(
    addr: address,
    hint: u64,
    epoch: u64,
    epoch_timestamp_ms: u64,
    ids_created: u64,
): TxContext {
    new(addr, dummy_tx_hash_with_hint(hint), epoch, epoch_timestamp_ms, ids_created)
}

#[test_only]
public fun dummy(): TxContext {
    let tx_hash = x"3a985da74fe225b2045c172d6bd390bd855f086e3e9d525b46bfe24511431532";
    new(@0x0, tx_hash, 0, 0, 0)
}

#[test_only]
public fun dummy_tx_hash_with_hint(hint: u64): vector<u8> {
    let mut tx_hash = std::bcs::to_bytes(&hint);
    while (tx_hash.length() < TX_HASH_LENGTH) tx_hash.push_back(0);
    tx_hash
}

#[test_only]
public fun get_ids_created(self: &TxContext): u64 {
    self.ids_created()
}

#[test_only]
public fun last_created_object_id(_self: &TxContext): address {
    last_created_id()
}
#[test_only]
native fun last_created_id(): address;

#[test_only]
public fun increment_epoch_number(self: &mut TxContext) {
    let epoch = self.epoch() + 1;
    let timestamp = native_epoch_timestamp_ms();
    set_time(self, epoch, timestamp);
}

#[test_only]
public fun increment_epoch_timestamp(self: &mut TxContext, delta_ms: u64) {
    let epoch = native_epoch();
    let timestamp = self.epoch_timestamp_ms() + delta_ms;
    set_time(self, epoch, timestamp);
}

#[test_only]
fun set_time(self: &TxContext, epoch: u64, epoch_timestamp_ms: u64) {
    replace(
        native_sender(),
        self.tx_hash,
        epoch,
        epoch_timestamp_ms,
        native_ids_created(),
        native_rgp(),
        native_gas_price(),
        native_gas_budget(),
        native_sponsor(),
    );
}

#[test_only]
native fun replace(
    sender: address,
    tx_hash: vector<u8>,
    epoch: u64,
    epoch_timestamp_ms: u64,
    ids_created: u64,
    rgp: u64,
    gas_price: u64,
    gas_budget: u64,
    sponsor: vector<address>,
);
