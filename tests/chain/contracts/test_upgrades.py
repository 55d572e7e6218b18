"""Who may change a package, read off a node; and an upgrade from version 1 to version 2, with what is migrated."""

import re
import shutil
from pathlib import Path

import pytest

from dtp.chain import ChainClient, Program, channel, host, pass_
from dtp.chain.errors import MoveAborted
from dtp.chain.packages.deployments import Deployments
from dtp.chain.packages.publish import adopt, publish
from dtp.chain.packages.upgrades import (
    NotMigratable,
    NotUpgradable,
    UpgradePolicy,
    migrate,
    read_upgrades,
    restrict,
    upgrade,
)
from dtp.cli import move_build
from dtp.cli.move_build import Checkout
from dtp.errors import ChainError

from ..conftest import run
from .test_modules import CLAIM_MS, World, do

ROOT = Path(__file__).resolve().parents[3]
HAS_COMPILER = shutil.which("node") is not None and (ROOT / "move/node_modules").is_dir()
needs_compiler = pytest.mark.skipif(not HAS_COMPILER, reason="needs Node, and `npm ci` in move/")


@pytest.fixture
def publisher(client, wallet):
    """A client that knows no package, and has the money to publish some."""
    return lambda: client(wallet(), deployments=Deployments())


def test_a_package_that_was_published_immutable_is_told_to_be_so_for_good(publisher):
    async def scenario():
        async with publisher() as ours, publisher() as others:
            made, executed = await publish(ours, "escrow", immutable=True)
            assert (made.policy, made.upgrade_cap, executed is not None) == (
                UpgradePolicy.IMMUTABLE,
                "",
                True,
            )
            assert (await adopt(others, "escrow", made.id)).policy == UpgradePolicy.IMMUTABLE
            found = await read_upgrades(others, made.id)
            assert (found.policy, found.cap, found.holder) == (UpgradePolicy.IMMUTABLE, "", "")
            for change in (upgrade(ours, made), restrict(ours, made, UpgradePolicy.ADDITIVE)):
                with pytest.raises(NotUpgradable, match="immutable"):
                    await change

    run(scenario())


def test_who_uses_a_package_is_told_who_may_change_it(publisher):
    async def scenario():
        async with publisher() as ours, publisher() as others:
            made, _ = await publish(ours, "escrow")
            assert (made.policy, bool(made.upgrade_cap)) == (UpgradePolicy.COMPATIBLE, True)
            assert (await adopt(others, "escrow", made.id)).policy == UpgradePolicy.COMPATIBLE
            found = await read_upgrades(others, made.id)
            assert (found.policy, found.cap, found.holder) == (
                UpgradePolicy.COMPATIBLE,
                made.upgrade_cap,
                ours.address,
            )
            assert ours.address in found.text
            for policy in (UpgradePolicy.ADDITIVE, UpgradePolicy.DEPENDENCIES):
                await restrict(ours, made, policy)
                assert (await read_upgrades(others, made.id)).policy == policy
                assert ours.deployments.find("escrow").policy == policy
            # There is no way back.
            with pytest.raises(MoveAborted):
                await restrict(ours, made, UpgradePolicy.ADDITIVE)
            # Given up later: a node doesn't tell that from a cap that is inside another object.
            await restrict(ours, made, UpgradePolicy.IMMUTABLE)
            ours_now = ours.deployments.find("escrow")
            assert (ours_now.policy, ours_now.upgrade_cap) == (UpgradePolicy.IMMUTABLE, "")
            assert (await read_upgrades(others, made.id)).policy == UpgradePolicy.UNKNOWN

    run(scenario())


def test_a_cap_that_somebody_else_has_upgrades_nothing(publisher):
    async def scenario():
        async with publisher() as ours, publisher() as others:
            made, _ = await publish(ours, "escrow")
            theirs = await adopt(others, "escrow", made.id)
            with pytest.raises(ChainError):
                await upgrade(others, theirs)

    run(scenario())


def second_version(tmp_path):
    """The package `transport` as its version 2: the same sources, with the number raised."""
    shutil.copytree(ROOT / "move", tmp_path / "move", ignore=shutil.ignore_patterns("node_modules"))
    (tmp_path / "move/node_modules").symlink_to(ROOT / "move/node_modules")
    raised = 0
    for source in (tmp_path / "move/transport/sources").glob("*.move"):
        text, count = re.subn(r"const VERSION: u16 = 1;", "const VERSION: u16 = 2;", source.read_text())
        source.write_text(text)
        raised += count
    assert raised == 3
    return move_build.compile_package(Checkout(tmp_path), "transport")[0]


@pytest.mark.slow
@needs_compiler
def test_objects_of_version_1_are_migrated_to_version_2_with_all_their_money(publisher, tmp_path, net):
    newer = second_version(tmp_path)

    async def refused(error, work):
        with pytest.raises(MoveAborted) as aborted:
            await work
        assert aborted.value.error is error

    async def scenario():
        async with publisher() as server, publisher() as user:
            first, _ = await publish(server, "transport")
            await adopt(user, "transport", first.id)
            world = await World(server, user).set_up()
            program = Program()
            pass_.share(
                program, pass_.new_plan(program, world.host, world.cap, 1, price=1000, period_ms=60_000)
            )
            plan = server.events_in(await server.execute(program), pass_.SCHEMA, pass_.PlanCreated)[0].plan
            id = await world.open_channel(10_000)
            await do(user, channel.claim_for, *world.voucher(id, 1, 3000, 3))
            # Nothing is of an older version yet.
            await refused(host.HostError.UP_TO_DATE, migrate(server, [world.host]))
            second, executed = await upgrade(server, first, newer)
            assert (second.original_id, second.id) == (first.id, executed.created_objects("package")[0].id)
            assert (await read_upgrades(user, second.id)).policy == UpgradePolicy.COMPATIBLE
            # The new code refuses what wasn't migrated, and who stayed with the old one goes on with that.
            await refused(
                host.HostError.WRONG_VERSION, do(server, host.set_open, world.host, world.cap, 1, True)
            )
            await do(user, channel.claim_for, *world.voucher(id, 2, 4000, 4))
            # Who may not migrate can't: the channel is its server's to move, host and plan their owner's.
            user_second = Deployments()
            user_second.save(second)
            async with _like(user, user_second) as other:
                await refused(channel.ChannelError.NOT_SERVER, migrate(other, [id]))
                for object in (world.host, plan):
                    with pytest.raises(NotMigratable, match="owner"):
                        await migrate(other, [object])
                with pytest.raises(NotMigratable, match="hosts, plans and channels"):
                    await migrate(other, [world.beacon])
                executed = await migrate(server, [world.host, plan, id])
                (moved,) = server.events_in(executed, host.SCHEMA, host.HostMigrated)
                assert (moved.host, moved.from_, moved.to) == (world.host, 1, 2)
                versions = [
                    (await other.read(schema, cls, object)).version
                    for schema, cls, object in (
                        (host.SCHEMA, host.Host, world.host),
                        (host.SCHEMA, host.Beacon, world.beacon),
                        (pass_.SCHEMA, pass_.Plan, plan),
                        (channel.SCHEMA, channel.Channel, id),
                    )
                ]
                assert versions == [2, 2, 2, 2]
                # The old code refuses them from now on, and each coin is where it was.
                await refused(channel.ChannelError.WRONG_VERSION, do(user, channel.request_close, id))
                await do(other, channel.claim_for, *world.voucher(id, 3, 5000, 5))
                await do(other, channel.request_close, id)
                net.advance_clock(CLAIM_MS)
                await do(other, channel.finalize, id)
                found = await other.read(channel.SCHEMA, channel.Channel, id)
                assert (found.claimed, found.refunded, found.balance) == (5000, 5000, 0)
                await do(other, channel.destroy, id)

    def _like(chain, deployments):
        return ChainClient(chain.network, chain.signer, deployments=deployments)

    run(scenario())
