"""Publish and upgrade: `init`, caps and tickets, what a bad package is called, and what clients can read of it."""

from __future__ import annotations

from typing import Any

import pytest
from node_world import STD, SUI, Tx, created, fixture_modules, package_of
from playground import Play

from dtp.chain.packages import available, load
from dtp.sui.bytecode import deserialize, package_digest
from dtp.sui.effects import UpgradeProblem
from dtp.sui.objects import Immutable
from dtp.sui.transaction import Publish, Upgrade

LATER = fixture_modules("playground_later")
BROKEN = fixture_modules("playground_broken")


def cap_of(play: Play) -> bytes:
    found = [
        r.id
        for r in play.world.node.objects_owned_by(play.alice.address).items
        if str(r.type).endswith("::package::UpgradeCap")
    ]
    assert len(found) == 1
    return found[0]


def upgrade(
    play: Play,
    modules: tuple[bytes, ...],
    *,
    policy: int = 0,
    package: bytes | None = None,
    digest: bytes | None = None,
) -> Tx:
    tx = play.tx()
    cap = tx.object(cap_of(play))
    wanted = package_digest(modules, (STD, SUI)) if digest is None else digest
    ticket = tx.call(SUI, "package::authorize_upgrade", cap, tx.u8(policy), tx.bytes(wanted))
    receipt = tx.command(Upgrade(modules, (STD, SUI), package or play.package, ticket))
    tx.call(SUI, "package::commit_upgrade", cap, receipt)
    return tx


@pytest.mark.parametrize("name", available())
def test_our_packages_publish(play: Play, name: str) -> None:
    package = load(name)
    id = play.world.publish(play.alice, tuple(package.modules.values()), package.dependencies)
    record = play.record(id)
    assert (record.owner, record.version) == (Immutable(), 1)
    assert record.package is not None
    assert set(record.package.modules) == set(package.modules)
    info = play.world.node.find_package(id)
    assert info is not None
    assert (info.storage_id, info.original_id, info.version) == (id, id, 1)


def test_init_ran_once_with_its_witness(play: Play) -> None:
    cap = play.record(play.treasury_cap())
    assert int.from_bytes(cap.contents[32:40], "little") == 0
    coin = play.world.node.coin_info(play.tag("gold::GOLD"))
    assert coin is not None
    assert (coin.decimals, coin.symbol, coin.name, coin.total_supply) == (3, "GLD", "Gold", 0)
    assert coin.treasury_cap_id == cap.id


def test_the_cap_must_go_somewhere(play: Play) -> None:
    tx = play.tx()
    tx.command(Publish(LATER, (STD, SUI)))
    play.fails(tx, "UnusedValueWithoutDrop", None)


def test_a_failed_publish_leaves_nothing(play: Play) -> None:
    tx = play.tx()
    tx.send(play.alice.address, tx.command(Publish(LATER, (STD, SUI))))
    play.call(tx, "fail")
    done = play.fails(tx, "MoveAbort", 2)
    assert [id for id, _ in done.effects.changed] == [
        done.effects.changed[done.effects.gas_object_index or 0][0]
    ]
    again = play.world.publish(play.alice, LATER, (STD, SUI))
    assert play.world.node.find_package(again) is not None


@pytest.mark.parametrize(
    ("modules", "dependencies", "kind"),
    [
        ((b"\0\1\2",), (STD, SUI), "VMVerificationOrDeserializationError"),
        ((LATER[0][:-1],), (STD, SUI), "VMVerificationOrDeserializationError"),
        ((*LATER, LATER[0]), (STD, SUI), "VMVerificationOrDeserializationError"),
        (LATER, (STD,), "PublishUpgradeMissingDependency"),
    ],
)
def test_bad_packages(
    play: Play, modules: tuple[bytes, ...], dependencies: tuple[bytes, ...], kind: str
) -> None:
    tx = play.tx()
    tx.send(play.alice.address, tx.command(Publish(modules, dependencies)))
    play.fails(tx, kind)


def test_modules_that_name_an_address_already(play: Play) -> None:
    published = play.record(play.package).package
    assert published is not None
    tx = play.tx()
    tx.send(play.alice.address, tx.command(Publish(tuple(published.modules.values()), (STD, SUI))))
    play.fails(tx, "PublishErrorNonZeroAddress")


def test_upgrade(play: Play) -> None:
    node = play.world.node
    thing = play.thing(3)
    later = package_of(play.ok(upgrade(play, LATER)))
    info = node.find_package(later)
    assert info is not None
    assert (info.original_id, info.version) == (play.package, 2)
    assert node.package_versions(play.package).items == ((1, play.package), (2, later))
    assert node.package_versions(later).items == ((1, play.package), (2, later))
    # Old code and new code both run, on the same objects.
    for package, number in ((play.package, "5"), (later, "6")):
        tx = play.tx()
        tx.call(package, "things::value", tx.object(thing))
        tx.call(package, "things::number")
        outputs = node.simulate(play.world.data(tx, play.alice)).commands
        assert [o.returned[0].json for o in outputs] == ["3", number]
    # A type introduced by the upgrade lives at the new address.
    tx = play.tx()
    tx.send(play.alice.address, tx.call(later, "things::later"))
    made = play.record(created(play.ok(tx), "::things::Later"))
    assert made.type is not None
    assert made.type.address == later
    found = node.find_datatype(later, "things", "Thing")
    assert found is not None
    assert found.defining_id == play.package
    # And again, from the upgraded package.
    newest = package_of(play.ok(upgrade(play, LATER, package=later)))
    assert node.package_versions(later).items[-1] == (3, newest)


def test_an_abort_names_the_version_that_ran(play: Play) -> None:
    later = package_of(play.ok(upgrade(play, LATER)))
    for package in (play.package, later):
        tx = play.tx()
        tx.call(package, "things::fail")
        error = play.fails(tx, "MoveAbort").effects.error
        assert error is not None
        assert error.content["location"].package == package


def test_an_upgrade_may_not_add_a_module_with_init(play: Play) -> None:
    things = tuple(m for m in LATER if deserialize(m).name == "things")
    assert len(things) == len(LATER) - 1
    package = play.world.publish(play.alice, things, (STD, SUI))
    (cap,) = (
        r
        for r in play.world.node.objects_owned_by(play.alice.address).items
        if str(r.type).endswith("::package::UpgradeCap") and r.contents[32:64] == package
    )
    tx = play.tx()
    digest = package_digest(LATER, (STD, SUI))
    ticket = tx.call(SUI, "package::authorize_upgrade", tx.object(cap.id), tx.u8(0), tx.bytes(digest))
    receipt = tx.command(Upgrade(LATER, (STD, SUI), package, ticket))
    tx.call(SUI, "package::commit_upgrade", tx.object(cap.id), receipt)
    play.fails(tx, "FeatureNotYetSupported", 1)


def problem_of(play: Play, tx: Tx) -> Any:
    error = play.fails(tx, "PackageUpgradeError", 1).effects.error
    assert error is not None
    return error.content["problem"]


def test_upgrades_that_are_refused(play: Play) -> None:
    assert problem_of(play, upgrade(play, BROKEN)) == UpgradeProblem("IncompatibleUpgrade")
    assert problem_of(play, upgrade(play, LATER, policy=192)) == UpgradeProblem("IncompatibleUpgrade")
    wrong = upgrade(play, LATER, digest=bytes(32))
    assert problem_of(play, wrong) == UpgradeProblem(
        "DigestDoesNotMatch", (package_digest(LATER, (STD, SUI)),)
    )
    other = play.world.publish_shipped(play.world.wallet("bob", 9_000_000_000), "escrow")
    assert problem_of(play, upgrade(play, LATER, package=other)) == UpgradeProblem(
        "PackageIDDoesNotMatch", (other, play.package)
    )
    nowhere = bytes(31) + b"\x77"
    assert problem_of(play, upgrade(play, LATER, package=nowhere)) == UpgradeProblem(
        "UnableToFetchPackage", (nowhere,)
    )
    thing = play.thing()
    assert problem_of(play, upgrade(play, LATER, package=thing)) == UpgradeProblem("NotAPackage", (thing,))


def test_a_ticket_can_not_be_dropped_nor_a_receipt(play: Play) -> None:
    tx = play.tx()
    digest = tx.bytes(package_digest(LATER, (STD, SUI)))
    tx.call(SUI, "package::authorize_upgrade", tx.object(cap_of(play)), tx.u8(0), digest)
    play.fails(tx, "UnusedValueWithoutDrop", None)
    tx = upgrade(play, LATER)
    del tx.commands[2]
    play.fails(tx, "UnusedValueWithoutDrop", None)


def test_an_upgraded_package_can_not_be_upgraded_from_its_old_version(play: Play) -> None:
    play.ok(upgrade(play, LATER))
    assert problem_of(play, upgrade(play, LATER)).name == "PackageIDDoesNotMatch"


def test_reflection(play: Play) -> None:
    node = play.world.node
    thing = node.find_datatype(play.package, "things", "Thing")
    assert thing is not None
    assert thing.type_name == f"0x{play.package.hex()}::things::Thing"
    assert thing.abilities == ("store", "key")
    assert [(f.name, f.type.kind, f.type.name) for f in thing.fields] == [
        ("id", "datatype", f"0x{SUI.hex()}::object::UID"),
        ("value", "u64", ""),
    ]
    shape = node.find_datatype(play.package, "things", "Shape")
    assert shape is not None
    assert [(v.name, [f.name for f in v.fields]) for v in shape.variants] == [
        ("Dot", []),
        ("Line", ["length"]),
    ]
    generic = node.find_function(play.package, "things", "generic")
    assert generic is not None
    assert generic.type_parameters[0].abilities == ("store", "key")
    assert (generic.parameters[0].body.kind, generic.parameters[0].body.index) == ("parameter", 0)
    entry = node.find_function(play.package, "things", "only_entry")
    assert entry is not None
    assert (entry.visibility, entry.is_entry, entry.parameters[0].reference) == ("private", True, "&mut")
    assert node.find_function(play.package, "things", "missing") is None
    assert node.find_function(play.package, "nowhere", "missing") is None
    assert node.find_datatype(play.thing(), "things", "Thing") is None
    package = node.find_package(play.package)
    assert package is not None
    assert [m.name for m in package.modules] == ["gold", "things"]
