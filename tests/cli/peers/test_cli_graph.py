"""`dtp graph` as people run it: files, peers over loopback, JSON."""

import asyncio
import json
import shutil
import sqlite3
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from xml.etree import ElementTree

import pytest
from click.testing import CliRunner

import dtp as dtp_package
from dtp.cli import main
from dtp.cli.graph.handing import taking_changes
from dtp.config import identity_path
from dtp.crdt import Clock
from dtp.graph import Graph
from dtp.graph.stores.sqlite_store import SqliteStore
from dtp.identity import Identity
from dtp.identity.card import account_name


def run(*arguments, code=0):
    result = CliRunner().invoke(main, ["graph", *map(str, arguments)])
    assert result.exit_code == code, result.output
    return result.output


@pytest.fixture
def me(home):
    assert CliRunner().invoke(main, ["keygen"]).exit_code == 0


def test_looking_and_changing(me, tmp_path):
    file = tmp_path / "notes.db"
    run("put", file, "user/alice", "name", "Alice")
    run("put", file, "user/alice", "age", "33")
    run("put", file, "user/alice", "home", '{"link": "place/1"}')
    run("put", file, "place/1", "tags", '["a", null]')
    assert run("get", file, "user/alice") == 'age: 33\nhome: {"link": "place/1"}\nname: Alice\n'
    assert run("get", file, "user/alice", "name") == "Alice\n"
    assert json.loads(run("get", file, "user/alice", "age", "--json")) == {"value": 33}
    assert run("ls", file) == "place/1\nuser/alice\n"
    assert run("ls", file, "user/") == "user/alice\n"
    run("link", file, "user/alice", "follows", "user/bob")
    run("link", file, "user/alice", "follows", "user/carol")
    run("link", file, "user/alice", "follows", "user/bob", "--remove")
    assert run("link", file, "user/alice", "follows") == "user/carol\n"
    asked = run(
        "query",
        file,
        "MATCH (u:user {name: $n})-[:follows]->(f) RETURN u, f, u.age",
        "-p",
        "n=Alice",
        "--json",
    )
    assert json.loads(asked) == {"u": "user/alice", "f": "user/carol", "u.age": 33}
    assert run("query", file, "MATCH (u:user) RETURN u.name ORDER BY u.name") == "u.name\nAlice\nnull\n"
    assert "SEARCH" in run("query", file, "MATCH (u:user) RETURN u", "--explain")
    assert "not understood at line 1, column 9" in run("query", file, "MATCH u RETURN u", code=3)
    run("put", file, "user/alice", "age", "34")
    run("rm", file, "user/alice", "age")
    assert "has nothing at 'age'" in run("get", file, "user/alice", "age", code=3)
    assert "has nothing" in run("rm", file, "user/alice", "age", code=3)
    assert "has nothing" in run("get", file, "nobody", code=3)
    records = [json.loads(line) for line in run("log", file, "user/alice", "age", "--json").splitlines()]
    assert [(r["value"], r["before"], r["deleted"]) for r in records] == [
        (33, None, False),
        (34, 33, False),
        (None, 34, True),
    ]
    assert "deleted  (was 34)" in run("log", file, "user/alice", "age")
    assert json.loads(run("verify", file, "--json")) == {
        "envelopes": 9,
        "authors": 1,
        "forks": 0,
        "offences": [],
    }


def test_forms_of_answers(me, tmp_path):
    file = tmp_path / "notes.db"
    run("put", file, "user/alice", "name", "Alice, A.")
    run("put", file, "user/alice", "tags", '["a"]')
    run("link", file, "user/alice", "follows", "user/bob")
    run("link", file, "user/bob", "follows", "user/alice")
    asked = "MATCH (u:user) RETURN u.name AS name, u.tags AS tags, u ORDER BY id(u)"
    assert run("query", file, asked, "--format", "csv") == (
        'name,tags,u\n"Alice, A.","[""a""]",user/alice\n,,user/bob\n'
    )
    assert json.loads(run("query", file, asked, "-f", "json")) == [
        {"name": "Alice, A.", "tags": ["a"], "u": "user/alice"},
        {"name": None, "tags": None, "u": "user/bob"},
    ]
    table = run("query", file, asked, "--format", "table")
    assert [
        line.strip("│┃ ").split()[-1] for line in table.splitlines() if "user/" in line or "name" in line
    ] == [
        "u",
        "user/alice",
        "user/bob",
    ]
    assert run("query", file, "MATCH (n:none) RETURN n", "--format", "table") == "no rows\n"
    paths = "MATCH p = (a:user)-[:follows]->(b) RETURN p"
    tree = run("query", file, paths, "--format", "tree")
    assert [line.strip("│├└─ ") for line in tree.splitlines()] == [
        "user/alice  Alice, A.",
        "follows → user/bob",
        "follows → user/alice  Alice, A. …",
    ]
    picture = ElementTree.fromstring(run("query", file, paths, "--format", "svg"))
    assert [one.text for one in picture.iter("{http://www.w3.org/2000/svg}title")] == [
        "user/alice",
        "user/bob",
    ]
    assert "nothing to draw" in run("query", file, "RETURN 1 AS x", "--format", "svg", code=3)
    assert json.loads(run("query", file, paths, "--json").splitlines()[0])["p"]["nodes"][0].startswith(
        "user/"
    )


def test_writing_needs_an_identity_that_is_kept(home, tmp_path):
    assert "dtp keygen" in run("put", tmp_path / "notes.db", "a", "k", "1", code=3)


def test_files(me, tmp_path):
    run("put", tmp_path / "one.db", "a", "k", "1")
    assert run("export", tmp_path / "one.db", tmp_path / "all.dtpg") == "1 envelope\n"
    assert run("import", tmp_path / "two.db", tmp_path / "all.dtpg") == "1 new envelopes\n"
    assert run("import", tmp_path / "two.db", tmp_path / "all.dtpg") == "0 new envelopes\n"
    assert run("get", tmp_path / "two.db", "a") == "k: 1\n"
    (tmp_path / "bad").write_bytes(b"nothing")
    assert "damaged" in run("import", tmp_path / "two.db", tmp_path / "bad", code=3)
    assert "give no name" in run("get", tmp_path / "one.db", "a", "--graph", "other", code=3)


def test_codes(me, tmp_path):
    one, two, lines = tmp_path / "one.db", tmp_path / "two.db", tmp_path / "lines"
    run("put", one, "a", "k", json.dumps([number / 7 for number in range(600)]))
    run("export", one, lines, "--chunks")
    chunks = lines.read_text().splitlines()
    assert len(chunks) > 1
    assert [
        json.loads(line)["chunk"] for line in run("export", one, "--chunks", "--json").splitlines()
    ] == chunks
    assert run("import", two, lines, "--chunks") == "1 new envelopes\n"
    assert run("get", two, "a") == run("get", one, "a")
    lines.write_text("\n".join(chunks[:-1]))
    assert f"missing: {len(chunks)}" in run("import", two, lines, "--chunks", code=4)
    assert "--qr" in run("export", one, code=2)
    pytest.importorskip("segno", reason="pip install 'dtp-sockets[qr]'")
    shown = run("export", one, "--qr")
    assert f"{len(chunks)} of {len(chunks)}" in shown
    assert "\u2588" in shown
    run("export", one, tmp_path / "code", "--qr")
    assert len(list(tmp_path.glob("code-*.svg"))) == len(chunks)


@pytest.mark.slow
def test_peers(dtp, me, tmp_path):
    run("put", tmp_path / "one.db", "a", "k", "1")
    server = dtp("graph", "serve", tmp_path / "one.db", "--json", "--until-eof")
    address = server.event("listening")["address"]
    syncing = dtp("graph", "sync", tmp_path / "two.db", address, "--json")
    assert json.loads(syncing.wait())["received"] == 1
    assert (
        json.loads(dtp("graph", "sync", tmp_path / "all.db", address, "--json", "--history").wait())[
            "received"
        ]
        == 1
    )
    watching = dtp("graph", "watch", tmp_path / "two.db", address, "a*", "--json", "--prune")
    watching.event("watching")
    other = tmp_path / "other.pem"  # a machine of its own writes as an identity of its own
    Identity.generate().save(other)
    run("put", tmp_path / "three.db", "another", "k", "2", "--identity", other)
    run("put", tmp_path / "three.db", "elsewhere", "k", "2", "--identity", other)
    syncing = dtp("graph", "sync", tmp_path / "three.db", address, "--identity", other)
    assert syncing.wait().startswith(b"1 envelope received, 2 sent")
    assert watching.event("change")["soul"] == "another"
    plain = dtp("graph", "watch", tmp_path / "four.db", address)
    assert "register" in plain.line()
    server.end_input()
    server.wait()
    watching.wait(code=None)
    plain.wait(code=None)
    assert plain.errors.startswith(b"watching '*' in ")
    assert b"four.db, the same as dtp+tcp://dtp1" in plain.errors


def test_what_can_not_be_taken_leaves_no_graph_behind(me, tmp_path):
    (tmp_path / "junk").write_bytes(b"nothing of the kind" * 9)
    assert "not an exported graph" in run("import", tmp_path / "new.db", tmp_path / "junk", code=3)
    run("put", tmp_path / "one.db", "a", "k", "1")
    run("export", tmp_path / "one.db", tmp_path / "one.dtpg")
    told = run("import", tmp_path / "new.db", tmp_path / "one.dtpg", "--graph", "another", code=4)
    assert "of a graph of another name" in told
    assert not (tmp_path / "new.db").exists()
    assert run("import", tmp_path / "new.db", tmp_path / "one.dtpg") == "1 new envelopes\n"
    run("import", tmp_path / "new.db", tmp_path / "junk", code=3)
    assert run("ls", tmp_path / "new.db") == "a\n"


def test_a_private_node_is_sealed_and_nothing_is_put_there_in_clear(me, home, tmp_path):
    file = tmp_path / "notes.db"
    identity = Identity.load(home / "identity.pem")

    async def make():
        async with await dtp_package.Graph.open(str(file), identity=identity) as graph:
            return graph.private("diary", readers=[]).soul

    soul = asyncio.run(make())
    run("put", file, soul, "monday", "rain")
    assert run("get", file, soul) == "monday: rain\n"
    assert not any(b"rain" in each.read_bytes() for each in tmp_path.glob("notes.db*"))
    run("rm", file, soul, "monday")
    assert "has nothing" in run("get", file, soul, "monday", code=3)
    assert "could be read by all" in run("link", file, soul, "about", "rain", code=3)


def test_who_signed_two_histories_is_told(me, tmp_path):
    """A copy of a file that is written on, both of it: the same machine twice."""
    one, copy, third = tmp_path / "one.db", tmp_path / "copy.db", tmp_path / "third.db"
    run("put", one, "a", "k", "1")
    shutil.copy(one, copy)
    run("put", one, "a", "k", "2")
    run("recover", copy)
    run("put", copy, "a", "k", "3")
    for file in (one, copy):
        run("export", file, tmp_path / f"{file.name}.dtpg")
    run("import", third, tmp_path / "one.db.dtpg")
    run("import", third, tmp_path / "copy.db.dtpg", code=4)
    assert "forks      1\n" in run("verify", third)
    assert " signed what can't both be true: frame 2 and frame 2" in run("verify", third)
    assert "Go on with another identity" in run("put", third, "a", "k", "4", code=3)  # others won't take it
    assert "k: 4" in run("get", third, "a")
    assert "0 ops signed again" in run("recover", third, one)


def test_granting(me, tmp_path):
    file, friend = tmp_path / "notes.db", str(Identity.generate().id)
    run("put", file, "a", "k", "1")
    assert run("grant", file) == ""
    made = run("grant", file, friend, "board")
    assert friend in made
    assert "/board  for good" in made
    run("grant", file, friend, "board", "--days", "2")
    listed = [json.loads(line) for line in run("grant", file, "--json").splitlines()]
    assert len(listed) == 2
    assert sum(one["until"] is None for one in listed) == 1
    assert {one["peer"] for one in listed} == {friend}
    assert len(run("grant", file, friend, "board", "--revoke").splitlines()) == 2
    assert run("grant", file) == ""
    assert "nothing at" in run("grant", file, friend, "board", "--revoke", code=3)
    assert "not an identity" in run("grant", file, "nobody", code=3)
    account = account_name(bytes(range(32)))
    assert account in run("grant", file, account, "board")
    assert account in run("grant", file, account, "board", "--revoke")
    assert "not an account" in run("grant", file, account[:-1], code=3)
    (handed,) = [json.loads(line)["grant"] for line in run("grant", file, friend, "--json").splitlines()]
    assert "not for this identity" in run("grant", file, "--use", handed, code=3)
    assert "no grant" in run("grant", file, "--use", "no grant", code=3)
    assert "says itself" in run("grant", file, friend, "--use", handed, code=2)


def test_verifying_tells_of_offences(me, tmp_path):
    from dtp.core.crdt import GraphCore
    from dtp.crdt import values
    from dtp.graph import Graph, Rule, Rules
    from dtp.graph.frames import envelope as envelopes

    file, cheat = tmp_path / "polls.db", Identity.generate()
    rules = Rules("vote", [Rule(path="*", key="{author}", once="soul")])
    core = GraphCore(cheat.id.key)
    vote = rules.soul("lunch"), str(cheat.id)
    with core.trust_own():
        core.put_registers(
            values.encode_rows([(rules.root, "rules", rules.document), (*vote, 1), (*vote, 2)]), 1 << 16
        )
    made = envelopes.sign_frame(cheat, "", 1, envelopes.NONE_BEFORE, core.commit()[0]).encode()  # type: ignore[index]

    async def take():
        async with await Graph.open(str(file), identity=Identity.generate()) as graph:
            assert await graph.receive([made]) == 1

    asyncio.run(take())
    shown = run("verify", file)
    assert f"{cheat.id}, envelope 1: a second one, where one may be (vote)" in shown
    (offence,) = json.loads(run("verify", file, "--json"))["offences"]
    assert offence["valid"]
    assert offence["author"] == str(cheat.id)


@pytest.mark.parametrize(
    "command",
    [
        ("get", "a"),
        ("ls",),
        ("log", "a"),
        ("query", "MATCH (n) RETURN n"),
        ("verify",),
        ("grant",),
        ("export",),
    ],
)
def test_looking_into_a_file_that_is_not_there_makes_none(me, tmp_path, command):
    file, (name, *rest) = tmp_path / "missing.db", command
    target = [tmp_path / "out"] if name == "export" else []
    assert "there is no graph" in run(name, file, *rest, *target, code=3)
    assert list(tmp_path.glob("missing*")) == []
    assert list(tmp_path.glob("out*")) == []


def test_deleting_and_pruning(me, tmp_path):
    file = tmp_path / "notes.db"
    run("put", file, "gone/1", "k", "1")
    run("rm", file, "gone/1")
    assert run("rm", file, "gone/1", code=3).endswith("'gone/1' has nothing\n")
    assert "gone" not in run("ls", file, "--all")
    for number in range(12):
        run("put", file, "gone/1", "k", str(number) * 400)
    run("rm", file, "gone/1")
    left = json.loads(run("status", file, "--json"))
    pruned = json.loads(run("prune", file, "--json"))
    assert pruned["frames"] >= 12
    assert pruned["bytes"] > left["prunable"] - 1000
    assert run("prune", file) == "dropped 0 frames, 0 bytes\n"
    told = run(
        "watch", file, f"dtp+tcp://{Identity.generate().id}@127.0.0.1:9/graph", "--history", "--prune", code=3
    )
    assert "keeps its history" in told


def test_status_tells_of_two_histories(me, tmp_path):
    """A copy of a file writes, and so does the file; whoever has got both says so, and ends with 3."""
    file, copy, other = (tmp_path / name for name in ("notes.db", "copy.db", "other.db"))
    run("put", file, "page", "k", "0", "--graph", "g")
    shutil.copy(file, copy)
    run("put", file, "page", "k", "1")
    found = json.loads(run("status", file, "--json"))
    assert 300 < found.pop("bytes") < 600
    assert 0 < found.pop("prunable") < 400
    assert found == {
        "name": "g",
        "authors": 1,
        "frames": 2,
        "missing": 0,
        "forks": 0,
        "clock_ahead": 0,
        "waiting": 0,
        "due": None,
        "ahead": [],
        "banned": 0,
        "refused": 0,
        "refusals": {"reasons": [], "authors": []},
        "damage": None,
    }
    assert "it is a copy of" in run("put", copy, "page", "k", "2", code=3)
    assert "it is a copy of" in run("status", copy, code=3)
    assert "goes on for" in run("recover", copy)
    assert "nothing to recover" in run("recover", copy)
    run("put", copy, "page", "k", "2")
    for one, target in ((file, "file.graph"), (copy, "copy.graph")):
        run("export", one, tmp_path / target)
    run("import", other, tmp_path / "file.graph", "--graph", "g")
    run("import", other, tmp_path / "copy.graph", code=4)
    told = run("status", other, code=3)
    assert "forks        1" in told
    assert "signed what can't both be true: frame 2 and frame 2" in told
    assert "Go on with another identity" in told


def test_what_is_dated_ahead_is_told(me, tmp_path):
    """What somebody wrote whose clock is a year ahead is taken in, and shown when it is due."""
    file, source = tmp_path / "notes.db", tmp_path / "ahead.graph"
    year = time.time() + 366 * 86_400

    async def write_ahead():
        theirs = Identity.generate()
        place = str(tmp_path / "ahead.db")
        async with await dtp_package.Graph.open(
            place, identity=theirs, name="g", clock=Clock(lambda: year)
        ) as graph:
            for number in range(3):
                graph.node("page")[f"k{number}"] = 1
                await graph.commit()
            await graph.files.export(source)
        return str(theirs.id)

    author = asyncio.run(write_ahead())
    run("put", file, "page", "mine", "1", "--graph", "g")
    told = run("import", file, source)
    assert told.startswith("3 new envelopes\n3 frames are dated ahead")
    assert run("get", file, "page") == "mine: 1\n"
    shown = run("status", file)
    when = time.strftime("%Y-%m-%d", time.gmtime(year))
    assert f"3 frames are dated ahead of this machine's clock, by {author}" in shown
    assert f"the first at {when}" in shown
    found = json.loads(run("status", file, "--json"))
    assert (found["waiting"], found["ahead"]) == (3, [author])
    assert found["due"] == pytest.approx(year - 60, abs=1)


def test_a_damaged_file_is_mended_and_says_so(me, tmp_path):
    file, whole, export = tmp_path / "notes.db", tmp_path / "whole.db", tmp_path / "whole.graph"
    for number in range(5):
        run("put", file, "page", f"k{number}", "some text " * 9)
    shutil.copy(file, whole)
    run("export", file, export)
    with closing(sqlite3.connect(file)) as database:
        database.execute("UPDATE frames SET sum = sum + 1 WHERE sequence = 3")
        database.commit()
    assert "1 frame couldn't be read any more" in run("verify", file, code=3)
    assert "damaged" in run("status", file, code=3)
    assert "damaged" in run("put", file, "page", "k5", "more", code=3)
    run("import", file, export)
    assert "envelopes  5\n" in run("verify", file)
    run("put", file, "page", "k5", "more")
    assert "envelopes  6\n" in run("verify", file)


def test_a_row_that_is_gone_is_found_and_repaired(me, tmp_path):
    file = tmp_path / "notes.db"
    for number in range(3):
        run("put", file, "page", f"k{number}", "1")
    with closing(sqlite3.connect(file)) as database:
        database.execute("DELETE FROM frames WHERE sequence = 2")
        database.commit()
    assert "is missing" in run("verify", file, code=3)
    assert "lacks frames from the middle" in run("verify", file, "--repair", code=3)


def test_a_query_that_takes_too_long_is_ended(me, tmp_path):
    file = tmp_path / "notes.db"
    run("put", file, "n/1", "k", "1")
    endless = (
        "UNWIND range(1, 4000) AS a UNWIND range(1, 4000) AS b UNWIND range(1, 4000) AS c RETURN count(*)"
    )
    assert "longer than 0.05 s" in run("query", file, endless, "--seconds", "0.05", code=3)
    assert run("query", file, "MATCH (n) RETURN count(*) AS n", "--seconds", "0") == "n\n1\n"


def test_what_is_no_register_is_shown_with_its_kind(me, tmp_path):
    file = tmp_path / "notes.db"

    async def fill():
        mine = Identity.load(str(identity_path()))
        async with await dtp_package.Graph.open(str(file), identity=mine) as graph:
            graph.node("user/alice")["name"] = "Alice"
            graph.node("user/alice").link("follows", "user/bob")
            graph.list("user/alice", "todo").extend(["milk", {"a": 1}])
            graph.set("user/alice", "name").add("Al")
            graph.counter("user/alice", "visits").add(3)
            graph.multi_value("user/alice", "title").set("Dr")
            graph.text("note/1").insert(0, "a note")
            graph.private("diary", readers=[])["monday"] = "rain"

    asyncio.run(fill())
    assert run("get", file, "user/alice").splitlines() == [
        'follows (set): [{"link": "user/bob"}]',
        "name: Alice",
        'name (set): ["Al"]',
        'title (values): ["Dr"]',
        'todo (list): ["milk", {"a": 1}]',
        "visits (counter): 3",
    ]
    assert json.loads(run("get", file, "user/alice", "--json")) == {
        "follows": {"set": [{"link": "user/bob"}]},
        "name": {"register": "Alice", "set": ["Al"]},
        "title": {"values": ["Dr"]},
        "todo": {"list": ["milk", {"a": 1}]},
        "visits": {"counter": 3},
    }
    assert run("get", file, "user/alice", "todo") == '["milk", {"a": 1}]\n'
    assert run("get", file, "note/1") == "(text): a note\n"
    assert run("get", file, "note/1", "") == "a note\n"
    diary = next(
        soul for soul in run("ls", file).splitlines() if soul.endswith("/diary") and ".rings" not in soul
    )
    assert run("get", file, diary) == "monday: rain\n"


def test_looking_beside_the_program_that_has_the_file(me, tmp_path):
    file = tmp_path / "notes.db"
    run("put", file, "page/1", "title", "Draft")
    run("link", file, "page/1", "next", "page/2")
    with closing(SqliteStore(file)):
        assert run("get", file, "page/1", "title") == "Draft\n"
        assert run("ls", file) == "page/1\n"
        assert "Draft" in run("log", file, "page/1")
        assert run("link", file, "page/1", "next") == "page/2\n"
        assert run("query", file, "MATCH (n:page) WHERE n.title <> '' RETURN n.title AS t") == "t\nDraft\n"
        assert "frames       2" in run("status", file)
        assert run("grant", file) == ""
        assert "2 envelopes" in run("export", file, tmp_path / "notes.dtpg")
        refused = run("put", file, "page/1", "title", "Final", code=3)
        assert f"another program has {file}, and takes no changes from commands" in refused
        refused = run("quota", file, "stranger_bytes=9", code=3)
        assert f"another program has {file}, such as 'dtp graph share'" in refused
        assert "end it and do this again" in refused
    assert sorted(one.name for one in tmp_path.glob("notes*")) == ["notes.db", "notes.dtpg"]


@contextmanager
def opened_elsewhere(file):
    """Have a graph's file open in another thread, which takes changes as 'dtp graph share' does, within the block."""
    loop, ready = asyncio.new_event_loop(), threading.Event()
    stop = asyncio.Event()

    async def take():
        identity = Identity.load(identity_path())
        async with await Graph.open(str(file), identity=identity) as graph, taking_changes(graph, str(file)):
            ready.set()
            await stop.wait()

    with ThreadPoolExecutor(1) as pool:
        done = pool.submit(loop.run_until_complete, take())
        assert ready.wait(60)
        try:
            yield
        finally:
            loop.call_soon_threadsafe(stop.set)
            done.result(60)
            loop.close()


@pytest.mark.slow
def test_imports_are_handed_to_the_program_that_has_the_file(me, tmp_path, monkeypatch):
    file, other, key = tmp_path / "notes.db", tmp_path / "other" / "notes.db", tmp_path / "other.pem"
    other.parent.mkdir()
    Identity.generate().save(key)
    run("put", file, "page/1", "title", "Draft")
    run("put", file, "page/1", "title", "Final")
    run("put", other, "page/2", "title", "Tea", "-i", key)
    for name in ("more.csv", "more.dtpg"):
        run("export", other, tmp_path / name)
    run("export", other, tmp_path / "more.txt", "--chunks")
    monkeypatch.chdir(tmp_path)
    with opened_elsewhere(file):
        assert run("import", file, "more.dtpg", "-i", key) == "1 new envelopes\n"
        assert run("import", file, "more.txt", "--chunks", "-i", key) == "0 new envelopes\n"
        assert run("import", file, "more.csv") == "1 value read, 0 changed\n"
        assert "could not be read" in run("import", file, "none", "--chunks", code=4)
        assert "give the same identity" in run("import", file, "more.csv", "-i", key, code=4)
        assert run("prune", file) == "dropped 0 frames, 0 bytes\n"
        assert run("get", file, "page/2", "title") == "Tea\n"


def test_other_formats(me, tmp_path):
    file, other = tmp_path / "notes.db", tmp_path / "other.db"
    run("put", file, "user/alice", "name", "Alice")
    run("put", file, "user/alice", "age", "33")
    run("link", file, "user/alice", "follows", "user/bob")
    for ending in ("json", "csv", "graphml"):
        target = tmp_path / f"notes.{ending}"
        assert run("export", file, target) == "3 values written\n"
        assert json.loads(run("export", file, target, "--prefix", "user/alice", "--json")) == {
            "values": 3,
            "left": [],
        }
        assert run("import", other, target).startswith("3 values read, ")
    assert run("get", other, "user/alice") == run("get", file, "user/alice")
    assert run("import", other, tmp_path / "notes.csv") == "3 values read, 0 changed\n"
    run("export", file, tmp_path / "plain", "--format", "json")
    assert "user/alice" in json.loads((tmp_path / "plain").read_text())["nodes"]
    assert run("export", file, tmp_path / "frames.json", "--format", "dtpg") == "3 envelopes\n"
    assert "the first row is" in run("import", other, tmp_path / "plain", "--format", "csv", code=3)
    (tmp_path / "cut.json").write_text((tmp_path / "plain").read_text()[:-9])
    assert "not JSON" in run("import", tmp_path / "new.db", tmp_path / "cut.json", code=3)
    assert not (tmp_path / "new.db").exists()
    run("export", file, "--qr", "--format", "json", code=2)
    run("export", file, tmp_path / "x.dtpg", "--prefix", "user", code=2)


def test_the_log_tells_of_all_types(me, tmp_path):
    file = tmp_path / "notes.db"

    async def fill():
        mine = Identity.load(str(identity_path()))
        async with await dtp_package.Graph.open(str(file), identity=mine) as graph:
            for change in (
                lambda: graph.text("p", "body").insert(0, "hello"),
                lambda: graph.text("p", "body").edit([(1, 3, "ipp")]),
                lambda: graph.counter("p", "n").add(2),
                lambda: graph.counter("p", "n").add(3),
                lambda: graph.set("p", "tags").add("x"),
                lambda: graph.set("p", "tags").discard("x"),
                lambda: graph.multi_value("p", "mood").set("fine"),
                lambda: graph.multi_value("p", "mood").set("well"),
                lambda: graph.text("p", "body").mark(0, 2, "link", "u\x1b"),
                lambda: graph.text("p", "body").unmark(0, 1, "link"),
                lambda: graph.list("p", "todo").extend(["a", 2]),
                lambda: graph.list("p", "todo").move(1, 0),
            ):
                change()
                await graph.commit()

    asyncio.run(fill())
    told = [line.split("  ", 2)[2] for line in run("log", file, "p").splitlines()]
    assert told == [
        'text_edit  body  at 0: "hello"',
        'text_edit  body  at 1: 3 characters deleted, "ipp"',
        "counter_total  n  2",
        "counter_total  n  5  (was 2)",
        "set_add  tags  x",
        'set_remove  tags    (was ["x"])',
        "values_put  mood  fine",
        'values_put  mood  well  (was ["fine"])',
        'text_edit  body  0 to 2: "link" "u\\u001b"',
        'text_edit  body  0 to 1: "link" gone',
        'list_edit  todo  at 0: ["a", 2]',
        "list_edit  todo  at 1: 1 element deleted; at 0: [2]",
    ]
    edits = [json.loads(line)["edits"] for line in run("log", file, "p", "body", "--json").splitlines()]
    assert edits[1] == [{"at": 1, "deleted": 3, "inserted": "ipp"}]
    marks = [json.loads(line) for line in run("log", file, "p", "body", "--json").splitlines()][2:]
    assert [one["formats"] for one in marks] == [
        [{"at": 0, "length": 2, "attributes": {"link": "u\x1b"}}],
        [{"at": 0, "length": 1, "attributes": {"link": None}}],
    ]
