"""A person's devices in a graph: one is added, one is lost, the account's key is stolen; the souls stay."""

from __future__ import annotations

from pathlib import Path

import pytest
from graph_fixtures import ALICE, BOB, CAROL, everything, identity, meet, run

from dtp.core.errors import NotOwner
from dtp.graph import Graph, GraphError, GraphReadOnly, revoke_device
from dtp.identity import Account, AccountError, Device

KEY, RECOVERY, NEXT, NEXT_RECOVERY = map(identity, ("account", "recovery", "next", "next recovery"))
#: Alice's account: the laptop, which has the account's key, and a phone.
LAPTOP, PHONE = ALICE, BOB
FIRST = Account.create(KEY, RECOVERY.id, [Device(LAPTOP.id.key, "laptop")])


def test_a_device_is_added_and_lost_and_the_souls_stay(tmp_path: Path) -> None:
    path = str(tmp_path / "laptop.db")

    async def main() -> None:
        laptop = await Graph.open(path, identity=LAPTOP)
        phone = await Graph.open("memory:", identity=PHONE)
        carol = await Graph.open("memory:", identity=CAROL)
        with pytest.raises(GraphError, match="0 accounts"):
            laptop.accounts.own("notes")
        with pytest.raises(GraphError, match=r"Card\.parse"):
            laptop.accounts.join(FIRST.card.encode())  # type: ignore[arg-type]
        laptop.accounts.join(FIRST.card)
        notes = laptop.accounts.own("notes")
        assert notes == f"~{FIRST.card.name}/notes"
        laptop.node(notes)["title"] = "by the laptop"
        await meet(laptop, phone, carol)
        with pytest.raises(GraphError, match="not a device"):
            phone.accounts.join(FIRST.card)
        with pytest.raises(NotOwner, match="adds this device"):
            phone.node(notes)["title"] = "by the phone"

        both = FIRST.add(PHONE.id, "phone")
        laptop.accounts.join(both.card)
        await meet(laptop, phone, carol)
        assert phone.accounts.own("notes") == notes  # by the card that came
        phone.node(notes)["title"] = "by the phone"
        phone.text(notes).insert(0, "written away")
        await meet(laptop, phone, carol)
        assert carol.node(notes)["title"] == "by the phone"
        assert [
            (one.label, one.is_named, one.ended) for one in carol.accounts.devices(FIRST.card.name)
        ].count(("phone", True, None)) == 1

        phone.node(notes)["title"] = "by the thief"
        phone.text(notes).append(", not seen")
        await carol.receive(await everything(phone))
        assert carol.node(notes)["title"] == "by the thief"
        less = laptop.accounts.revoke(both, PHONE.id)
        assert not less.card.names(PHONE.id.key)
        await meet(laptop, carol, phone)
        for graph in (laptop, carol, phone):
            assert (graph.node(notes)["title"], str(graph.text(notes))) == ("by the phone", "written away")
        with pytest.raises(NotOwner, match="the account has revoked its author"):
            phone.node(notes)["title"] = "again"
        (gone,) = [one for one in carol.accounts.devices(FIRST.card.name) if one.peer == PHONE.id]
        assert gone.ended is not None
        assert not gone.is_named
        with pytest.raises(AccountError):
            laptop.accounts.revoke(less, CAROL.id)
        assert laptop.accounts.revoke(less, PHONE.id) is less  # again is no harm
        await laptop.close()
        laptop = await Graph.open(path, identity=LAPTOP)
        assert laptop.accounts.own("notes") == notes
        laptop.node(notes)["title"] = "by the laptop again"
        await meet(laptop, carol, phone)
        for graph in (laptop, carol, phone):
            await graph.verify()
            await graph.close()
        async with await Graph.open(path, identity=LAPTOP, read_only=True) as read:
            with pytest.raises(GraphReadOnly):
                read.accounts.join(FIRST.card)

    run(main())


def test_a_device_is_put_out_of_several_graphs_in_one_call(tmp_path: Path) -> None:
    path = str(tmp_path / "read.db")

    async def main() -> None:
        both = FIRST.add(PHONE.id, "phone")
        async with await Graph.open(path, identity=LAPTOP) as kept:
            kept.accounts.join(FIRST.card)
        used = await Graph.open("memory:", identity=LAPTOP, name="used")
        unused = await Graph.open("memory:", identity=LAPTOP, name="unused")
        read = await Graph.open(path, identity=LAPTOP, read_only=True)
        phones = [await Graph.open("memory:", identity=PHONE, name=graph.name) for graph in (used, unused)]
        for graph in (used, unused):
            graph.accounts.join(both.card)
        await meet(used, phones[0])
        phones[0].node(phones[0].accounts.own("notes"))["title"] = "seen"
        await meet(used, phones[0])
        with pytest.raises(AccountError):
            await revoke_device([used], both, CAROL.id)
        revoked = await revoke_device([used, read, unused], both, PHONE.id)
        assert not revoked.account.card.names(PHONE.id.key)
        ((graph, error),) = revoked.refused
        assert graph is read
        assert isinstance(error, GraphReadOnly)
        # the thief has the card of before, and shows it where the phone never wrote
        phones[1].accounts.join(both.card)
        for phone, there in zip(phones, (used, unused), strict=True):
            soul = phone.accounts.own("notes")
            phone.node(soul)["title"] = "by the thief"
            await there.receive(await everything(phone))
            assert dict(there.node(soul)) == ({"title": "seen"} if there is used else {})
        again = await revoke_device([used], revoked.account, PHONE.id)  # again is no harm
        assert again == (revoked.account, ())
        for graph in (used, unused, read, *phones):
            await graph.close()

    run(main())


def test_the_recovery_key_takes_the_account_back() -> None:
    async def main() -> None:
        laptop = await Graph.open("memory:", identity=LAPTOP)
        thief = await Graph.open("memory:", identity=PHONE)
        fresh = await Graph.open("memory:", identity=CAROL)  # the machine that the owner goes on with
        laptop.accounts.join(FIRST.card)
        notes = laptop.accounts.own("notes")
        laptop.node(notes).update(title="mine", kept=1)
        await meet(laptop, thief, fresh)
        stolen = FIRST.add(PHONE.id, "theirs")
        thief.accounts.revoke(thief_takes(thief, stolen), LAPTOP.id)
        thief.node(notes)["title"] = "theirs"
        laptop.node(notes)["kept"] = 2
        await meet(laptop, thief, fresh)
        assert (fresh.node(notes)["title"], fresh.node(notes)["kept"]) == ("theirs", 1)
        with pytest.raises(NotOwner):
            laptop.node(notes)["kept"] = 3

        devices = [Device(CAROL.id.key, "new"), Device(LAPTOP.id.key, "laptop")]
        taken = Account.rotate(stolen.card, RECOVERY, NEXT, NEXT_RECOVERY.id, devices)
        fresh.accounts.take_over(taken)
        await meet(laptop, thief, fresh)
        assert fresh.node(notes)["kept"] == 2  # the laptop is vouched for again
        assert fresh.node(notes)["title"] == "theirs"  # up to what had come
        with pytest.raises(GraphError, match="revoke it first"):
            fresh.accounts.ignore(taken, LAPTOP.id)
        fresh.accounts.ignore(taken, PHONE.id)
        thief.accounts.join(stolen.add(PHONE.id, "mine too").card)
        await thief.commit()
        await meet(laptop, thief, fresh)
        for graph in (laptop, thief, fresh):
            assert graph.node(notes).to_dict() == {"title": "mine", "kept": 2}
            assert graph.accounts.card(taken.card.name).key == NEXT.id.key
        with pytest.raises(NotOwner):
            thief.node(notes)["title"] = "again"
        laptop.node(notes)["title"] = "mine again"
        fresh.node(notes)["new"] = True
        await meet(laptop, thief, fresh)
        assert thief.node(notes)["title"] == "mine again"
        for graph in (laptop, thief, fresh):
            await graph.close()

    def thief_takes(thief: Graph, stolen: Account) -> Account:
        thief.accounts.join(stolen.card)
        return stolen

    run(main())


def test_an_ended_device_stays_ended_under_the_next_key() -> None:
    """What it wrote behind its cut has come meanwhile, and doesn't count again."""

    async def main() -> None:
        laptop = await Graph.open("memory:", identity=LAPTOP)
        phone = await Graph.open("memory:", identity=PHONE)
        both = FIRST.add(PHONE.id, "phone")
        laptop.accounts.join(both.card)
        notes = laptop.accounts.own("notes")
        await meet(laptop, phone)
        phone.node(notes)["k"] = "seen"
        await meet(laptop, phone)
        less = laptop.accounts.revoke(both, PHONE.id)
        phone.node(notes)["k"] = "not seen"
        await meet(laptop, phone)
        turned = Account.rotate(less.card, RECOVERY, NEXT, NEXT_RECOVERY.id, less.card.devices)
        laptop.accounts.take_over(turned)
        await meet(laptop, phone)
        assert phone.node(notes)["k"] == "seen"
        await laptop.close()
        await phone.close()

    run(main())


def test_what_is_granted_to_an_account_is_granted_to_its_devices() -> None:
    """Carol lets Alice's account write: the phone that comes later, too, and not the one that was lost."""

    async def main() -> None:
        laptop, phone, carol = [
            await Graph.open("memory:", identity=who, name="g") for who in (LAPTOP, PHONE, CAROL)
        ]
        laptop.accounts.join(FIRST.card)
        granted = carol.access.grant(FIRST.card.name, "board")
        board = carol.own("board")
        await meet(laptop, phone, carol)
        assert granted.grantee_name == FIRST.card.name
        laptop.node(board)["k"] = "laptop"
        laptop.text(board).append("laptop")
        with pytest.raises(NotOwner):
            phone.node(board)["k"] = "phone"
        assert not carol.admission.is_stranger(LAPTOP.id.key)
        assert carol.admission.is_stranger(PHONE.id.key)

        both = FIRST.add(PHONE.id, "phone")
        laptop.accounts.join(both.card)
        await meet(laptop, phone, carol)
        phone.node(board)["k"] = "phone"
        phone.text(board).append(" and phone")
        await meet(laptop, phone, carol)
        assert (carol.node(board)["k"], str(carol.text(board))) == ("phone", "laptop and phone")
        assert not carol.admission.is_stranger(PHONE.id.key)

        phone.node(board)["k"] = "the thief"  # whoever has the phone now
        less = laptop.accounts.revoke(both, PHONE.id)
        await meet(laptop, phone, carol)
        for graph in (laptop, phone, carol):
            assert (graph.node(board)["k"], str(graph.text(board))) == ("phone", "laptop and phone")
        with pytest.raises(NotOwner):
            phone.node(board)["k"] = "again"
        laptop.node(board)["k"] = "laptop again"
        await meet(laptop, phone, carol)

        laptop.node(board)["k"] = "not seen by carol"
        assert [one.id for one in carol.access.grants()] == [granted.id]
        carol.access.revoke(granted)
        assert carol.access.grants() == []
        await meet(laptop, phone, carol)
        for graph in (laptop, phone, carol):
            assert graph.node(board)["k"] == "laptop again"
        with pytest.raises(NotOwner):
            laptop.node(board)["k"] = "again"
        with pytest.raises(GraphError, match="not an account"):
            carol.access.grant("dtpa1nonsense", "board")
        carol.access.grant(less, "board")  # by the account or its card, too
        carol.access.revoke(carol.access.grant(less.card, "other"))
        await meet(laptop, phone, carol)
        laptop.node(board)["k"] = "friends again"
        await meet(laptop, phone, carol)
        for graph in (laptop, phone, carol):
            assert graph.node(board)["k"] == "friends again"
            await graph.verify()
            await graph.close()

    run(main())
