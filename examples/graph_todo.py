"""A shared to-do list: two people edit it apart, without a server, and agree when they meet.

python examples/graph_todo.py
"""

import asyncio

import dtp


async def main() -> None:
    alice, bob = dtp.Identity.generate(), dtp.Identity.generate()
    async with (
        await dtp.Graph.open("memory:", identity=alice) as hers,
        await dtp.Graph.open("memory:", identity=bob) as his,
        await dtp.listen("tcp://127.0.0.1:0", his.serve, identity=bob) as listener,
    ):
        hers.list("todo").extend(["milk", "bread", "call the plumber"])
        async with dtp.connect(listener.address(), identity=alice) as connection:
            await hers.sync(connection)

        # Both are offline now.
        hers.list("todo").move(2, 0)  # first things first
        hers.list("todo").remove("bread")
        his.list("todo")[0] = "oat milk"
        his.list("todo").append("flowers")
        his.set("done").add("call the plumber")

        async with dtp.connect(listener.address(), identity=alice) as connection:
            await hers.sync(connection)
        assert list(hers.list("todo")) == list(his.list("todo"))
        for item in hers.list("todo"):
            print("x" if item in hers.set("done") else "-", item)


if __name__ == "__main__":
    asyncio.run(main())
