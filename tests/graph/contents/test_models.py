"""Models: what is written and read fits its declaration, what doesn't is named, and versions come to the same."""

from __future__ import annotations

import datetime
import enum
from collections.abc import Mapping
from typing import Literal

import pytest
from graph_fixtures import ALICE, run_with, tell_each_other
from hypothesis import given, settings
from hypothesis import strategies as st

from dtp.core.errors import NotOwner
from dtp.crdt import BlobRef, Counter, GraphValueError, Value
from dtp.crdt.sequences import GraphText
from dtp.graph import Graph, NotSealed, QueryError, Schema
from dtp.graph.models import (
    Entries,
    Items,
    Links,
    Members,
    Model,
    ModelError,
    ModelMismatch,
    Old,
    counter,
    items,
    link,
    links,
    mapping,
    members,
    migration,
    register,
    text,
)


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


class User(Model, kind="user"):
    name: str


class Post(Model, kind="post"):
    title: str
    done: bool = False
    stars: int = register(default=0, schema=Schema(min=0, max=5))
    rank: float | None = None
    state: Literal["open", "shut"] = "open"
    colour: Colour = Colour.RED
    due: datetime.datetime | None = None
    words: list[str] = register(default_factory=list)
    sizes: dict[str, int] = register(default_factory=dict, key="dimensions")
    photo: BlobRef | None = None
    slug: str = register(default="x", check=str.islower)
    body: GraphText = text()
    likes: Counter = counter()
    tags: Members[str] = members(str)
    steps: Items[int] = items(int)
    scores: Entries[int] = mapping(int)
    author: User | None = link(User)
    replies: Links[Post] = links(lambda: Post)


def test_every_field_is_written_and_read() -> None:
    async def main(alice: Graph, bob: Graph) -> None:
        posts = Post.in_(alice)
        due = datetime.datetime(2026, 11, 24, 4, 0, tzinfo=datetime.UTC)
        post = Post(title="hello", stars=3, colour=Colour.BLUE, due=due, words=["a"], sizes={"w": 1})
        assert not post.is_added
        assert (post.title, post.done, post.words) == ("hello", False, ["a"])
        with pytest.raises(ModelError, match="no graph yet"):
            _ = post.body
        assert posts.add(post, "1") is post
        assert (post.soul, post.id) == ("post/1", "1")
        post.body.insert(0, "text")
        post.likes.add(2)
        post.tags |= {"a", "b"}
        post.steps.extend([3, 1, 2])
        post.steps.move(0, 2)
        post.scores["x"] = 5
        post.author = User.in_(alice).add(User(name="Alice"))
        other = posts.add(Post(title="reply"))
        post.replies.add(other)
        post.rank = 1
        post.done = True
        await tell_each_other(alice, bob)
        (found,) = Post.in_(bob).find(title="hello")
        assert found == Post.in_(bob)["1"]
        assert (found.title, found.done, found.stars, found.rank) == ("hello", True, 3, 1.0)
        assert (found.colour, found.due, found.state) == (Colour.BLUE, due, "open")
        assert (found.words, found.sizes, found.photo) == (["a"], {"w": 1}, None)
        assert str(found.body) == "text"
        assert found.likes.value == 2
        assert set(found.tags) == {"a", "b"}
        assert found.tags | {"c"} == {"a", "b", "c"}
        assert list(found.steps) == [1, 2, 3]
        assert dict(found.scores) == {"x": 5}
        assert found.author is not None
        assert found.author.name == "Alice"
        assert [one.title for one in found.replies] == ["reply"]
        assert bob.query("MATCH (p:post)-[:author]->(u) RETURN u.name AS n") == [{"n": "Alice"}]
        assert bob.node("post/1")["dimensions"] == {"w": 1}
        assert found.faults() == []
        assert repr(found).startswith("Post('post/1', title='hello', done=True")
        found.author = None
        assert found.author is None
        del found.scores["x"]
        found.steps[0] = 9
        del found.steps[1]
        assert (list(found.steps), dict(found.scores)) == ([9, 3], {})

    run_with(main)


def test_what_does_not_fit_is_not_written() -> None:
    async def main(alice: Graph, bob: Graph) -> None:
        posts = Post.in_(alice)
        post = posts.add(Post(title="hello"))
        before = alice.everything(post.soul)
        for name, wrong in (
            ("title", 5),
            ("title", None),
            ("done", 1),
            ("stars", True),
            ("stars", 6),
            ("rank", "1"),
            ("rank", 10**400),
            ("state", "ajar"),
            ("colour", "red"),
            ("due", datetime.date(2026, 1, 1)),
            ("words", "abc"),
            ("words", ["a", 1]),
            ("sizes", {1: 1}),
            ("slug", "X"),
        ):
            with pytest.raises(ModelMismatch, match=name) as caught:
                setattr(post, name, wrong)
            assert (caught.value.soul, caught.value.field) == (post.soul, name)
            if name not in ("sizes",):
                with pytest.raises(ModelMismatch, match=name):
                    Post(**{"title": "x", name: wrong})  # type: ignore[arg-type]
        with pytest.raises(TypeError):
            Post()  # type: ignore[call-arg]
        with pytest.raises(GraphValueError):
            post.title = "\ud800"
        for change in (
            lambda: post.tags.add(1),  # type: ignore[arg-type]
            lambda: post.steps.append("x"),  # type: ignore[arg-type]
            lambda: post.steps.__setitem__(slice(0, 0), [1, "x"]),
            lambda: post.scores.__setitem__("a", "x"),
            lambda: post.replies.add(User.in_(alice).add(User(name="x"))),  # type: ignore[arg-type]
        ):
            with pytest.raises(ModelMismatch):
                change()
        with pytest.raises(ModelError, match="can't be set"):
            post.body = "x"
        assert alice.everything(post.soul) == before
        with pytest.raises(ModelError, match="already"):
            posts.add(post)
        with pytest.raises(ModelError, match="already"):
            posts.add(Post(title="x"), post.id)
        with pytest.raises(ModelError, match="is not a Post"):
            posts.add(User(name="x"))  # type: ignore[arg-type]
        with pytest.raises(ModelError, match="no register"):
            posts.find(body="x")

    run_with(main)


def test_what_others_wrote_is_checked_and_nothing_is_lost() -> None:
    async def main(alice: Graph, bob: Graph) -> None:
        post = Post.in_(alice).add(Post(title="hello"), "1")
        post.steps.extend([1, 2])
        await tell_each_other(alice, bob)
        node = bob.node("post/1")
        node.update(title=5, stars=9, colour="green", due="soon", dimensions={"w": "x"}, extra=1)
        del node["state"]
        node.link("author", "user/nobody")
        node.link("author", "place/1")
        node.link("replies", "post/none")
        bob.list("post/1", "steps").insert(1, "x")
        bob.set("post/1", "tags").add(7)
        bob.map("post/1")["scores/a"] = "x"
        bob.map("post/1")["scores/b"] = 1
        bob.node("post/2")["done"] = True
        await tell_each_other(alice, bob)
        for name in ("title", "stars", "colour", "due", "sizes"):
            with pytest.raises(ModelMismatch) as caught:
                getattr(post, name)
            assert (caught.value.soul, caught.value.field) == ("post/1", name)
        assert post.state == "open"  # the default
        assert post.raw["title"] == 5
        assert post.raw["extra"] == 1
        assert list(post.steps) == [1, 2]
        assert len(post.steps) == 3
        with pytest.raises(ModelMismatch):
            _ = post.steps[1]
        assert list(post.steps.raw) == [1, "x", 2]
        assert set(post.tags) == set()
        assert dict(post.scores) == {"b": 1}
        assert post.author is None
        assert list(post.replies) == []
        assert post.replies.souls == ["post/none"]
        wrong = {(one.soul, one.field): one.value for one in Post.in_(alice).faults()}
        assert wrong == {
            ("post/1", "title"): 5,
            ("post/1", "stars"): 9,
            ("post/1", "colour"): "green",
            ("post/1", "due"): "soon",
            ("post/1", "sizes"): {"w": "x"},
            ("post/1", "steps"): "x",
            ("post/1", "tags"): 7,
            ("post/1", "scores"): "x",
            ("post/2", "title"): None,
        }
        assert "title=?" in repr(post)
        post.title = "right again"
        assert post.title == "right again"

    run_with(main)


def test_collections() -> None:
    async def main(alice: Graph, bob: Graph) -> None:
        posts = Post.in_(alice)
        for number in range(5):
            posts.add(Post(title=f"t{number}", stars=number), str(number))
        mine = Post.in_(alice, place=alice.own())
        owned = mine.add(Post(title="mine", stars=5), "a/b")
        assert owned.soul == alice.own("post/a/b")
        assert owned.id == "a/b"
        assert len(posts) == 5
        assert [one.title for one in posts] == [f"t{number}" for number in range(5)]
        assert "3" in posts
        assert "9" not in posts
        assert posts.get("9") is None
        with pytest.raises(KeyError):
            _ = posts["9"]
        assert {one.id for one in posts.where("n.stars >= $least", least=3)} == {"3", "4"}
        assert [one.id for one in mine.where("n.stars >= 3")] == ["a/b"]
        assert [one.id for one in posts.find(stars=2, title="t2")] == ["2"]
        assert len(posts.find()) == 5
        posts.remove(posts["2"])
        assert [one.id for one in posts] == ["0", "1", "3", "4"]
        await tell_each_other(alice, bob)
        with pytest.raises(NotOwner):
            Post.in_(bob, place=alice.own()).add(Post(title="his"))
        for place in ("board", alice.own("x")):
            with pytest.raises(ModelError):
                Post.in_(alice, place=place)
        alice.access.publish_key()
        alice.private("post/secret", readers=[])
        assert [one.id for one in mine] == ["a/b"]
        with pytest.raises(NotSealed):
            Post.at(alice, alice.own("post/secret"))

    run_with(main)


def test_changes_are_typed_and_undo_takes_them_back() -> None:
    async def main(alice: Graph, bob: Graph) -> None:
        posts = Post.in_(alice)
        post = posts.add(Post(title="hello"), "1")
        await alice.commit()
        with posts.changes(name="the list of posts") as changes, alice.undo_manager() as undo:
            with undo.step("rename"):
                post.title = "other"
                post.scores["x"] = 1
                post.body.append("x")
                alice.node("user/1")["name"] = "elsewhere"
            await alice.commit()
            (changed,) = await anext(changes)  # it was made before this asks for it
            assert changed.model == post
            assert changed.fields == {"title", "scores", "body"}
            assert changed.author == ALICE.id.key
            undo.undo()
            assert post.title == "hello"
            assert dict(post.scores) == {}
            await alice.commit()
        assert [[one.fields for one in batch] async for batch in changes] == [[{"title", "scores", "body"}]]

    run_with(main)


def test_a_name_that_is_no_field_and_a_condition_that_is_more_are_refused() -> None:
    async def main(graph: Graph) -> None:
        users = User.in_(graph)
        user = users.add(User(name="Ada"), "ada")
        for one in (user, User(name="Bob")):
            with pytest.raises(ModelError, match="User has no field 'nmae'; it has name"):
                one.nmae = "Eve"
        assert users.where("n.name = 'Ada' // whoever that is") == [user]
        for more in ("true RETURN 1 //", "true WITH n RETURN n.name AS n //", "true RETURN n", "n.name = "):
            with pytest.raises(QueryError):
                users.where(more)

    run_with(main, 1)


def test_what_can_not_be_declared() -> None:
    for kind in ("", "a/b", "~x", ".x"):
        with pytest.raises(ModelError, match="not a kind"):
            type("Wrong", (Model,), {"__annotations__": {"name": str}}, kind=kind)
    for names, more in (
        ({"name": object}, {}),
        ({"name": set[int]}, {}),
        ({"soul": str}, {}),
        ({"name": str}, {"name": register(key=".x")}),
        ({"name": str}, {"f": migration(2)(dict)}),
        ({"name": str}, {"f": migration(1)(dict)}),
    ):
        with pytest.raises(ModelError):
            type("Wrong", (Model,), {"__annotations__": names, **more}, kind="wrong")


# ---- versions ----------------------------------------------------------------------------------------------------


class PersonOne(Model, kind="person"):
    name: str


class PersonTwo(Model, kind="person", version=2):
    first: str
    last: str = ""

    @migration(2)
    @staticmethod
    def split(old: Mapping[str, Value]) -> Mapping[str, Value]:
        first, _, last = old["name"].partition(" ")
        return {"first": first, "last": last} if last else {"first": first}


class PersonThree(Model, kind="person", version=3):
    first: str
    last: str = ""
    initials: str

    @migration(2)
    @staticmethod
    def split(old: Mapping[str, Value]) -> Mapping[str, Value]:
        return PersonTwo._migrations[2](old)  # type: ignore[arg-type]

    @migration(3)
    @staticmethod
    def shorten(old: Mapping[str, Value]) -> Mapping[str, Value]:
        return {"initials": old["first"][:1] + old.get("last", "")[:1]}


def test_old_nodes_are_read_written_and_left_to_old_programs() -> None:
    async def main(alice: Graph, bob: Graph) -> None:
        old = PersonOne.in_(alice).add(PersonOne(name="Ada Lovelace"), "1")
        new = PersonThree.in_(alice)["1"]
        assert (new.first, new.last, new.initials) == ("Ada", "Lovelace", "AL")  # nothing was written
        assert set(alice.node("person/1")) == {"name"}
        assert PersonThree.in_(alice).migrate().nodes == 1
        assert PersonThree.in_(alice).migrate().nodes == 0
        assert [one.id for one in PersonThree.in_(alice).find(initials="AL")] == ["1"]
        assert old.name == "Ada Lovelace"
        old.name = "Ada King"  # an old program goes on
        assert (new.first, new.last, new.initials) == ("Ada", "King", "AK")
        new.last = "Byron"  # a new one writes: that stands
        old.name = "Augusta Ada"
        assert (new.first, new.last, new.initials) == ("Augusta", "Byron", "AB")
        assert PersonThree.in_(alice).migrate().nodes == 1
        assert alice.node("person/1")["initials"] == "AB"
        old.name = "Cher"
        assert PersonTwo.in_(alice)["1"].last == "Byron"
        made = PersonTwo.in_(alice).add(PersonTwo(first="Bob"))
        assert PersonThree.at(alice, made.soul).initials == "B"
        assert PersonOne.at(alice, made.soul).faults()[0].field == "name"
        newest = PersonThree.in_(alice).add(PersonThree(first="C", initials="C"))
        assert PersonTwo.at(alice, newest.soul).first == "C"  # a node of a newer version

    run_with(main)


def test_what_a_migration_can_not_take_is_named() -> None:
    async def main(alice: Graph, bob: Graph) -> None:
        alice.node("person/1")["name"] = 5
        alice.node("person/2")["other"] = "x"
        alice.node("person/3").update({"name": "A B", ".model": "two"})
        alice.set("person/3", ".migrated").add(["wrong", 5])
        alice.set("person/3", ".migrated").add([b"x", {"first": "no clock"}])
        done = PersonTwo.in_(alice).migrate()
        assert done.nodes == 1
        assert set(done.left) == {"person/1", "person/2"}
        assert {one.soul for one in PersonTwo.in_(alice).faults()} == {"person/1", "person/2"}
        with pytest.raises(ModelMismatch, match="from version 1 to 2: AttributeError"):
            _ = PersonTwo.at(alice, "person/1").first
        alice.node("person/1")["name"] = "C D"
        assert PersonTwo.at(alice, "person/1").first == "C"
        PersonOne.in_(bob, place=bob.own()).add(PersonOne(name="E F"), "4")
        await tell_each_other(alice, bob)
        of_bob = PersonTwo.in_(alice, place=bob.own())
        assert list(of_bob.migrate().left) == [bob.own("person/4")]
        assert of_bob["4"].first == "E"

    run_with(main)


STEPS = st.lists(
    st.tuples(
        st.integers(0, 2),
        st.sampled_from(["name", "first", "last", "two", "three", "meet"]),
        st.sampled_from(["A B", "C D", "E", "F G"]),
    ),
    max_size=20,
)


@settings(max_examples=30, deadline=None)
@given(STEPS)
def test_raced_migrations_come_to_the_same(steps: list[tuple[int, str, str]]) -> None:
    """A model: what people wrote last, and of the rest what follows from that. Whoever migrates when, in between."""

    async def main(*graphs: Graph) -> None:
        PersonOne.in_(graphs[0]).add(PersonOne(name="X Y"), "1")
        await tell_each_other(*graphs)
        for who, what, value in steps:
            graph = graphs[who]
            if what == "two":
                PersonTwo.in_(graph).migrate()
            elif what == "three":
                PersonThree.in_(graph).migrate()
            elif what == "meet":
                await tell_each_other(*graphs[: who + 1])
            elif what == "name":
                PersonOne.in_(graph)["1"].name = value
            else:
                setattr(PersonTwo.in_(graph)["1"], what, value)
        await tell_each_other(*graphs)
        await tell_each_other(*graphs)
        shown = [PersonThree.in_(graph)["1"] for graph in graphs]
        for _ in range(2):  # all at once, then again
            for graph in graphs:
                PersonThree.in_(graph).migrate()
            await tell_each_other(*graphs)
            await tell_each_other(*graphs)
        assert [PersonThree.in_(graph).migrate().nodes for graph in graphs] == [0, 0, 0]
        states = [graph.everything("person/1") for graph in graphs]
        assert states == [states[0]] * 3
        raw = graphs[0].node("person/1").to_dict()
        by_hand = {what for _, what, _ in steps}
        first, _, last = raw["name"].partition(" ")
        for one in shown:
            assert "first" in by_hand or one.first == first
            assert "last" in by_hand or one.last == last
            assert one.initials == one.first[:1] + one.last[:1]
            assert {"first": one.first, "last": one.last} | {"name": raw["name"]} == {
                "first": raw["first"],
                "last": raw.get("last", ""),
                "name": raw["name"],
            }

    run_with(main, 3)


# ---- versions of fields that are no registers --------------------------------------------------------------------


class NoteOne(Model, kind="note"):
    text: str
    tags: str = ""
    votes: int = 0


class NoteTwo(Model, kind="note", version=2):
    body: GraphText = text()
    lines: Items[str] = items(str)
    words: Members[str] = members(str)
    lengths: Entries[int] = mapping(int)
    likes: Counter = counter()
    about: Links[User] = links(User)

    @migration(2)
    @staticmethod
    def unfold(old: Old) -> Mapping[str, object]:
        written, votes = str(old["text"]), old.get("votes", 0)
        words = str(old.get("tags", "")).split()
        return {
            "body": written,
            "lines": written.split(","),
            "words": words,
            "lengths": {word: len(word) for word in words},
            "likes": votes,
            "about": [f"user/{word}" for word in words],
        }


class NoteThree(Model, kind="note", version=3):
    body: GraphText = text()
    lines: Items[str] = items(str)
    words: Members[str] = members(str)
    lengths: Entries[int] = mapping(int)
    likes: Counter = counter()
    title: str
    count: int
    log: Items[str] = items(str)
    known: Members[str] = members(str)

    @migration(2)
    @staticmethod
    def unfold(old: Old) -> Mapping[str, object]:
        return {"body": old["text"], "lines": [old["text"]], "words": ["w"], "likes": 2, "lengths": {"w": 1}}

    @migration(3)
    @staticmethod
    def fold(old: Old) -> Mapping[str, object]:
        log = [*old.elements("lines"), old.text("body"), *old.links("about")]
        known = [*old.members("words"), *old.entries("lengths")]
        return {"title": old.text("body")[:3], "count": old.counter("likes"), "log": log, "known": known}


def test_texts_lists_sets_maps_counters_and_links_are_filled_once() -> None:
    async def main(alice: Graph, bob: Graph) -> None:
        old = NoteOne.in_(alice).add(NoteOne(text="one,two", tags="red blue", votes=3), "1")
        note = NoteTwo.in_(alice)["1"]
        assert (str(note.body), list(note.lines), len(note.words), note.likes.value) == ("", [], 0, 0)
        note.body.insert(0, "!")  # somebody writes before it is migrated
        assert NoteTwo.in_(alice).migrate().nodes == 1
        assert NoteTwo.in_(alice).migrate().nodes == 0
        assert (str(note.body), list(note.lines), note.likes.value) == ("one,two!", ["one", "two"], 3)
        assert set(note.words) == {"red", "blue"}
        assert dict(note.lengths) == {"red": 3, "blue": 4}
        assert note.about.souls == ["user/blue", "user/red"]
        note.words.discard("red")
        note.body.delete(0, 4)
        old.text = "three"  # what was filled is edited from then on
        assert NoteTwo.in_(alice).migrate().nodes == 0
        assert (str(note.body), set(note.words)) == ("two!", {"blue"})
        assert alice.query("MATCH (n:note) WHERE n.body CONTAINS 'two' RETURN n.likes AS n") == [{"n": 3}]

    run_with(main)


def test_a_later_version_sees_what_an_earlier_one_would_fill() -> None:
    async def main(alice: Graph, bob: Graph) -> None:
        NoteOne.in_(alice).add(NoteOne(text="abcd"), "1")
        note = NoteThree.in_(alice)["1"]
        assert (note.title, note.count) == ("abc", 2)  # nothing was written
        assert NoteThree.in_(alice).migrate().nodes == 1
        assert (note.title, note.count, str(note.body)) == ("abc", 2, "abcd")
        assert (list(note.log), set(note.known)) == (["abcd", "abcd"], {"w"})
        note.body.insert(0, "x")
        note.likes.add(5)
        assert (note.title, note.count) == ("xab", 7)  # registers follow what people write
        assert NoteThree.in_(alice).migrate().nodes == 1
        assert alice.node(note.soul)["title"] == "xab"

    run_with(main)


FILLS = st.lists(
    st.tuples(
        st.integers(0, 2),
        st.sampled_from(["migrate", "write", "set", "count", "cut", "meet"]),
        st.integers(0, 9),
    ),
    max_size=24,
)


@pytest.mark.slow
@settings(max_examples=30, deadline=None)
@given(FILLS)
def test_raced_migrations_fill_a_field_once(steps: list[tuple[int, str, int]]) -> None:
    """Whoever migrates when: in the end the old contents are there once, and all that people wrote is."""

    async def main(*graphs: Graph) -> None:
        NoteOne.in_(graphs[0]).add(NoteOne(text="<old>", tags="a b", votes=7), "1")
        await tell_each_other(*graphs)
        typed, added, counted = "", set[str](), 0
        for who, what, number in steps:
            note = NoteTwo.in_(graphs[who])["1"]
            if what == "migrate":
                NoteTwo.in_(graphs[who]).migrate()
            elif what == "write":
                note.body.append(str(number))
                note.lines.append(str(number))
                typed += str(number)
            elif what == "set":
                note.words.add(f"w{number}")
                added.add(f"w{number}")
            elif what == "count":
                note.likes.add(number)
                counted += number
            elif what == "cut" and str(note.body).startswith("<old>"):
                note.body.delete(0, 1)
            elif what == "meet":
                await tell_each_other(*graphs[: who + 1])
        for _ in range(3):
            for graph in graphs:
                NoteTwo.in_(graph).migrate()
            await tell_each_other(*graphs)
            await tell_each_other(*graphs)
        assert [NoteTwo.in_(graph).migrate().nodes for graph in graphs] == [0, 0, 0]
        for graph in graphs:
            note = NoteTwo.in_(graph)["1"]
            body = str(note.body)
            assert body.count("old>") == 1
            # of who deleted in what somebody filled later, the deletion goes with it
            assert sorted(body.replace("old>", "").replace("<", "")) == sorted(typed)
            assert body.count("<") == 1 or "cut" in {what for _, what, _ in steps}
            assert sorted(note.lines) == sorted([*typed, "<old>"])
            assert set(note.words) == added | {"a", "b"}
            assert note.likes.value == graph.counter(note.soul, "likes").value == 7 + counted
        assert len({str(NoteTwo.in_(graph)["1"].body) for graph in graphs}) == 1

    run_with(main, 3)


def test_until_its_author_comes_again_a_counter_is_shown_without_what_was_filled_twice() -> None:
    async def main(alice: Graph, bob: Graph) -> None:
        NoteOne.in_(alice).add(NoteOne(text="x", votes=7), "1")
        await tell_each_other(alice, bob)
        NoteTwo.in_(alice).migrate()
        NoteTwo.in_(bob).migrate()
        await tell_each_other(alice, bob)
        shown = [NoteTwo.in_(graph)["1"].likes.value for graph in (alice, bob)]
        assert (shown, alice.counter("note/1", "likes").value) == ([7, 7], 14)
        wrong = (
            [b"x", 9 << 58, "body", b"agent", 2**31, 5],
            [b"x", 9 << 58, "body", b"agent", 5, 2**62],
            [b"y", 9 << 58, "lines", b"", 0, 3],
        )
        for one in wrong:  # claims of somebody who makes them up
            alice.set("note/1", ".filled").add(one)
        for graph in (alice, bob, alice):
            NoteTwo.in_(graph).migrate()
            await tell_each_other(alice, bob)
        assert alice.counter("note/1", "likes").value == NoteTwo.in_(bob)["1"].likes.value == 7
        assert (str(alice.text("note/1", "body")), list(bob.list("note/1", "lines"))) == ("x", ["x"])

    run_with(main)


class Wrong(Model, kind="note", version=2):
    body: GraphText = text()

    @migration(2)
    @staticmethod
    def wrong(old: Old) -> Mapping[str, object]:
        return {"body": 5}


def test_what_a_field_can_not_be_filled_with_is_named() -> None:
    async def main(alice: Graph, bob: Graph) -> None:
        NoteOne.in_(alice).add(NoteOne(text="x"), "1")
        assert "a text isn't filled with 5" in Wrong.in_(alice).migrate().left["note/1"]
        assert len(list(Wrong.in_(alice).faults())) == 1
        own = NoteOne.in_(bob, place=bob.own()).add(NoteOne(text="y"), "2")
        await tell_each_other(alice, bob)
        assert list(NoteTwo.in_(alice, place=bob.own()).migrate().left) == [own.soul]  # another's
        assert str(alice.text(own.soul, "body")) == ""

    run_with(main)
