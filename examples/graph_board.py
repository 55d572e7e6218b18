"""A board that two people share: typed models, undo, and one notification for each commit.

python examples/graph_board.py
"""

import asyncio
from collections.abc import Mapping
from typing import Literal

import dtp
from dtp.crdt import Counter, GraphText, Value
from dtp.graph.models import Links, Members, Model, counter, link, links, members, migration, text


class Person(Model, kind="person"):
    name: str


class Card(Model, kind="card", version=2):
    title: str
    column: Literal["to do", "doing", "done"] = "to do"  # since version 2: there was only `done`
    notes: GraphText = text()
    tags: Members[str] = members(str)
    votes: Counter = counter()
    owner: Person | None = link(Person)
    after: Links["Card"] = links(lambda: Card)

    @migration(2)
    @staticmethod
    def columns(old: Mapping[str, Value]) -> Mapping[str, Value]:
        return {"column": "done" if old.get("done") else "to do"}


def show(graph: dtp.Graph) -> None:
    for card in sorted(Card.in_(graph), key=lambda card: card.title):
        print(
            f"{card.column}: {card.title} ({card.owner.name if card.owner else 'nobody'}, {card.votes.value})"
        )


async def main() -> None:
    alice, bob = dtp.Identity.generate(), dtp.Identity.generate()
    async with (
        await dtp.Graph.open("memory:", identity=alice) as hers,
        await dtp.Graph.open("memory:", identity=bob) as his,
        await dtp.listen("tcp://127.0.0.1:0", his.serve, identity=bob) as listener,
    ):
        hers.node("card/old").update(title="paint the fence", done=True)  # by a program of last year
        cards = Card.in_(hers)
        milk = cards.add(Card(title="buy milk"))
        milk.owner = Person.in_(hers).add(Person(name="Alice"))
        milk.notes.insert(0, "two bottles")
        print("migrated", cards.migrate().nodes)  # on any device, at any time
        with hers.undo_manager() as undo:
            with undo.step("start"):
                milk.column = "doing"
                milk.votes.add(1)
            with his.changes("card/*") as changes:
                async with dtp.connect(listener.address(), identity=alice) as connection:
                    await hers.sync(connection)
                batch = await anext(changes)
            print("he hears of", len({change.soul for change in batch.changes}), "cards at once")
            Card.in_(his)[milk.id].votes.add(1)  # he likes it, too
            async with dtp.connect(listener.address(), identity=alice) as connection:
                await hers.sync(connection)
            show(hers)
            undo.undo()  # her own step: his vote stays
        show(hers)


if __name__ == "__main__":
    asyncio.run(main())
