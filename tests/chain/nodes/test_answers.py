"""What a node answers is looked at where it comes in."""

import pytest

from dtp.chain.node import _answers as answers
from dtp.chain.node._pysui import library
from dtp.sui.names import SuiNameError, format_digest


def shown(digest):
    v2 = library().v2
    owner = v2.Owner(kind=v2.OwnerOwnerKind.ADDRESS, address="0x5")
    return v2.Object(
        object_id="0x1", version=3, digest=digest, owner=owner, object_type="0x2::coin::Coin<0x2::sui::SUI>"
    )


def test_an_object_has_its_reference():
    digest = format_digest(bytes(range(32)))
    assert answers.object_data(shown(digest)).ref.digest == digest


@pytest.mark.parametrize("digest", ["", "1", "0" * 32, "1" * 31, "z" * 44, "1" * 33])
def test_an_object_whose_digest_is_none_is_no_answer(digest):
    """It was taken, and whoever signed for the object fell over it."""
    with pytest.raises(SuiNameError):
        answers.object_data(shown(digest))
