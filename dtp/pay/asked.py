"""Prices that somebody else has set, before they are paid: of plans and shows, whose ids anybody can send."""

from __future__ import annotations

from dtp.chain.model import canonical_type
from dtp.chain.wallet import money
from dtp.pay.errors import OtherCoin, PriceTooHigh


def check_asked_coin(coin: str, paid_in: str) -> None:
    """Raise `OtherCoin` unless both are the same: an amount is a number of units, and of another coin they may be a
    fortune."""
    if canonical_type(coin) != canonical_type(paid_in):
        raise OtherCoin(
            f"it is paid in {coin}, and you pay in {paid_in}: name the coin (--coin, coin=) to pay in that; "
            "nothing was paid"
        )


def check_asked(price: int, coin: str, *, paid_in: str, most: int | None, option: str = "most") -> None:
    """Raise `OtherCoin`, and `PriceTooHigh` if more is asked for than `most` (None: whatever it is).

    `option` is what programs and commands call the amount that the buyer agrees to.
    """
    check_asked_coin(coin, paid_in)
    if most is not None and price > most:
        raise PriceTooHigh(
            f"it costs {money(price, coin)}, more than the {money(most, coin)} that may be paid: say how much "
            f"you agree to (--{option}, {option}=); nothing was paid"
        )
