"""A small social feed: everyone writes into a graph of their own device, and reads whom they follow.

Who wrote what is signed, so a feed shows only posts that were written by the one whose they are.
python examples/graph_feed.py
"""

import asyncio

import dtp


class Person:
    """One person's device."""

    def __init__(self, name: str, graph: dtp.Graph) -> None:
        self.graph = graph
        self.soul = f"user/{graph.identity.id}"
        self.posts = 0
        graph.node(self.soul)["name"] = name

    def follow(self, other: "Person") -> None:
        self.graph.node(self.soul).link("follows", other.soul)

    def post(self, text: str) -> None:
        self.posts += 1
        self.graph.node(f"{self.soul}/post/{self.posts:06}")["text"] = text

    def feed(self) -> list[str]:
        """Posts of those whom this person follows, the latest first."""
        found = []
        for whom in self.graph.node(self.soul).links("follows"):
            key = dtp.PeerId.parse(whom.removeprefix("user/")).key
            for soul in self.graph.souls(f"{whom}/post/"):
                author, clock = self.graph.node(soul).written("text")
                if author == key:  # somebody else may write there, and nobody has to show it
                    name = self.graph.node(whom)["name"]
                    found.append((clock, f"{name}: {self.graph.node(soul)['text']}"))
        return [line for _, line in sorted(found, reverse=True)]


async def meet(one: Person, other: Person) -> None:
    """Two devices come near each other."""
    async with (
        await dtp.listen("tcp://127.0.0.1:0", other.graph.serve, identity=other.graph.identity) as listener,
        dtp.connect(listener.address(), identity=one.graph.identity) as connection,
    ):
        await one.graph.sync(connection)


async def main() -> None:
    identities = [dtp.Identity.generate() for _ in range(3)]
    graphs = [await dtp.Graph.open("memory:", identity=identity) for identity in identities]
    alice, bob, carol = (Person(*pair) for pair in zip(("Alice", "Bob", "Carol"), graphs, strict=True))
    carol.follow(alice)
    carol.follow(bob)
    alice.post("hello")
    bob.post("good morning")
    carol.graph.node(f"{alice.soul}/post/000002")["text"] = "a forgery"
    await meet(alice, bob)
    alice.post("is anybody there?")
    await meet(alice, bob)
    await meet(bob, carol)  # Carol never met Alice: Bob carried her posts
    for line in carol.feed():
        print(line)
    for graph in graphs:
        await graph.close()


if __name__ == "__main__":
    asyncio.run(main())
