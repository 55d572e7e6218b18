"""A wiki with history: two write one page at the same time, every version is kept, and vandalism is undone.

python examples/graph_wiki.py
"""

import asyncio

import dtp


async def main() -> None:
    alice, bob = dtp.Identity.generate(), dtp.Identity.generate()
    names = {alice.id.key: "Alice", bob.id.key: "Bob"}
    async with (
        await dtp.Graph.open("memory:", identity=alice, name="wiki") as hers,
        await dtp.Graph.open("memory:", identity=bob, name="wiki") as his,
        await dtp.listen("tcp://127.0.0.1:0", his.serve, identity=bob) as listener,
        dtp.connect(listener.address(), identity=alice) as connection,
    ):
        hers.node("page/dtp")["title"] = "Sockets by identity"
        hers.text("page/dtp").insert(0, "DTP connects programs.")
        await hers.sync(connection)

        hers.text("page/dtp").insert(0, "# Introduction\n")  # both at once
        his.text("page/dtp").append(" It encrypts what they say.")
        await hers.sync(connection)
        assert str(hers.text("page/dtp")) == str(his.text("page/dtp"))
        print(hers.text("page/dtp"))

        his.node("page/dtp")["title"] = "BUY NOW"
        await hers.sync(connection)
        vandalism = (await hers.history.versions("page/dtp", "title"))[-1]
        await hers.history.restore("page/dtp", vandalism.when - 0.001)
        await hers.sync(connection)
        print(f"\ntitle: {his.node('page/dtp')['title']}")
        for version in await hers.history.versions("page/dtp", "title"):
            was = f" (was {version.before!r})" if version.had_value else ""
            print(f"  {names[version.op.author]} wrote {version.op.value!r}{was}")


if __name__ == "__main__":
    asyncio.run(main())
