"""Bech32 and Bech32m against the vectors of BIP-173 and BIP-350, and the promises made about errors."""

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from dtp.identity import bech32
from dtp.identity.bech32 import Bech32Error, decode, encode

# BIP-350, "Test vectors for Bech32m", and BIP-173, "Test vectors".
VALID = {
    "bech32m": [
        "A1LQFN3A",
        "a1lqfn3a",
        "an83characterlonghumanreadablepartthatcontainsthetheexcludedcharactersbioandnumber11sg7hg6",
        "abcdef1l7aum6echk45nj3s0wdvt2fg8x9yrzpqzd3ryx",
        "11llllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllludsr8",
        "split1checkupstagehandshakeupstreamerranterredcaperredlc445v",
        "?1v759aa",
    ],
    "bech32": [
        "A12UEL5L",
        "a12uel5l",
        "an83characterlonghumanreadablepartthatcontainsthenumber1andtheexcludedcharactersbio1tt5tgs",
        "abcdef1qpzry9x8gf2tvdw0s3jn54khce6mua7lmqqqxw",
        "11qqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqc8247j",
        "split1checkupstagehandshakeupstreamerranterredcaperred2y9e3w",
        "?1ezyfcl",
    ],
}
INVALID = {
    "bech32m": [
        ("\x201xj0phk", "not printable"),
        ("\x7f1g6xzxy", "not printable"),
        ("\x801vctc34", "not printable"),
        (
            "an84characterslonghumanreadablepartthatcontainsthetheexcludedcharactersbioandnumber11d6pts4",
            "91 ch",
        ),
        ("qyrz8wqd2c9m", "no '1'"),
        ("1qyrz8wqd2c9m", "no '1'"),
        ("y1b0jsk6g", "character 3 "),
        ("lt1igcx5c0", "character 4 "),
        ("in1muywd", "too short"),
        ("mm1crxm3i", "character 9 "),
        ("au1s5cgom", "character 8 "),
        ("M1VUXWEZ", "does not match"),
        ("16plkw9", "no '1'"),
        ("1p2gdwpf", "no '1'"),
    ],
    "bech32": [
        ("\x201nwldj5", "not printable"),
        ("\x7f1axkwrx", "not printable"),
        ("\x801eym55h", "not printable"),
        (
            "an84characterslonghumanreadablepartthatcontainsthenumber1andtheexcludedcharactersbio1569pvx",
            "91 ch",
        ),
        ("pzry9x0s0muk", "no '1'"),
        ("1pzry9x0s0muk", "no '1'"),
        ("x1b4n0q5v", "character 3 "),
        ("li1dgmt3", "too short"),
        ("de1lg7wt\xff", "character 9 "),
        ("A1G7SGD8", "does not match"),
        ("10a06t8", "no '1'"),
        ("1qzzfhee", "no '1'"),
    ],
}
# BIP-350, segregated witness addresses.
MIXED_CASE = "tb1p0xlxvlhemja6c4dqv22uapctqupfhlxm9h8z3k2e72q4k9hcz7vq47Zagq"

BOTH = [(variant, text) for variant, texts in VALID.items() for text in texts]


def checksum_of(text, variant):
    """What `decode` says after the checksum is right: these vectors need not be whole bytes."""
    try:
        return decode(text, variant=variant)
    except Bech32Error as error:
        if "checksum is right" not in str(error):
            raise
        return None


@pytest.mark.parametrize(("variant", "text"), BOTH)
def test_valid_vectors(variant, text):
    decoded = checksum_of(text, variant)
    if decoded is not None:
        assert encode(*decoded, variant=variant) == text.lower()


@pytest.mark.parametrize(("variant", "text"), BOTH)
def test_no_text_is_both(variant, text):
    other = {"bech32": "bech32m", "bech32m": "bech32"}[variant]
    with pytest.raises(Bech32Error, match=f"is that of {variant.capitalize()}, not of {other.capitalize()}"):
        decode(text, variant=other)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("variant", "text", "reason"), [(variant, *row) for variant, rows in INVALID.items() for row in rows]
)
def test_invalid_vectors(variant, text, reason):
    with pytest.raises(Bech32Error, match=reason):
        decode(text, variant=variant)


def test_mixed_case():
    with pytest.raises(Bech32Error, match="mixed"):
        decode(MIXED_CASE)


HRPS = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=8).map(str.lower)
TEXTS = st.tuples(HRPS, st.binary(max_size=40), st.sampled_from(["bech32", "bech32m"]))


@given(TEXTS)
def test_round_trip(row):
    hrp, data, variant = row
    text = encode(hrp, data, variant=variant)
    assert decode(text, variant=variant) == (hrp, data)
    assert decode(text.upper(), variant=variant) == (hrp, data)


@given(TEXTS, st.data())
def test_one_wrong_character_is_found(row, draw):
    hrp, data, variant = row
    text = encode(hrp, data, variant=variant)
    place = draw.draw(st.integers(len(hrp) + 1, len(text) - 1))
    wrong = draw.draw(st.sampled_from("qpzry9x8gf2tvdw0s3jn54khce6mua7l"))
    assume(wrong != text[place])
    with pytest.raises(Bech32Error) as caught:
        decode(text[:place] + wrong + text[place + 1 :], variant=variant)
    # A difference may also be the one between the two variants; then that is what is said.
    assert caught.value.place == place + 1 or "is that of" in str(caught.value)


@given(TEXTS, st.randoms(use_true_random=False))
def test_up_to_four_wrong_characters_never_pass(row, random):
    hrp, data, variant = row
    text = encode(hrp, data, variant=variant)
    wrong = list(text)
    for place in random.sample(range(len(hrp) + 1, len(text)), random.randint(2, 4)):
        wrong[place] = random.choice(
            [char for char in "qpzry9x8gf2tvdw0s3jn54khce6mua7l" if char != text[place]]
        )
    with pytest.raises(Bech32Error):
        decode("".join(wrong), variant=variant)


@given(st.text(max_size=95))
def test_any_text_decodes_or_is_refused(text):
    try:
        hrp, data = decode(text)
    except Bech32Error as error:
        place = error.place
    else:
        place = None
        assert encode(hrp, data) == text.lower()
    assert place is None or 1 <= place <= len(text)


def test_messages_quote_nothing():
    secret = encode("suiprivkey", bytes(range(33)), variant="bech32")
    for wrong in (
        secret[:-1],
        secret[:-1] + "!",
        secret.replace("q", "b"),
        secret + "é",
        secret[:5] + secret[5:].upper(),
    ):
        with pytest.raises(Bech32Error) as caught:
            bech32.decode(wrong, variant="bech32")
        assert secret[12:18] not in str(caught.value)
