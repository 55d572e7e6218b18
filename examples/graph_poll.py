"""A poll without a server: one vote for each voter, by rules that every replica keeps, and a proof of who broke them.

python examples/graph_poll.py
"""

import asyncio
from collections import Counter

import dtp
from dtp.core.crdt import GraphCore
from dtp.crdt import values
from dtp.graph import Rule, RuleBroken, Rules, Schema
from dtp.graph.frames import envelope as envelopes


def poll(voters: list[dtp.PeerId]) -> Rules:
    """Each voter's first word at a question stands, at a key of the voter's own name."""
    ballot = Rule(
        path="*",
        key="{author}",
        value=Schema(one_of=("soup", "salad")),
        writers=frozenset(str(voter) for voter in voters),
        once="soul",
    )
    return Rules("vote", [ballot])


def cheat(identity: dtp.Identity, rules: Rules) -> list[bytes]:
    """Two votes of one voter, signed by software that keeps no rules."""
    core, previous, signed = GraphCore(identity.id.key), envelopes.NONE_BEFORE, []
    for number, choice in enumerate(("soup", "salad"), 1):
        rows = [(rules.root, "rules", rules.document), (rules.soul("lunch"), str(identity.id), choice)]
        with core.trust_own():
            core.put_registers(values.encode_rows(rows), number << 16)
        made = core.commit()
        assert made is not None
        one = envelopes.sign_frame(identity, "office", number, previous, made[0])
        signed.append(one.encode())
        previous = one.hash
    return signed


async def main() -> None:
    people = {name: dtp.Identity.generate() for name in ("Alice", "Bob", "Carol", "Mallory")}
    rules = poll([person.id for person in people.values()])
    graphs = {
        name: await dtp.Graph.open("memory:", identity=person, name="office")
        for name, person in people.items()
    }
    lunch = rules.soul("lunch")
    for name, choice in (("Alice", "soup"), ("Bob", "salad"), ("Carol", "soup")):
        graphs[name].access.allow(rules)
        graphs[name].node(lunch)[str(people[name].id)] = choice
    try:
        graphs["Alice"].node(lunch)[str(people["Alice"].id)] = "salad"
    except RuleBroken as error:
        print("Alice can't vote again:", str(error).rpartition(": ")[2])

    sent = cheat(people["Mallory"], rules)
    for graph in graphs.values():
        await graph.commit()
        sent += [
            one
            for author, last in graph.frames.vector().items()
            for one in await graph.frames.read(author, 1, last)
        ]
    for graph in graphs.values():  # in whatever order and however often
        await graph.receive(sent)
        await graph.receive(sent[::-1])
    for name, graph in graphs.items():
        votes = Counter(graph.node(lunch).values())
        print(f"{name} counts {dict(sorted(votes.items()))}")
    for proof in await graphs["Carol"].access.offences():
        who = next(name for name, person in people.items() if person.id.key == proof.author)
        print(f"{who} signed {proof.breach.text!r}; anyone can check it: {proof.is_valid()}")
    for graph in graphs.values():
        await graph.close()


if __name__ == "__main__":
    asyncio.run(main())
