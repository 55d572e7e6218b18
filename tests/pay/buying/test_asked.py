"""What is paid of what somebody else asks for."""

from __future__ import annotations

from typing import Any

import pytest

from dtp.chain.model import SUI_COIN
from dtp.cli.paying import most_of
from dtp.pay.asked import check_asked
from dtp.pay.errors import OtherCoin, PriceTooHigh

OTHER = "0x2::clock::Clock"


def test_a_price_is_paid_up_to_what_was_agreed_to() -> None:
    for price, most in ((5, 5), (0, 0), (2**64 - 1, None)):
        check_asked(price, SUI_COIN, paid_in="0x2::sui::SUI", most=most)
    for price, most in ((6, 5), (1, 0)):
        with pytest.raises(PriceTooHigh, match="--most") as refused:
            check_asked(price, SUI_COIN, paid_in=SUI_COIN, most=most)
        assert refused.value.code == "price-too-high"
    with pytest.raises(PriceTooHigh, match="--amount"):
        check_asked(6, SUI_COIN, paid_in=SUI_COIN, most=5, option="amount")


@pytest.mark.parametrize(("coin", "paid_in"), [(OTHER, SUI_COIN), (SUI_COIN, OTHER)])
def test_another_coin_is_refused_whatever_it_costs(coin: Any, paid_in: Any) -> None:
    with pytest.raises(OtherCoin):
        check_asked(0, coin, paid_in=paid_in, most=None)


def test_without_a_word_a_command_pays_a_sui_and_nothing_in_another_coin() -> None:
    assert [most_of(None, SUI_COIN), most_of("2SUI", SUI_COIN)] == [10**9, 2 * 10**9]
    assert [most_of(None, OTHER), most_of("7", OTHER)] == [0, 7]
