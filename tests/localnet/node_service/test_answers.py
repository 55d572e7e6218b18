"""Whatever a node answers, the client takes it or says that it is none: no other error, nothing half read."""

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pysui.sui.sui_grpc.suimsgs.sui.rpc import v2

from dtp.chain.errors import NodeRefused
from dtp.chain.node._wire import NodeRpc
from dtp.sui.grpc import decode, encode

from .test_wire import messages

SUI = "0x2::sui::SUI"
#: What the client asks, and the class of the answer.
QUESTIONS = {
    "service_info": (lambda wire: wire.service_info(), v2.GetServiceInfoResponse),
    "epoch": (lambda wire: wire.epoch(), v2.GetEpochResponse),
    "objects": (lambda wire: wire.objects(["0x6"]), v2.BatchGetObjectsResponse),
    "object_json": (lambda wire: wire.object_json("0x6"), v2.GetObjectResponse),
    "transaction": (lambda wire: wire.transaction("x"), v2.GetTransactionResponse),
    "checkpoint": (lambda wire: wire.checkpoint(1), v2.GetCheckpointResponse),
    "owned_objects": (lambda wire: wire.owned_objects("0x6", None, None), v2.ListOwnedObjectsResponse),
    "dynamic_fields": (lambda wire: wire.dynamic_fields("0x6", None), v2.ListDynamicFieldsResponse),
    "balance": (lambda wire: wire.balance("0x6", SUI), v2.GetBalanceResponse),
    "balances": (lambda wire: wire.balances("0x6", None), v2.ListBalancesResponse),
    "package": (lambda wire: wire.package("0x6"), v2.GetPackageResponse),
    "simulate": (lambda wire: wire.simulate(b"x", select_gas=False), v2.SimulateTransactionResponse),
    "execute": (lambda wire: wire.execute(b"x", [b"y"]), v2.ExecuteTransactionResponse),
}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # the classes warn of their old fields
@settings(max_examples=500)
@given(data=st.data())
def test_any_answer(data):
    ask, kind = QUESTIONS[data.draw(st.sampled_from(sorted(QUESTIONS)))]
    answer = data.draw(messages(kind))
    wire = NodeRpc("http://127.0.0.1:1", timeout=1)

    async def answered(service, method, message):
        return decode(kind, encode(answer))  # type: ignore[arg-type]

    wire._call_method = answered
    try:
        found = asyncio.run(ask(wire))
    except NodeRefused:
        return
    assert found is None or found == asyncio.run(ask(wire))


@pytest.mark.parametrize("name", sorted(QUESTIONS))
def test_empty_answers(name):
    ask, kind = QUESTIONS[name]
    wire = NodeRpc("http://127.0.0.1:1", timeout=1)

    async def answered(service, method, message):
        return kind()

    wire._call_method = answered
    if name in ("service_info", "objects", "owned_objects", "dynamic_fields", "balances"):
        assert asyncio.run(ask(wire)) is not None
        return
    with pytest.raises(NodeRefused) as refused:
        asyncio.run(ask(wire))
    assert refused.value.status == "MALFORMED"
