/// Common things to do with coins.
module sui::pay;

use sui::coin::Coin;

const ENoCoins: u64 = 0;

#[allow(lint(self_transfer))]
public fun keep<T>(c: Coin<T>, ctx: &TxContext) {
    transfer::public_transfer(c, ctx.sender())
}

public entry fun split<T>(coin: &mut Coin<T>, split_amount: u64, ctx: &mut TxContext) {
    keep(coin.split(split_amount, ctx), ctx)
}

public entry fun split_vec<T>(self: &mut Coin<T>, split_amounts: vector<u64>, ctx: &mut TxContext) {
    let mut at = 0;
    while (at < split_amounts.length()) {
        split(self, split_amounts[at], ctx);
        at = at + 1;
    }
}

public entry fun split_and_transfer<T>(c: &mut Coin<T>, amount: u64, recipient: address, ctx: &mut TxContext) {
    transfer::public_transfer(c.split(amount, ctx), recipient)
}

#[allow(lint(self_transfer))]
public entry fun divide_and_keep<T>(self: &mut Coin<T>, n: u64, ctx: &mut TxContext) {
    let mut coins = self.divide_into_n(n, ctx);
    coins.reverse();
    while (!coins.is_empty()) transfer::public_transfer(coins.pop_back(), ctx.sender());
    coins.destroy_empty()
}

public entry fun join<T>(self: &mut Coin<T>, coin: Coin<T>) {
    self.join(coin)
}

public entry fun join_vec<T>(self: &mut Coin<T>, mut coins: vector<Coin<T>>) {
    coins.reverse();
    while (!coins.is_empty()) self.join(coins.pop_back());
    coins.destroy_empty()
}

public entry fun join_vec_and_transfer<T>(mut coins: vector<Coin<T>>, receiver: address) {
    assert!(!coins.is_empty(), ENoCoins);
    let mut self = coins.pop_back();
    join_vec(&mut self, coins);
    transfer::public_transfer(self, receiver)
}
