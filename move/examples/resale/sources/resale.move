/// An example of a package on top of `broadcast`: tickets that are sold on, for no more than they bring back.
///
/// A ticket lies in an offer until somebody pays, or its seller takes it away. Whoever buys it may listen, and has what
/// is unspent of it back as though it had been bought first hand.
module resale::resale;

use broadcast::show::{Share, Show};
use sui::{clock::Clock, coin::Coin};

#[error(code = 0)]
const EOverpriced: vector<u8> = b"less than the price is unspent of the ticket";
#[error(code = 1)]
const ETooLittle: vector<u8> = b"the ticket is offered for more";
#[error(code = 2)]
const ENotSeller: vector<u8> = b"only the seller takes an offered ticket back";

/// A ticket that is for sale. Shared.
public struct Offer<phantom T> has key {
    id: UID,
    ticket: Share<T>,
    price: u64,
    seller: address,
}

/// Offer a ticket, or a share of a pot.
public fun offer<T>(ticket: Share<T>, price: u64, ctx: &mut TxContext) {
    let seller = ctx.sender();
    transfer::share_object(Offer { id: object::new(ctx), ticket, price, seller });
}

/// Buy a ticket that is offered. The rest of `money` stays in it. Nobody pays for what slots have taken of the ticket
/// since it was offered: it has to be offered anew then.
public fun buy<T>(
    offer: Offer<T>,
    show: &Show<T>,
    money: &mut Coin<T>,
    clock: &Clock,
    ctx: &mut TxContext,
): Share<T> {
    let Offer { id, ticket, price, seller } = offer;
    assert!(price <= show.value(&ticket, clock), EOverpriced);
    assert!(money.value() >= price, ETooLittle);
    id.delete();
    transfer::public_transfer(money.split(price, ctx), seller);
    ticket
}

/// Take a ticket away that nobody has bought.
public fun withdraw<T>(offer: Offer<T>, ctx: &mut TxContext): Share<T> {
    let Offer { id, ticket, seller, .. } = offer;
    assert!(seller == ctx.sender(), ENotSeller);
    id.delete();
    ticket
}
