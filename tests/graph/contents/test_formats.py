"""What a graph holds as JSON, CSV, GraphML and RDF: the same comes back, and what is wrong with a file is told."""

from __future__ import annotations

import asyncio
import datetime as python
import itertools
import json
import math
import re
from collections.abc import Coroutine
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from graph_fixtures import ALICE, BOB
from hypothesis import given
from hypothesis import strategies as st

from dtp.crdt import BlobRef, Duration, Link, LocalTime, values
from dtp.graph import ContentsError, Graph, GraphError, GraphReadOnly, NotSealed, StoreError
from dtp.graph.formats import as_csv, as_graphml, as_json, as_rdf, files
from dtp.graph.formats import contents as contents_formats
from dtp.graph.formats.items import FoundItems, Item
from dtp.graph.stores import sqlite_format
from dtp.testing.strategies import graph_values

TWO_HOURS = python.timezone(python.timedelta(hours=2))
FORMATS = ["json", "csv", "graphml", "rdf"]
MODULES: dict[str, Any] = {"json": as_json, "csv": as_csv, "graphml": as_graphml, "rdf": as_rdf}


@pytest.fixture(autouse=True)
def rdflib(request: pytest.FixtureRequest) -> None:
    callspec = getattr(request.node, "callspec", None)
    if "rdf" in request.node.name or (callspec is not None and "rdf" in callspec.params.values()):
        pytest.importorskip("rdflib")


def run(main: Coroutine[Any, Any, None]) -> None:
    asyncio.run(main)


async def memory(who: Any = ALICE, name: str = "") -> Graph:
    return await Graph.open("memory:", identity=who, name=name)


async def fill(graph: Graph) -> None:
    alice = graph.node("user/alice")
    alice.update({"name": "Alice", "age": 33, "height": 1.7, "admin": True, "none": None, "": "no key"})
    alice["best"] = Link("user/bob")
    alice["photo"] = BlobRef(b"\x07" * 32, 1 << 40)
    alice["key"] = b"\x00\xff"
    alice["nested"] = {"a": [1, {"$link": "no link"}], "inf": math.inf, "$": -0.0}
    alice["large"] = 10**5_000
    alice.link("follows", "user/bob")
    alice.link("follows", "user/carol & <co>", since=2020, label="friend", at=python.date(2020, 5, 1))
    alice.relationship("follows", "user/bob").update(
        {"w": 0.5, "x\x01": ["a", {"b": None}], "http://x.org/y": "z"}
    )
    alice.relationship("best", "user/bob")["since"] = 10**30
    graph.counter("user/alice", "seen").add(-7)
    graph.set("user/alice", "tags").add("x")
    graph.set("user/alice", "tags").add(1)
    graph.multi_value("user/alice", "mood").set("fine")
    graph.list("user/alice", "todo").extend(["milk", 2, Link("a/1"), ["in", "a list"]])
    graph.text("user/alice", "bio").insert(0, 'Line one\r\nline "two"\t\x07 \u2028 ]]> é 🙂')
    graph.text("note").insert(0, "of a soul's own")
    graph.node("odd\n\x01soul")["k\r"] = 1
    graph.node("odd\n\x01soul").link("k\x02", "odd\n\x01soul")
    graph.node("user/alice2")["name"] = "not Alice"
    await graph.commit()


def contents(graph: Graph) -> dict[str, Any]:
    """All that is there, comparable: values are told apart as graphs do."""
    found: dict[str, Any] = {}
    for soul in graph.souls():
        for key, kinds in graph.everything(soul).items():
            for kind, value in kinds.items():
                if kind in ("register", "values", "list"):
                    found[f"{soul} {key} {kind}"] = values.encode(value)
                elif kind == "set":
                    found[f"{soul} {key} {kind}"] = sorted(values.encode(one) for one in value)
                elif value not in ("", 0):
                    found[f"{soul} {key} {kind}"] = value
    return found


@pytest.mark.parametrize("format", FORMATS)
def test_everything_comes_back(tmp_path: Path, format: str) -> None:
    file = tmp_path / "contents"

    async def main() -> None:
        async with await memory() as one, await memory(BOB) as other:
            await fill(one)
            done = await one.files.export_contents(file, format=format)
            assert done.left == []
            taken = await other.files.import_contents(file, format=format)
            assert (taken.items, taken.changed, taken.left) == (done.items, done.items, [])
            assert contents(other) == contents(one)
            before = other.frames.heads()
            assert (await other.files.import_contents(file, format=format)).changed == 0
            assert other.frames.heads() == before
            some = await one.files.export_contents(file, format=format, prefix="note")
            assert some.items == 1

    run(main())


items = st.lists(
    st.one_of(
        st.builds(
            Item, st.text(min_size=1, max_size=8), st.text(max_size=5), st.just("register"), graph_values()
        ),
        st.builds(
            Item,
            st.sampled_from(["a", "http://x.org/1", "urn:dtp:soul:a", "a b", "%41"]),
            st.sampled_from(["k", "http://x.org/k", "urn:dtp:set:k"]),
            st.sampled_from(["set", "list"]),
            st.lists(graph_values(), min_size=1, max_size=4),
        ),
        st.builds(
            Item, st.text(min_size=1, max_size=8), st.text(max_size=5), st.just("text"), st.text(min_size=1)
        ),
        st.builds(
            Item, st.text(min_size=1, max_size=8), st.just("n"), st.just("counter"), st.integers(1, 2**63 - 1)
        ),
    ),
    unique_by=lambda one: one[:3],
    max_size=8,
)


def comparable(found: list[Item]) -> list[tuple[Any, ...]]:
    return sorted(
        (
            *one[:3],
            sorted({values.encode(v) for v in one.value}) if one.kind == "set" else values.encode(one.value),
        )
        for one in found
    )


@pytest.mark.parametrize("format", FORMATS)
@given(found=items)
def test_what_is_written_is_read(format: str, found: list[Item]) -> None:
    distinct = [
        one._replace(value=list({values.encode(v): v for v in one.value}.values()))
        if one.kind == "set"
        else one
        for one in found
    ]
    written = MODULES[format].write("a graph", FoundItems(distinct, []))
    read = MODULES[format].read(written.encode() if format == "graphml" else written)
    assert read.left == []
    assert comparable(read.items) == comparable(distinct)


@pytest.mark.parametrize("format", FORMATS)
@given(data=st.data())
def test_a_file_that_is_cut_or_changed_is_read_or_refused_by_name(format: str, data: st.DataObject) -> None:
    whole = MODULES[format].write("g", FoundItems([
        Item("user/a", "name", "register", "A"), Item("user/a", "age", "register", 33),
        Item("user/a", "knows", "set", [Link("user/b")]), Item("user/a", "todo", "list", [1, "x"]),
        Item("user/a", "bio", "text", "hello"), Item("user/a", "seen", "counter", 3),
    ], [])).encode()  # fmt: skip
    at = data.draw(st.integers(0, len(whole) - 1))
    if data.draw(st.booleans()):
        broken = whole[:at]
        # where each line stands for itself, a file that ends with one may be whole
        is_cut = format in ("json", "graphml") or not whole[:at].endswith(b"\n")
    else:
        broken = whole[:at] + data.draw(st.binary(max_size=3)) + whole[at + 1 :]
        is_cut = False
    try:
        text = broken if format == "graphml" else broken.decode()
    except UnicodeDecodeError:
        return
    try:
        MODULES[format].read(text)
    except ContentsError:
        return
    assert not is_cut or broken.rstrip() == whole.rstrip() or (format == "rdf" and not broken)


HOSTILE = {
    "json": [
        "", "null", "[]", "{}", '{"format": "other"}', "[" * 100_000,
        '{"format": "dtp-graph-contents", "version": 2, "nodes": {}}',
        '{"format": "dtp-graph-contents", "version": true, "nodes": {}}',
        *('{"format": "dtp-graph-contents", "version": 1, "nodes": ' + nodes + "}" for nodes in [
            "[]", '{"a": []}', '{"a": {"registers": 1}}', '{"a": {"things": {}}}', '{"a": {}, "a": {}}',
            '{"a": {"registers": {"k": NaN}}}', '{"a": {"registers": {"k": 1e999}}}',
            '{"a": {"registers": {"k": %s}}}' % ("9" * 100_000), '{"a": {"registers": {"k": "\\ud800"}}}',
            '{"a": {"registers": {"k": {"$link": 1}}}}', '{"a": {"registers": {"k": {"$no": 1}}}}',
            '{"a": {"registers": {"k": {"$link": "a", "b": 1}}}}', '{"a": {"registers": {"k": {"$bytes": "!"}}}}',
            '{"a": {"registers": {"k": {"$blob": "00", "size": 1}}}}', '{"a": {"registers": {"k": {"$int": "1"}}}}',
            '{"a": {"registers": {"k": {"$float": "1"}}}}', '{"a": {"registers": {"k": {"$map": 1}}}}',
            '{"a": {"registers": {"k": %s}}}' % ("[" * 90 + "]" * 90), '{"a": {"counters": {"k": 1.5}}}',
            '{"a": {"counters": {"k": true}}}', '{"a": {"counters": {"k": 9223372036854775808}}}',
            '{"a": {"texts": {"k": 1}}}', '{"a": {"lists": {"k": "x"}}}', '{"a": {"sets": {"k": {"b": 1}}}}',
            '{"a": {"lists": {"k": [%s]}}}' % ("[" * 40 + "]" * 40), '{"": {"registers": {"k": 1}}}',
            '{"a": {"registers": {"%s": 1}}}' % ("k" * 5_000),
            '{"a": {"registers": {"k": "%s"}}}' % ("x" * 2_000_000),
        ]),
    ],
    "csv": [
        "", "a,b\n", "soul,key,kind,type,value\na,k,register,int,1", "soul,key,kind,type,value\na,k,register,int\n",
        *(f"soul,key,kind,type,value\n{row}\n" for row in [
            "a,k,thing,int,1", "a,k,register,number,1", "a,k,register,int,1.5", "a,k,register,int,0x1",
            "a,k,register,float,1e999", "a,k,register,float,x", "a,k,register,bool,yes", "a,k,register,null,x",
            "a,k,register,json,{", f"a,k,register,int,{'9' * 100_000}", "a,k,counter,text,1", "a,k,text,int,1",
            "a,k,register,int,1\na,k,register,int,2", 'a,k,register,text,"open', ",k,register,int,1",
        ]),
    ],
    "graphml": [
        "", "<a/>", "<graphml/>", "<graphml><graph/><graph/></graphml>", "<graphml><graph><node/></graph></graphml>",
        '<!DOCTYPE x [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;&a;">]><graphml><graph/></graphml>',
        '<!DOCTYPE x SYSTEM "file:///etc/passwd"><graphml><graph/></graphml>',
        "<graphml><graph><node id='a'/><node id='a'/></graph></graphml>",
        "<graphml><graph><node id='a'><graph/></node></graph></graphml>",
        "<graphml><graph><hyperedge/></graph></graphml>",
        "<graphml><graph><node id='a'/><edge source='a' target='b'/></graph></graphml>",
        "<graphml><graph><node id='a'><data key='d'>1</data></node></graph></graphml>",
        "<graphml><key id='d' attr.type='date'/><graph/></graphml>",
        "<graphml><default>1</default><graph/></graphml>",
        "<graphml>" + "<x>" * 100_000,
        *(f"<graphml><key id='d' attr.name='k' attr.type='{type}'/><graph><node id='a'><data key='d'>{text}</data>"
          "</node></graph></graphml>" for type, text in [
            ("int", "x"), ("long", "9" * 100_000), ("double", "1e999"), ("boolean", "maybe")]),
    ],
    "rdf": [
        "<a", "no turtle\n", '<urn:a> <urn:b> "x\n', "_:a <urn:b> 1 .\n", "<urn:a> <urn:b> [ <urn:c> 1 ] .\n",
        "<urn:a> <urn:b> " + "(" * 5_000 + "\n", "<urn:a> <urn:dtp:thing:k> 1 .\n",
        '<urn:a> <urn:dtp:counter:k> "x" .\n', "<urn:a> <urn:dtp:text:k> 1 , 2 .\n", "<urn:a> <urn:b> ( 1 ",
        '<urn:a> <urn:b> "%s"^^<http://www.w3.org/2001/XMLSchema#integer> .\n' % ("9" * 100_000),
        '<urn:a> <urn:b> "1e999"^^<http://www.w3.org/2001/XMLSchema#double> .\n',
        '<urn:a> <urn:b> "perhaps"^^<http://www.w3.org/2001/XMLSchema#boolean> .\n',
        '<urn:a> <urn:b> "{"^^<urn:dtp:json> .\n', "<urn:dtp:soul:%ff> <urn:b> 1 .\n",
    ],
}  # fmt: skip


@pytest.mark.parametrize("format", FORMATS)
def test_hostile_files_change_nothing(tmp_path: Path, format: str) -> None:
    file = tmp_path / "contents"

    async def main() -> None:
        async with await memory() as graph:
            graph.node("a")["before"] = 1
            await graph.commit()
            for text in HOSTILE[format]:
                file.write_text(text)
                with pytest.raises(ContentsError) as told:
                    await graph.files.import_contents(file, format=format)
                assert len(str(told.value)) < 6_000
            assert contents(graph) == {"a before register": values.encode(1)}
            assert graph.frames.vector() == {ALICE.id.key: 1}

    run(main())


def test_what_can_not_be_written_here_changes_nothing(tmp_path: Path) -> None:
    file = tmp_path / "mine.json"

    async def main() -> None:
        async with await memory() as one, await memory(BOB) as other:
            one.node("a")["k"] = 1
            one.list("b", "k").append(2)
            one.node(one.own("page"))["title"] = "Mine"
            await one.files.export_contents(file)
            with pytest.raises(ContentsError, match="can't be written here"):
                await other.files.import_contents(file)
            assert contents(other) == {}
            assert other.frames.vector() == {}
            one.node("a")["k"] = 5
            assert (await one.files.import_contents(file)).changed == 1  # its own
            assert one.node("a")["k"] == 1

    run(main())


def test_private_nodes_and_book_keeping_stay_at_home(tmp_path: Path) -> None:
    file = tmp_path / "mine.json"

    async def main() -> None:
        async with await memory() as graph:
            graph.access.publish_key()
            graph.private("diary", [])["day"] = "secret"
            graph.access.grant(BOB.id, "board")
            graph.node(graph.own("open"))["k"] = 1
            await graph.commit()
            done = await graph.files.export_contents(file)
            assert [str(one) for one in done.left] == [
                f"{graph.own('diary')}: it is private, and a file isn't sealed"
            ]
            assert json.loads(file.read_text())["nodes"] == {graph.own("open"): {"registers": {"k": 1}}}
            sneaky = {graph.own("diary"): {"registers": {"day": "in clear"}}}
            document = {"format": "dtp-graph-contents", "version": 1, "nodes": sneaky}
            file.write_text(json.dumps(document))
            with pytest.raises(NotSealed):
                await graph.files.import_contents(file)
            for soul, key in (
                (graph.own(".rings/diary"), "ring"),
                (graph.own(), "static"),
                (f"%access/{graph.own()[1:]}", "revoke/x"),
                ("%access", "k"),
                (graph.own(".seen"), "k"),
            ):
                document["nodes"] = {soul: {"registers": {key: 1}}}
                file.write_text(json.dumps(document))
                with pytest.raises(ContentsError, match="book-keeping"):
                    await graph.files.import_contents(file)
            assert graph.private("diary")["day"] == "secret"

    run(main())


def test_a_file_says_what_is_at_its_keys_and_all_else_stays(tmp_path: Path) -> None:
    file = tmp_path / "page.json"

    async def main() -> None:
        async with await memory() as graph:
            graph.node("p")["title"] = "Draft"
            graph.counter("p", "n").add(2)
            graph.set("p", "tags").add("old")
            graph.list("p", "todo").extend([1, 2, 3, 4])
            graph.text("p", "body").insert(0, "hello world")
            await graph.files.export_contents(file)
            graph.node("p")["title"] = "Final"
            graph.node("p")["more"] = "stays"
            graph.counter("p", "n").add(5)
            graph.set("p", "tags").discard("old")
            graph.set("p", "tags").add("new")
            graph.list("p", "todo")[1:3] = [9]
            graph.text("p", "body").insert(5, ", brave new")
            taken = await graph.files.import_contents(file)
            assert (taken.items, taken.changed) == (5, 5)
            assert graph.everything("p") == {
                "title": {"register": "Draft"}, "more": {"register": "stays"}, "n": {"counter": 2},
                "tags": {"set": ["old"]}, "todo": {"list": [1, 2, 3, 4]}, "body": {"text": "hello world"},
            }  # fmt: skip

    run(main())


def test_values_written_at_the_same_time_are_told(tmp_path: Path) -> None:
    file = tmp_path / "conflict.csv"

    async def main() -> None:
        async with await memory() as one, await memory(BOB) as other, await memory() as third:
            one.multi_value("p", "k").set("a")
            other.multi_value("p", "k").set("b")
            await one.commit()
            await other.commit()
            await one.receive(await other.frames.read(BOB.id.key, 1, 1))
            await one.files.export_contents(file)
            taken = await third.files.import_contents(file)
            assert len(taken.left) == 1
            assert "the latest was taken" in str(taken.left[0])
            assert third.multi_value("p", "k").values == one.multi_value("p", "k").values[:1]

    run(main())


def test_files_that_can_not_be_read_or_written(tmp_path: Path) -> None:
    async def main() -> None:
        async with await memory() as graph:
            with pytest.raises(GraphError, match="name its format"):
                await graph.files.export_contents(tmp_path / "x.doc")
            with pytest.raises(StoreError):
                await graph.files.export_contents(tmp_path / "no" / "x.json")
            with pytest.raises(StoreError):
                await graph.files.import_contents(tmp_path / "none.json")
            (tmp_path / "latin.csv").write_bytes(b"soul,key,kind,type,value\na,k,register,text,\xe9\n")
            with pytest.raises(ContentsError, match=r"latin\.csv: not UTF-8"):
                await graph.files.import_contents(tmp_path / "latin.csv")
            graph.node("a")["k"] = 1
        async with await Graph.open(str(tmp_path / "g.db"), identity=ALICE) as graph:
            graph.node("a")["k"] = 1
        async with await Graph.open(str(tmp_path / "g.db"), identity=BOB, read_only=True) as beside:
            await beside.files.export_contents(tmp_path / "a.json")
            with pytest.raises(GraphReadOnly):
                await beside.files.import_contents(tmp_path / "a.json")

    run(main())


# ---- other programs -------------------------------------------------------------------------------------------


def test_networkx_reads_what_is_written_and_is_read(tmp_path: Path) -> None:
    networkx = pytest.importorskip("networkx")
    file = tmp_path / "village.graphml"

    async def main() -> None:
        async with await memory() as one, await memory(BOB) as other:
            one.node("user/a").update({"name": "A", "age": 33, "height": 1.5, "here": True})
            one.node("user/a").link("knows", "user/b", since=2020, close=0.5)
            one.node("user/b").link("knows", "user/a")
            await one.files.export_contents(file)
            read = networkx.read_graphml(file)
            assert read.nodes["user/a"] == {"name": "A", "age": 33, "height": 1.5, "here": True}
            assert sorted(read.edges(data="label")) == [
                ("user/a", "user/b", "knows"),
                ("user/b", "user/a", "knows"),
            ]
            assert read.edges["user/a", "user/b"] == {"label": "knows", "since": 2020, "close": 0.5}
            assert one.to_networkx().edges["user/a", "user/b", "knows"] == {"since": 2020, "close": 0.5}
            made = networkx.Graph()
            made.add_node("x", size=2.5, ok=False)
            made.add_edge("x", "y", weight=3)  # undirected: both ways
            networkx.write_graphml(made, file)
            taken = await other.files.import_contents(file)
            assert taken.left == []
            assert other.node("x").to_dict() == {"size": 2.5, "ok": False}
            assert other.node("x").links("link") == ["y"]
            assert other.node("y").links("link") == ["x"]
            for source, target in ("xy", "yx"):
                assert other.node(source).relationship("link", target).to_dict() == {"weight": 3}

    run(main())


def test_defaults_of_graphml_are_taken() -> None:
    document = (
        "<graphml xmlns='http://graphml.graphdrawing.org/xmlns'><key id='d0' for='node' attr.name='color' "
        "attr.type='string'><default>yellow</default></key><graph edgedefault='directed'><node id='n0'/>"
        "<node id='n1'><data key='d0'>green</data></node></graph></graphml>"
    )
    assert as_graphml.read(document.encode()).items == [
        Item("n0", "color", "register", "yellow"), Item("n1", "color", "register", "green")]  # fmt: skip
    ElementTree.fromstring(as_graphml.write("g", as_graphml.read(document.encode())))


def test_rdf_of_others_comes_and_goes(tmp_path: Path) -> None:
    import rdflib

    file, again = tmp_path / "people.ttl", tmp_path / "again.nt"
    file.write_text("""@prefix foaf: <http://xmlns.com/foaf/0.1/> .
@prefix xsd: <http://www.w3.org/2001/XMLSchema#> .
<http://example.org/alice> a foaf:Person ; foaf:name "Alice" ; foaf:nick "Al", "Ali" ; foaf:age 33 ;
  foaf:knows <http://example.org/bob> ; foaf:title "Frau"@de ; foaf:born "1990-01-01"^^xsd:date .
""")

    async def main() -> None:
        async with await memory() as graph:
            assert (await graph.files.import_contents(file)).left == []
            foaf = "http://xmlns.com/foaf/0.1/"
            found = graph.everything("http://example.org/alice")
            assert found[f"{foaf}name"] == {"register": "Alice"}
            assert sorted(found[f"{foaf}nick"]["set"]) == ["Al", "Ali"]
            assert found[f"{foaf}age"] == {"register": 33}
            assert found[f"{foaf}knows"] == {"set": [Link("http://example.org/bob")]}
            assert found[f"{foaf}title"] == {"register": {"@value": "Frau", "@language": "de"}}
            await graph.files.export_contents(again)
        shared = [p for p in rdflib.Graph().parse(file) if str(p[1]) not in (f"{foaf}nick", f"{foaf}title")]
        written = set(rdflib.Graph().parse(again))
        assert len(written) == 8
        assert [one for one in shared if one not in written and "born" not in str(one[1])] == []

    run(main())


def test_statements_of_rdf_are_properties_of_links() -> None:
    found = as_rdf.read("""@prefix rdf: <http://www.w3.org/1999/02/22-rdf-syntax-ns#> .
@prefix x: <http://example.org/> .
x:alice x:knows x:bob, x:carol .
[] a rdf:Statement ; rdf:subject x:alice ; rdf:predicate x:knows ; rdf:object x:bob ; x:since 2020 ; x:by "b", "a" .
x:half a rdf:Statement ; rdf:subject x:alice .
""").items
    at = "http://example.org/"
    of_link = [one for one in found if one.kind == "relationships"]
    assert of_link == [
        Item(f"{at}alice", f"{at}knows", "relationships",
             {f"{at}bob": {f"{at}since": 2020, f"{at}by": ["a", "b"]}})]  # fmt: skip
    assert {one.soul for one in found} == {f"{at}alice", f"{at}half"}  # half of one is a node like any other


def test_the_page_names_the_versions_that_there_are() -> None:
    page = (Path(__file__).parents[3] / "docs" / "formats.md").read_text()
    rows = dict(re.findall(r"^\| ([^|]+) \| (\d+) \|", page, re.MULTILINE))
    assert rows["SQLite file of a graph"] == str(sqlite_format.FORMAT)
    assert (
        rows["tables in PostgreSQL"]
        == re.findall(
            r"^FORMAT: Final = (\d+)",
            Path(sqlite_format.__file__).with_name("postgres_store.py").read_text(),
            re.MULTILINE,
        ).pop()
    )
    assert rows["exported graph (`dtpg`)"] == str(files.MAGIC[-1])
    assert rows["contents in JSON"] == str(as_json.VERSION)
    assert ",".join(as_csv.HEAD) in page
    for name, (endings, *_) in contents_formats.FORMATS.items():
        assert f"`{name}` ({', '.join(f'`{ending}`' for ending in endings)})" in page


@pytest.mark.slow
def test_what_takes_long_goes_on_beside_the_loop_and_is_of_one_time(tmp_path: Path) -> None:
    """Money moves at each turn of the loop; what is exported adds up, and an import comes in as a whole."""

    async def main() -> None:
        async with (
            await Graph.open("memory:", identity=ALICE) as graph,
            await Graph.open("memory:", identity=BOB) as other,
        ):
            graph.put_many((f"account/{n}", "v", 100) for n in range(2_000))
            await graph.commit()
            turns = 0

            async def move(where: Graph) -> None:
                nonlocal turns
                for number in itertools.count():
                    giver, taker = (where.node(f"account/{number * step % 2_000}") for step in (1, 7))
                    giver["v"] = giver.get("v", 0) - 1
                    taker["v"] = taker.get("v", 0) + 1
                    turns += 1
                    await asyncio.sleep(0)

            moving = asyncio.ensure_future(move(graph))
            exported = await graph.files.export_contents(tmp_path / "all.json")
            assert exported.items == 2_000
            assert turns > 20
            moving.cancel()
            found = as_json.read((tmp_path / "all.json").read_text())
            assert sum(one.value for one in found.items) == 200_000

            turns = 0
            moving = asyncio.ensure_future(move(other))
            imported = await other.files.import_contents(tmp_path / "all.json")
            moving.cancel()
            assert imported.items == 2_000
            assert turns > 20
            assert sum(one["v"] for one in map(other.node, other.souls("account/"))) == 200_000

    asyncio.run(main())


def test_dates_of_rdf_are_dates(tmp_path: Path) -> None:
    """Types of XML Schema, where it has a form; what graphs can't have as a date stays as it was."""
    import rdflib

    xsd = "http://www.w3.org/2001/XMLSchema#"
    literals = {
        "date": ('"1990-01-01"', "date", python.date(1990, 1, 1)),
        "time": ('"12:30:00"', "time", python.time(12, 30)),
        "there": ('"12:30:00.5+02:00"', "time", python.time(12, 30, 0, 500_000, TWO_HOURS)),
        "local": ('"1990-01-01T12:30:00"', "dateTime", python.datetime(1990, 1, 1, 12, 30)),
        "moment": (
            '"1990-01-01T12:30:00Z"',
            "dateTime",
            python.datetime(1990, 1, 1, 12, 30, tzinfo=python.UTC),
        ),
        "long": ('"P1Y2M3DT4H"', "duration", Duration(14, 3, 4 * 3600 * 10**9)),
        "zoned": ('"1990-01-01Z"', "date", {"@value": "1990-01-01Z", "@type": f"{xsd}date"}),
        "never": ('"1990-02-30"', "date", {"@value": "1990-02-30", "@type": f"{xsd}date"}),
    }
    lines = [f"<a:b> <a:{key}> {text}^^<{xsd}{type}> ." for key, (text, type, _) in literals.items()]
    file, again = tmp_path / "a.nt", tmp_path / "again.nt"
    file.write_text("\n".join(lines) + "\n")

    async def main() -> None:
        async with await memory() as graph:
            await graph.files.import_contents(file)
            for key, (_, _, value) in literals.items():
                assert graph.node("a:b")[f"a:{key}"] == value
            await graph.files.export_contents(again)
            written = again.read_text()
            kept = [
                line for line, one in zip(lines, literals.values(), strict=True) if type(one[2]) is not dict
            ]
            assert [line for line in kept if line not in written] == []
            graph.node("a:b")["a:fake"] = {
                "@value": "1990-01-01",
                "@type": f"{xsd}date",
            }  # a map, and stays one
            graph.node("a:b")["a:small"] = LocalTime(1)
            graph.node("a:b")["a:back"] = Duration(-1, 1)
            await graph.files.export_contents(again)
            async with await memory() as other:
                await other.files.import_contents(again)
                assert other.everything("a:b") == graph.everything("a:b")

    run(main())
    assert len(rdflib.Graph().parse(again)) >= len(literals)
