/// The coin that pays for everything.
module sui::sui;

use sui::balance::Balance;
use sui::coin;

const EAlreadyMinted: u64 = 0;
const ENotSystemAddress: u64 = 1;

#[allow(unused_const)]
const MIST_PER_SUI: u64 = 1_000_000_000;
#[allow(unused_const)]
const TOTAL_SUPPLY_SUI: u64 = 10_000_000_000;
const TOTAL_SUPPLY_MIST: u64 = 10_000_000_000_000_000_000;

public struct SUI has drop {}

#[allow(unused_function, deprecated_usage)]
fun new(ctx: &mut TxContext): Balance<SUI> {
    assert!(ctx.sender() == @0x0, ENotSystemAddress);
    assert!(ctx.epoch() == 0, EAlreadyMinted);
    let (treasury, metadata) = coin::create_currency(SUI {}, 9, b"SUI", b"Sui", b"", option::none(), ctx);
    transfer::public_freeze_object(metadata);
    let mut supply = treasury.treasury_into_supply();
    let total = supply.increase_supply(TOTAL_SUPPLY_MIST);
    supply.destroy_supply();
    total
}

#[allow(lint(public_entry))]
public entry fun transfer(c: coin::Coin<SUI>, recipient: address) {
    transfer::public_transfer(c, recipient)
}
