"""A graph out to other programs and in again: JSON for everything, CSV from a spreadsheet, GraphML for drawing.

python examples/graph_exchange.py
"""

import asyncio
import tempfile
from pathlib import Path

import dtp

SHEET = """\
soul,key,kind,type,value
user/carol,name,register,text,Carol
user/carol,age,register,int,41
user/carol,follows,set,link,user/alice
"""


async def main(folder: Path) -> None:
    me = dtp.Identity.generate()
    async with await dtp.Graph.open("memory:", identity=me) as graph:
        graph.node("user/alice").update({"name": "Alice", "age": 33})
        graph.node("user/alice").link("follows", "user/bob")
        graph.list("user/alice", "todo").extend(["milk", "bread"])
        done = await graph.files.import_contents(folder / "people.csv")
        print(f"{done.items} values in the sheet, {done.changed} were new")
        for name in ("people.json", "people.graphml", "people.nt"):
            await graph.files.export_contents(folder / name, prefix="user/")

    async with await dtp.Graph.open("memory:", identity=dtp.Identity.generate()) as other:
        await other.files.import_contents(folder / "people.json")
        for row in other.query("MATCH (u:user)-[:follows]->(f) RETURN u.name AS who, f AS whom ORDER BY who"):
            print(row["who"], "follows", row["whom"].soul)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as made:
        place = Path(made)
        (place / "people.csv").write_text(SHEET)
        asyncio.run(main(place))
        print((place / "people.nt").read_text().splitlines()[0])
