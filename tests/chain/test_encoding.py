"""Transactions as bytes: pysui's encoder against dtp's own codec, over every form that a program can take."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dtp.chain.errors import ProgramError
from dtp.chain.node._pysui import encode_transaction
from dtp.sui import transaction as sui
from dtp.sui.names import TypeTag

ids = st.binary(min_size=32, max_size=32)
names = st.from_regex(r"[a-z][a-z0-9_]{0,8}", fullmatch=True)
u16 = st.integers(0, 2**16 - 1)
u64 = st.integers(0, 2**64 - 1)
refs = st.builds(sui.ObjectRef, ids, u64, ids)
inputs = st.one_of(
    st.builds(sui.Pure, st.binary(max_size=300)),
    st.builds(sui.OwnedInput, refs),
    st.builds(sui.ReceivingInput, refs),
    st.builds(sui.SharedInput, ids, u64, st.sampled_from([sui.Mutability.IMMUTABLE, sui.Mutability.MUTABLE])),
)
arguments = st.one_of(
    st.just(sui.GasCoin()),
    st.builds(sui.Input, u16),
    st.builds(sui.Result, u16),
    st.builds(sui.NestedResult, u16, u16),
)
some_arguments = st.lists(arguments, max_size=3).map(tuple)
primitives = st.sampled_from(["bool", "u8", "u16", "u32", "u64", "u128", "u256", "address", "signer"]).map(
    TypeTag
)
tags = st.recursive(
    primitives,
    lambda inner: st.one_of(
        inner.map(lambda tag: TypeTag("vector", (tag,))),
        st.builds(
            lambda name, arguments, address, module: TypeTag(name, tuple(arguments), address, module),
            names,
            st.lists(inner, max_size=3),
            ids,
            names,
        ),
    ),
    max_leaves=6,
)
codes = st.lists(st.binary(max_size=2000), max_size=3).map(tuple)
commands = st.one_of(
    st.builds(sui.MoveCall, ids, names, names, st.lists(tags, max_size=3).map(tuple), some_arguments),
    st.builds(sui.TransferObjects, some_arguments, arguments),
    st.builds(sui.SplitCoins, arguments, some_arguments),
    st.builds(sui.MergeCoins, arguments, some_arguments),
    st.builds(sui.Publish, codes, st.lists(ids, max_size=3).map(tuple)),
    st.builds(sui.MakeMoveVec, st.none() | tags, some_arguments),
    st.builds(sui.Upgrade, codes, st.lists(ids, max_size=3).map(tuple), ids, arguments),
)
programs = st.builds(
    sui.ProgrammableTransaction,
    st.lists(inputs, max_size=4).map(tuple),
    st.lists(commands, max_size=4).map(tuple),
)
transactions = st.builds(
    sui.TransactionData,
    programs,
    ids,
    st.builds(sui.GasData, st.lists(refs, max_size=3).map(tuple), ids, u64, u64),
    st.one_of(st.just(sui.NoExpiration()), st.builds(sui.EpochExpiration, u64)),
)


@settings(max_examples=200)
@given(transactions)
def test_both_encoders_agree(data):
    encoded = encode_transaction(data)
    assert encoded == data.encode()
    assert sui.TransactionData.decode(encoded) == data


def test_many_equal_inputs_stay_apart():
    """The builder keeps inputs in a dict; equal ones must not fall together behind the arguments' back."""
    kind = sui.ProgrammableTransaction(
        (sui.Pure(b"x"),) * 5, (sui.SplitCoins(sui.GasCoin(), (sui.Input(4),)),)
    )
    data = sui.TransactionData(kind, bytes(32), sui.GasData((), bytes(32), 1, 1))
    assert encode_transaction(data) == data.encode()


@pytest.mark.parametrize(
    "kind", [sui.ConsensusCommitPrologue(1, 2, 3), sui.ChangeEpoch(1, 2, 3, 4, 5, 6, 7), sui.Genesis(())]
)
def test_a_client_sends_no_system_transaction(kind):
    with pytest.raises(ProgramError):
        encode_transaction(sui.TransactionData(kind, bytes(32), sui.GasData((), bytes(32), 1, 1)))


def test_a_withdrawal_is_refused_by_name():
    withdrawal = sui.FundsWithdrawal(5, TypeTag("u8"), False)
    kind = sui.ProgrammableTransaction((withdrawal,), (sui.SplitCoins(sui.GasCoin(), ()),))
    with pytest.raises(ProgramError, match="FundsWithdrawal"):
        encode_transaction(sui.TransactionData(kind, bytes(32), sui.GasData((), bytes(32), 1, 1)))
