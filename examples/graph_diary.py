"""A diary shared with a friend: others carry it and can't read it; who is no friend any more reads nothing new.

python examples/graph_diary.py
"""

import asyncio

import dtp
from dtp.graph import NotReader


async def main() -> None:
    alice, bob, carol = (dtp.Identity.generate() for _ in range(3))
    async with (
        await dtp.Graph.open("memory:", identity=alice) as hers,
        await dtp.Graph.open("memory:", identity=bob) as his,
        await dtp.Graph.open("memory:", identity=carol) as between,
        await dtp.listen("tcp://127.0.0.1:0", between.serve, identity=carol) as listener,
    ):

        async def meet() -> None:
            """Alice and Bob never meet: Carol carries what each has."""
            for graph, identity in ((hers, alice), (his, bob), (hers, alice)):
                async with dtp.connect(listener.address(), identity=identity) as connection:
                    await graph.sync(connection)

        his.access.publish_key()  # so that others can seal to him
        await meet()
        diary = hers.private("diary", readers=[bob.id])
        diary["monday"] = "It rained, and we danced."
        hers.access.grant(bob.id, "diary")  # he may also write
        await meet()
        shared = his.private(diary.soul)
        shared["tuesday"] = "I still have wet shoes."
        await meet()
        for day, entry in sorted(diary.items()):
            print(f"{day}: {entry}")
        try:
            print(between.private(diary.soul)["monday"])
        except NotReader:
            print(f"Carol carries {len(between.replica.node(diary.soul))} entries and can't read them")

        diary.remove_reader(bob.id)
        diary["wednesday"] = "He danced with Carol."
        await meet()
        try:
            print(shared["wednesday"])
        except NotReader:
            print("Bob reads no further")


if __name__ == "__main__":
    asyncio.run(main())
