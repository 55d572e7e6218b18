"""A Zettelkasten: notes that refer to each other, and for each note those that refer to it.

python examples/graph_notes.py [FILE]          # FILE keeps the notes; without it they are gone afterwards
"""

import asyncio
import re
import sys

import dtp

NOTES = {
    "crdt": "Replicas that saw the same hold the same. See [[clock]] and [[dot]].",
    "clock": "Time that never goes back: [[hlc]].",
    "hlc": "Wall time and a count, so that causes come before effects.",
    "dot": "Who made it, and when by their [[clock]].",
}


def write(graph: dtp.Graph, name: str, text: str) -> None:
    """Replace a note's text, and bring its links up to date."""
    body = graph.text(f"note/{name}")
    body.replace(0, len(body), text)
    note = graph.node(f"note/{name}")
    wanted = {f"note/{target}" for target in re.findall(r"\[\[(\w+)]]", text)}
    for soul in set(note.links("refers")) - wanted:
        note.unlink("refers", soul)
    for soul in wanted - set(note.links("refers")):
        note.link("refers", soul)


def backlinks(graph: dtp.Graph, name: str) -> list[str]:
    """The notes that refer to this one."""
    souls = graph.souls("note/")
    return [
        soul.removeprefix("note/") for soul in souls if f"note/{name}" in graph.node(soul).links("refers")
    ]


async def main(place: str) -> None:
    async with await dtp.Graph.open(place, identity=dtp.Identity.generate()) as graph:
        for name, text in NOTES.items():
            write(graph, name, text)
        for name in NOTES:
            print(f"{name}: {graph.text(f'note/{name}')}")
            print(f"    from: {', '.join(backlinks(graph, name)) or 'nowhere'}")


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1] if len(sys.argv) > 1 else "memory:"))
