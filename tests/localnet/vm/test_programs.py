"""Programs with objects, events and fields, run in a small world; and the failures a node has to tell."""

from __future__ import annotations

import hashlib

import pytest
from nacl.signing import SigningKey
from vm_world import CLOCK, World, address, modules

from dtp.localnet.vm import ArgumentSlot, ExecutionFailure, OwnerKind, VmOwner
from dtp.localnet.vm.gas import GasMeter, round_units

ALICE = address(0xA)
BOB = address(0xB)


@pytest.fixture
def world() -> World:
    made = World()
    made.home = made.publish(modules("basics"))  # type: ignore[attr-defined]
    return made


def run(world: World, target: str, *arguments: object, **more: object) -> list[object]:
    """A call into the fixture package; the data of what it returns."""
    return world.call(target, *arguments, package=world.home, **more).numbers()  # type: ignore[attr-defined, arg-type]


def make(world: World, value: int, owner: bytes = ALICE) -> bytes:
    """A Thing that someone owns."""
    created = world.call("things::make_for", value, owner, package=world.home).created  # type: ignore[attr-defined]
    assert len(created) == 1
    return created[0]


def failure(world: World, target: str, *arguments: object, **more: object) -> ExecutionFailure:
    """The call must fail; nothing in the world changes."""
    before = {id: (held.owner, held.version) for id, held in world.objects.items()}
    with pytest.raises(ExecutionFailure) as caught:
        run(world, target, *arguments, **more)
    assert {id: (held.owner, held.version) for id, held in world.objects.items()} == before
    return caught.value


# ------------------------------------------------------------------------------------------------- objects


def test_objects_are_made_given_and_changed(world: World) -> None:
    thing = make(world, 7, BOB)
    assert world.objects[thing].owner == VmOwner(OwnerKind.ADDRESS, BOB)
    run(world, "things::set", thing, 9)
    assert run(world, "things::value", thing) == [9]
    assert world.objects[thing].version == 3  # a reference, mutable or not, counts as use here
    assert run(world, "things::destroy", thing) == [9]
    assert thing not in world.objects


def test_ids_are_derived_from_digest_and_count(world: World) -> None:
    thing = make(world, 1)
    digest = world.transactions.to_bytes(32, "little")
    body = b"\xf1" + digest + bytes(8)
    assert thing == hashlib.blake2b(body, digest_size=32).digest()


def test_events_carry_type_bcs_and_module(world: World) -> None:
    outcome = world.call("things::make_for", 5, BOB, package=world.home)  # type: ignore[attr-defined]
    (event,) = outcome.events
    assert event.type.tag == f"0x{world.home.hex()}::things::Made"  # type: ignore[attr-defined]
    assert event.contents == outcome.created[0] + (5).to_bytes(8, "little")
    assert (event.package, event.module) == (world.home, "things")  # type: ignore[attr-defined]


def test_freeze_and_share(world: World) -> None:
    run(world, "things::freeze_it", frozen := make(world, 1))
    assert world.objects[frozen].owner.kind is OwnerKind.IMMUTABLE
    refused = failure(world, "things::share_it", make(world, 1))
    assert (refused.status, refused.abort_code) == ("MoveAbort", 0)
    assert refused.location is not None
    assert (refused.location.module, refused.location.function_name) == ("transfer", "share_object_impl")


def test_wrapping_hides_an_object_and_keeps_it(world: World) -> None:
    thing = make(world, 3)
    run(world, "things::wrap", thing)
    assert thing not in world.objects
    box = world.find("things::Box")
    transaction = world.begin()
    (inner,) = transaction.call("things::unwrap", box, package=world.home)  # type: ignore[attr-defined]
    assert inner.data[0][0][0] == thing
    assert transaction.call("things::destroy", inner.data, package=world.home)[0].data == 3  # type: ignore[attr-defined]
    transaction.commit()
    assert box not in world.objects


def test_receiving_checks_parent_version_and_type(world: World) -> None:
    parent = make(world, 1)
    child = make(world, 8, owner=parent)
    version = world.objects[child].version
    wrong = failure(world, "things::receive", parent, [[child], version + 1])
    assert wrong.abort_code == 3
    assert run(world, "things::receive", parent, [[child], version]) == [8]
    assert child not in world.objects
    coin = world.coin(5, owner=parent)
    assert failure(world, "things::receive", parent, [[coin], 1]).abort_code == 2


# ------------------------------------------------------------------------------------------------- fields


def test_tables_and_object_tables(world: World) -> None:
    run(world, "things::open_shop", CLOCK)
    shop = world.find("things::Shop")
    for key in range(5):
        run(world, "things::put", shop, key, key * 10)
    run(world, "things::put", shop, 2, 1)
    assert run(world, "things::stock", shop, 2) == [21]
    assert run(world, "things::stock_size", shop) == [5]
    assert run(world, "things::take", shop, 3) == [30]
    assert run(world, "things::stock_size", shop) == [4]
    gone = failure(world, "things::stock", shop, 3)
    assert (gone.abort_code, gone.location and gone.location.function_name) == (1, "borrow_child_object")

    thing = make(world, 6)
    run(world, "things::store", shop, 1, thing)
    assert world.objects[thing].owner.kind is OwnerKind.OBJECT
    run(world, "things::mark", shop, 1, 60)
    transaction = world.begin()
    (back,) = transaction.call("things::fetch", shop, 1, package=world.home)  # type: ignore[attr-defined]
    transaction.call("things::wrap", back.data, package=world.home)  # type: ignore[attr-defined]
    transaction.commit()
    assert back.data[1] == 60
    assert thing not in world.objects


def test_bags_know_their_types(world: World) -> None:
    run(world, "things::open_shop", CLOCK)
    shop = world.find("things::Shop")
    run(world, "things::put_odd", shop)
    wrong = failure(world, "things::odd_as_wrong_type", shop)
    assert (wrong.status, wrong.abort_code) == ("MoveAbort", 2)


def test_fields_of_fields(world: World) -> None:
    thing, child = make(world, 1), make(world, 2)
    run(world, "things::label", thing, bytearray(b"one"))
    run(world, "things::label", thing, bytearray(b"two"))
    assert run(world, "things::labelled", thing) == [bytearray(b"two")]
    run(world, "things::attach", thing, child)
    assert run(world, "things::attached", thing) == [2]
    again = failure(world, "things::attach", thing, make(world, 3))
    assert (again.abort_code, again.location and again.location.module) == (0, "dynamic_field")


def test_an_unchanged_child_is_no_effect(world: World) -> None:
    thing = make(world, 1)
    run(world, "things::label", thing, bytearray(b"x"))
    transaction = world.begin()
    transaction.call("things::labelled", thing, package=world.home)  # type: ignore[attr-defined]
    effects = transaction.runtime.collect_effects()
    assert effects.children == {}
    assert len(effects.loaded) == 1


# ------------------------------------------------------------------------------------------------- context


def test_the_transaction_context(world: World) -> None:
    sender, epoch, first, second, sponsor, digest = run(world, "things::context", sender=BOB)
    assert (sender, epoch, sponsor) == (BOB, 0, [[]])
    assert first != second
    assert digest == world.transactions.to_bytes(32, "little")


def test_coins_of_an_own_type(world: World) -> None:
    cap = world.find("coin::TreasuryCap")
    assert run(world, "token::mint_twice", cap, 100) == [150]
    kind = f"0x{world.home.hex()}::token::TOKEN"  # type: ignore[attr-defined]
    assert world.call("coin::total_supply", cap, types=(kind,)).numbers() == [150]
    coin = next(id for id, h in world.objects.items() if "coin::Coin<0xb" in h.type.tag)
    short = None
    with pytest.raises(ExecutionFailure) as caught:
        world.call("coin::split", coin, 151, types=(kind,))
    short = caught.value
    assert (short.abort_code, short.location and short.location.function_name) == (2, "split")
    assert short.location is not None
    assert short.location.module == "balance"


def test_signatures_and_hashes(world: World) -> None:
    key = SigningKey(bytes(range(32)))
    signature = bytearray(key.sign(b"hello").signature)
    public = bytearray(bytes(key.verify_key))
    assert run(world, "things::verified", signature, public, bytearray(b"hello")) == [True]
    assert run(world, "things::verified", signature, public, bytearray(b"hullo")) == [False]
    assert run(world, "things::verified", signature[:-1], public, bytearray(b"hello")) == [False]
    assert run(world, "things::verified", signature, bytearray(31), bytearray(b"hello")) == [False]
    import hmac

    (digests,) = run(world, "things::digests", bytearray(b"abc"))
    assert digests == [
        hashlib.sha256(b"abc").digest(),
        hashlib.sha3_256(b"abc").digest(),
        hashlib.blake2b(b"abc", digest_size=32).digest(),
        hmac.digest(b"key", b"abc", hashlib.sha3_256),
    ]


# ------------------------------------------------------------------------------------------------ failures


def test_clever_errors_name_themselves(world: World) -> None:
    text = failure(world, "flow::fail_text", 1).clever
    assert text is not None
    assert (text.constant, text.text, text.code) == ("ETooLong", "the walk is too long", 7)
    number = failure(world, "flow::fail_number").clever
    assert number is not None
    assert (number.constant, number.text, number.type_name) == ("ELimit", "99", "u64")
    bare = failure(world, "flow::fail_bare", 1).clever
    assert bare is not None
    assert (bare.constant, bare.line > 0) == ("", True)
    plain = failure(world, "flow::fail_plain")
    assert (plain.abort_code, plain.clever) == (42, None)


def test_a_failure_says_where(world: World) -> None:
    place = failure(world, "places::at", [1, 2], 2).location
    assert place is not None
    assert (place.package, place.module, place.function_name) == (world.home, "places", "at")  # type: ignore[attr-defined]
    assert place.instruction > 0


@pytest.mark.parametrize("target", ["flow::spin", "flow::swell"])
def test_hostile_loops_end(world: World, target: str) -> None:
    ended = failure(world, target, budget=50_000)
    assert ended.status in ("InsufficientGas", "MemoryLimitExceeded")


def test_a_loop_ends_at_the_highest_budget_too(world: World) -> None:
    assert failure(world, "flow::spin", budget=10**9).status == "InsufficientGas"


def test_events_are_limited(world: World) -> None:
    assert len(world.call("things::many_events", 1024, package=world.home).events) == 1024  # type: ignore[attr-defined]
    ended = failure(world, "things::many_events", 1025)
    assert (ended.status, ended.sub_status) == ("MovePrimitiveRuntimeError", 0)
    assert ended.location is not None
    assert (ended.location.module, ended.location.function_name) == ("event", "emit")


def test_arguments_are_checked(world: World) -> None:
    vm, home = world.vm, world.home  # type: ignore[attr-defined]
    session = world.begin().session
    u64, u8 = vm.parse_type("u64"), vm.parse_type("u8")
    with pytest.raises(ExecutionFailure) as caught:
        session.call_function(home, "flow", "gcd", [], [ArgumentSlot(u64, 1)])
    assert caught.value.status == "ArityMismatch"
    with pytest.raises(ExecutionFailure) as caught:
        session.call_function(home, "flow", "gcd", [], [ArgumentSlot(u64, 1), ArgumentSlot(u8, 1)])
    assert (caught.value.status, caught.value.argument) == ("CommandArgumentError", 1)
    with pytest.raises(ExecutionFailure) as caught:
        session.call_function(home, "flow", "lcm", [], [])
    assert caught.value.status == "FunctionNotFound"
    with pytest.raises(ExecutionFailure) as caught:
        session.call_function(home, "generic", "repeat", [vm.parse_type("0x2::clock::Clock")], [])
    assert (caught.value.status, caught.value.type_argument) == ("TypeArgumentError", 0)
    with pytest.raises(ExecutionFailure) as caught:
        session.call_function(home, "generic", "repeat", [], [])
    assert caught.value.status == "TypeArityMismatch"


@pytest.mark.parametrize(
    "tag",
    [
        "",
        "u65",
        "0x2::coin",
        "0x2::coin::Coin",
        "0x2::coin::Coin<u8",
        "vector<u8, u8>",
        "0x3::a::B",
        "a::b::C",
    ],
)
def test_bad_type_tags(world: World, tag: str) -> None:
    with pytest.raises(ExecutionFailure) as caught:
        world.vm.parse_type(tag)
    assert caught.value.status in ("TypeArgumentError", "TypeArityMismatch")


@pytest.mark.parametrize(
    ("tag", "data", "reason"),
    [
        ("u64", b"\1", "InvalidBCSBytes"),
        ("bool", b"\2", "InvalidBCSBytes"),
        ("vector<u64>", b"\xff\xff\xff\x7f", "InvalidBCSBytes"),
        ("0x1::string::String", b"\1\xff", "InvalidBCSBytes"),
        ("0x1::ascii::String", b"\1\xc3", "InvalidBCSBytes"),
        ("0x1::option::Option<u8>", b"\2\1\1", "InvalidBCSBytes"),
        ("vector<u8>", b"\1\1\1", "InvalidBCSBytes"),
        ("0x2::coin::Coin<0x2::sui::SUI>", bytes(40), "InvalidUsageOfPureArg"),
    ],
)
def test_bad_pure_arguments(world: World, tag: str, data: bytes, reason: str) -> None:
    with pytest.raises(ExecutionFailure) as caught:
        world.vm.decode_pure(world.vm.parse_type(tag), data)
    assert caught.value.reason == reason


def test_gas_is_counted_and_rounded(world: World) -> None:
    small = world.call("flow::gcd", 4, 2, package=world.home).meter  # type: ignore[attr-defined]
    large = world.call("flow::collatz", 27, 500, package=world.home).meter  # type: ignore[attr-defined]
    assert 0 < small.used < large.used
    assert round_units(small.used_units) == 1000
    assert round_units(1001) == 2000


def test_tiers_make_long_programs_dear() -> None:
    meter = GasMeter()
    meter.instructions = 20_000
    meter.settle_counters()
    first = meter.used
    meter.instructions += 1_000
    meter.settle_counters()
    assert (first, meter.used - first) == (20_000, 2_000)
