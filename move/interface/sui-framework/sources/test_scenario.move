/// What our tests use of `sui::test_scenario`.
#[test_only]
module sui::test_scenario;

public struct Scenario {
    txn_number: u64,
    ctx: TxContext,
}

public struct TransactionEffects has drop {
    created: vector<ID>,
    written: vector<ID>,
    deleted: vector<ID>,
    num_user_events: u64,
}

public native fun begin(sender: address): Scenario;

public native fun next_tx(scenario: &mut Scenario, sender: address): TransactionEffects;

public native fun next_epoch(scenario: &mut Scenario, sender: address): TransactionEffects;

public native fun end(scenario: Scenario): TransactionEffects;

public native fun ctx(scenario: &mut Scenario): &mut TxContext;

public native fun num_user_events(effects: &TransactionEffects): u64;

public native fun has_most_recent_for_address<T: key>(account: address): bool;

public native fun has_most_recent_shared<T: key>(): bool;

public native fun take_from_address<T: key>(scenario: &Scenario, account: address): T;

public native fun ids_for_address<T: key>(account: address): vector<ID>;

public native fun take_from_sender<T: key>(scenario: &Scenario): T;

public native fun return_to_sender<T: key>(scenario: &Scenario, t: T);

public native fun take_shared<T: key>(scenario: &Scenario): T;

public native fun return_shared<T: key>(t: T);
