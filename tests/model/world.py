"""A history happens: to graphs of the package, and beside them to the model. Time is virtual, and nothing waits."""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import os
import random
import shutil
import tempfile
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from unittest import mock

import psycopg
from agreeing import Agreement, Piece, Waiting, read_piece
from devices import Household, change
from edits import EDITS
from histories import History, Step
from nesting import check as check_document
from nesting import nest
from plain import Signed, covered
from replicas import Difference, Replica, Seen, image, lose, open_graph, put_image, same
from sealed import Secrets, publish, seal, whisper
from voting import tag, vote

import dtp
from dtp.graph import Equivocation, GraphBehind, GraphForked
from dtp.graph.frames import summaries
from dtp.graph.stores.postgres_store import PostgresStore
from dtp.graph.upkeep.letting_go import let_go
from dtp.identity import Identity

#: Where thousands of stores are synced to the disk without one, if there is such a place.
MEMORY = "/dev/shm" if os.path.isdir("/dev/shm") else None
JUMPS = (-100_000.0, -3600.0, -70.0, -5.0, 5.0, 50.0, 70.0, 3600.0, 100_000.0)
#: What a replica with a part can't do, or not where it lacks what it would be about.
NOT_OF_PARTS = {"nest", "put_many", "revoke", "devices", "ban", "prune", "compact"}
_SCHEMAS = itertools.count()
#: Seconds; what is due is shown within 0.01 (docs/graph.md, "Time").
PAUSES = (0.02, 1.0, 20.0, 70.0, 4000.0)


def somebody(number: int) -> Identity:
    """An identity that is the same each time."""
    name = f"model {number}".encode()
    return Identity(hashlib.sha256(name).digest(), hashlib.sha256(name + b" static").digest())


class World:
    """All replicas of a history."""

    def __init__(self, history: History, folder: Path, postgres: str | None) -> None:
        self.history, self.folder, self.postgres = history, folder, postgres
        self.home = folder / "home"
        self.replicas: list[Replica] = []
        self.forked: set[bytes] = set()
        #: Identities that two graphs have.
        self.doubled: set[bytes] = set()
        self.secrets = Secrets()
        self.household = Household()
        self.compacted = False
        self.meetings = 0

    async def start(self) -> None:
        for number, kind in enumerate(self.history.stores):
            await self.add(somebody(number), kind)

    async def add(self, identity: Identity, kind: str) -> Replica:
        number = len(self.replicas)
        if kind == "postgres" and self.postgres is None:
            kind = "sqlite"
        own = {"memory": "memory:", "sqlite": str(self.folder / f"{number}.db")}
        place = own.get(kind) or self.schema()
        replica = Replica(
            number,
            identity,
            kind,
            place,
            f"g{self.history.seed}",
            graph=None,  # type: ignore[arg-type]
            passed=self.passed,
            household=self.household.soul,
        )
        replica.has_part = self.history.has_part and number == len(self.history.stores) - 1
        if self.history.need:
            replica.waiting = Waiting(Agreement(0, ()))
        replica.graph = await open_graph(replica)
        # whoever prunes by itself would sign something by itself; of the others every second one lets go at once
        await replica.graph.admission.set_reach(0.0 if number % 2 == 0 else None)
        if self.history.need and not self.history.is_late:
            await self.ask_for(replica, Agreement(self.history.need, self.named(-1)))
        self.replicas.append(replica)
        return replica

    def named(self, which: int) -> tuple[bytes, ...]:
        """Some of those who are there from the beginning; one at least."""
        first = range(len(self.history.stores))
        some = [number for number in first if which >> number & 1] or first
        return tuple(somebody(number).id.key for number in some)

    async def ask_for(self, replica: Replica, agreement: Agreement) -> None:
        await replica.graph.admission.set_agreement(*agreement)
        if replica.waiting is not None:
            replica.waiting.ask(replica, agreement)

    def schema(self) -> str:
        """A place in PostgreSQL that nobody else has."""
        name = f"m{next(_SCHEMAS)}"
        with psycopg.connect(self.postgres, autocommit=True) as connection:  # type: ignore[arg-type]
            connection.execute(f"CREATE SCHEMA {name}")
        return f"{self.postgres}?options=-csearch_path%3D{name}"

    def passed(self) -> float:
        """Seconds since the history began."""
        return asyncio.get_running_loop().time()

    async def close(self) -> None:
        for replica in self.replicas:
            with suppress(GraphForked, GraphBehind):
                await replica.graph.close()

    async def take(self, step: Step) -> None:
        replica = self.replicas[step.at % len(self.replicas)]
        if replica.has_part and step.what in NOT_OF_PARTS:
            return
        if step.what == "nest":
            nest(replica, step, self.replicas)
            return
        if step.what in EDITS:
            EDITS[step.what](replica, step, self.replicas)
            return
        steps: dict[str, Callable[[Replica, Step], Awaitable[None]]] = {
            "vote": self.vote,
            "grant": self.grant,
            "revoke": self.revoke,
            "publish": self.publish,
            "seal": self.seal,
            "ban": self.ban,
            "devices": self.devices,
            "whisper": self.whisper,
            "commit": self.commit,
            "sync": self.sync,
            "pass": self.pass_on,
            "reorder": self.reorder,
            "sleep": self.sleep,
            "jump": self.jump,
            "reopen": self.reopen,
            "crash": self.crash,
            "backup": self.backup,
            "restore": self.restore,
            "damage": self.damage,
            "fork": self.fork,
            "compact": self.compact,
            "settle": self.settle,
            "prune": self.prune,
            "swell": self.swell,
            "join": self.join,
            "everyone": self.everyone,
            "ask": self.ask,
        }
        await steps[step.what](replica, step)

    # ---- what one does ---------------------------------------------------------------------------------------------

    async def commit(self, replica: Replica, _: Step | None = None) -> None:
        """What was made is signed, and shown as the model shows it."""
        try:
            await replica.graph.commit()
        except GraphForked:
            if replica.key not in {proof.author for proof in await replica.graph.frames.proofs()}:
                raise
        self.secrets.learn(replica, await replica.absorb())
        replica.dirty = False
        await self.check(replica)

    async def check(self, replica: Replica) -> None:
        """It shows what the model does, and reads what it may."""
        replica.check()
        self.secrets.check(replica, self.replicas)
        if not replica.has_part:
            check_document(replica, replica.shown())

    async def publish(self, replica: Replica, _: Step) -> None:
        publish(replica)

    async def seal(self, replica: Replica, step: Step) -> None:
        await self.commit(replica)
        seal(replica, step, self.replicas)

    async def whisper(self, replica: Replica, step: Step) -> None:
        await self.commit(replica)
        whisper(replica, step, self.replicas)

    async def devices(self, replica: Replica, step: Step) -> None:
        await self.commit(replica)
        change(self.household, replica, step, self.replicas)
        await self.commit(replica)

    async def ban(self, replica: Replica, step: Step) -> None:
        """Somebody's frames are as though they had never come; or all that is here of them is removed."""
        other = self.replicas[step.a % len(self.replicas)]
        await self.commit(replica)
        if other.key == replica.key:
            return
        if other.key in replica.seen.hidden and step.b % 2:
            await replica.graph.admission.unban(other.identity.id)
            replica.seen.hidden.discard(other.key)
            replica.seen.due.pop(other.key, None)  # what isn't due by the clock as it is now waits
        else:
            await replica.graph.admission.ban(other.identity.id)
            replica.seen.hidden.add(other.key)
            if step.b % 4 == 0:
                await replica.graph.admission.purge(other.identity.id)
                replica.seen.chains.pop(other.key, None)
                replica.seen.due.pop(other.key, None)
        await self.commit(replica)

    async def vote(self, replica: Replica, step: Step) -> None:
        await self.commit(replica)
        if step.a % 4:
            await vote(replica, step)
        else:
            tag(replica, step)

    async def grant(self, replica: Replica, step: Step) -> None:
        other = self.replicas[step.a % len(self.replicas)]
        to_account = step.c % 3 == 0
        if other.key == replica.key and not to_account:
            return
        whom = self.household.account if to_account else other.identity.id
        try:
            replica.graph.access.grant(whom, ("p", "p/q", "")[step.b % 3])
        except GraphBehind:
            same("behind", True, replica.behind)
            return
        same("behind", False, replica.behind)
        replica.dirty = True

    async def revoke(self, replica: Replica, step: Step) -> None:
        given = replica.graph.access.grants()
        if not given:
            return
        try:
            replica.graph.access.revoke(given[step.a % len(given)])
        except GraphBehind:
            same("behind", True, replica.behind)
            return
        replica.dirty = True
        await self.commit(replica)

    async def compact(self, replica: Replica, _: Step) -> None:
        if replica.behind:
            return
        await self.commit(replica)
        await replica.graph.upkeep.compact()
        self.compacted = True
        await self.commit(replica)

    async def prune(self, replica: Replica, _: Step) -> None:
        """What doesn't count is dropped, and nothing looks different."""
        await self.commit(replica)
        if not replica.behind:
            for _ in range(
                2
            ):  # what is taken back now, and what this looks at first: seen before it is summed up
                await let_go(replica.graph)
                await self.commit(replica)
            await replica.graph.upkeep.prune()
            await self.commit(replica)

    async def ask(self, replica: Replica, step: Step) -> None:
        """Somebody asks for others' agreement to sums, or of more, or of fewer, or doesn't any more."""
        await self.commit(replica)
        of = self.named(step.b)
        await self.ask_for(replica, Agreement(min(step.a % 4, len(of)), of))
        await self.commit(replica)

    async def swell(self, replica: Replica, step: Step) -> None:
        """So much is written, most of it over, that its sum is offered to others, who may drop the frames for it."""
        for number in range(8):
            await self.commit(replica)
            if replica.behind:
                return
            replica.graph.node("n/1")[f"long {step.a % 2}"] = bytes([number]) * 12_000
            replica.dirty = True
        await self.commit(replica)

    # ---- what passes between two -----------------------------------------------------------------------------------

    async def sync(self, replica: Replica, step: Step) -> None:
        """Both have what either had when it began, and know of the same contradictions."""
        other = self.replicas[step.a % len(self.replicas)]
        if other is not replica:
            await self.meet(replica, other)

    async def meet(self, replica: Replica, other: Replica) -> None:
        for each in (replica, other):
            await self.commit(each)
        if self.history.need:
            await self.meet_in_agreement(replica, other)
            return
        refused = await self.ahead(replica, other), await self.ahead(other, replica)
        told = await self.exchange(replica, other)
        had, other_had = replica.seen.copy(), other.seen.copy()
        were_behind = [each for each in (replica, other) if each.behind]
        hidden = had.hidden | other_had.hidden
        gives = tuple(
            {author: chain[: ends.get(author, len(chain))] for author, chain in each.items()}
            for each, ends in zip((replica.gives(other), other.gives(replica)), refused, strict=True)
        )
        split = {
            author
            for author, chain in gives[1].items()
            if author not in hidden and not replica.seen.takes(author, chain)
        }
        for author, chain in gives[0].items():
            if author not in hidden:
                other.seen.takes(author, chain)
        for each in (replica, other):
            await each.keep()
        if not split <= self.doubled:
            raise Difference("somebody signed two histories who has one graph")
        self.forked |= split
        if not other.has_part:
            self.caught_up(replica, other_had)
        if not replica.has_part:
            self.caught_up(other, had)
        for each in (replica, other):
            each.dirty = False
            if each in were_behind and not each.behind:  # it may have said that it has less than it had
                self.secrets.learn(each, await each.absorb())
            await self.check(each)
            known = {proof.author for proof in await each.graph.frames.proofs()}
            if not split <= known <= self.forked:
                raise Difference(
                    f"proofs {len(known)}, contradictions {len(split)}, forks {len(self.forked)}"
                )
            if each.key in known and not isinstance(each.graph.failed, GraphForked):
                raise Difference("who has forked isn't told")
        if isinstance(told, GraphForked) != (
            replica.key in {p.author for p in await replica.graph.frames.proofs()}
        ):
            raise Difference("sync doesn't say what proofs do")

    async def ahead(self, giver: Replica, taker: Replica) -> dict[bytes, int]:
        """The last frame before a sum that is dated ahead for whoever gets it, by author: that is refused."""
        found = {}
        for author, chain in giver.seen.visible().items():
            if author == taker.key or chain[-1].last <= taker.limit:
                continue
            if author == giver.key and not (giver.has_part or taker.has_part):  # it sums up what is lacking
                first = taker.seen.length(author) + 1
                parts = giver.graph.offering.parts_for(taker.key, first, len(chain))
                told = [
                    one for part in parts async for some in summaries.own(giver.graph, *part) for one in some
                ]
            else:
                told = await giver.graph.frames.read(author, 1, len(chain))
            spans = map(covered, told)
            sums = [(first, last) for first, last in spans if last > max(first, taker.seen.length(author))]
            if early := [first for first, last in sums if chain[last - 1].last > taker.limit]:
                found[author] = early[0] - 1
        return found

    async def meet_in_agreement(self, replica: Replica, other: Replica) -> None:
        """The same, where sums are taken when enough agree to them."""
        had, other_had = replica.seen.copy(), other.seen.copy()
        stored = await self.pieces(replica), await self.pieces(other)
        await self.exchange(replica, other)
        for each, pieces in ((replica, stored[1]), (other, stored[0])):
            if each.waiting is not None:
                each.waiting.add(each, pieces)
        # What had waited at one may go on to the other in the same sync, or comes with the next.
        for each, peer in ((replica, other), (other, replica)):
            has = each.graph.frames.vector()
            late = [one for one in await self.pieces(peer) if one.last <= has.get(one.author, 0)]
            if each.waiting is not None:
                each.waiting.add(each, late)
        self.caught_up(replica, other_had)
        self.caught_up(other, had)
        for each in (replica, other):
            each.dirty = False
            await self.check(each)
            left = [
                (one.author.key, one.first, one.last, tuple(by.key for by in one.by))
                for one in each.graph.admission.unagreed()
            ]
            same("sums that wait", each.waiting and each.waiting.unagreed(each), sorted(left))

    async def pieces(self, replica: Replica) -> list[Piece]:
        """What a replica has stored."""
        found = []
        for author, chain in replica.seen.visible().items():
            stored = await replica.graph.frames.read(author, 1, len(chain))
            found += [read_piece(data, replica.name, chain) for data in stored]
        return found

    async def exchange(self, replica: Replica, other: Replica) -> GraphForked | None:
        """Sync; gives the error that oneself has signed two histories."""
        self.meetings += 1
        listener = await dtp.listen(
            f"memory://model-{id(self)}-{self.meetings}", other.graph.serve, identity=other.identity
        )
        try:
            async with dtp.connect(listener.address(), identity=replica.identity) as connection:
                await replica.graph.sync(connection)
        except GraphForked as forked:
            return forked
        finally:
            await listener.close()
        return None

    def caught_up(self, replica: Replica, other_had: Seen) -> None:
        """Who was behind goes on once a peer had all that was here of it, and all is here that it signed."""
        if replica.seen.length(replica.key) < replica.signed:
            return
        mine, told = replica.seen.chains.get(replica.key, []), other_had.visible().get(replica.key, [])
        if (
            replica.behind
            and len(told) >= len(mine)
            and (not mine or told[len(mine) - 1].hash == mine[-1].hash)
        ):
            replica.behind = False

    async def pass_on(self, replica: Replica, step: Step) -> None:
        """Some of an author's frames go over by hand."""
        other = self.replicas[step.a % len(self.replicas)]
        await self.commit(replica)
        authors = sorted(replica.seen.visible())
        if other is replica or not authors:
            return
        author = authors[step.b % len(authors)]
        chain = replica.seen.chains[author]
        first = other.seen.length(author) + 1
        until = min(len(chain), first + step.c % 3)
        if first > until or author == other.key or author in other.seen.hidden:
            return
        data = await replica.graph.frames.read(author, first, until)
        if len(data) == until - first + 1:  # what was pruned goes over as a whole, or not at all
            await self.give(other, author, chain[:until], data)

    async def give(self, other: Replica, author: bytes, chain: list[Signed], data: list[bytes]) -> None:
        try:
            await other.graph.receive(data)
        except Equivocation:
            same("a contradiction is refused", False, other.seen.copy().takes(author, chain))
            self.forked.add(author)
            return
        if other.waiting is not None:
            other.waiting.add(other, [read_piece(one, other.name, chain) for one in data])
        elif not other.seen.takes(author, chain):
            raise Difference("a contradiction was taken")
        other.ripen()
        if not other.dirty:
            await self.commit(other)

    async def reorder(self, replica: Replica, step: Step) -> None:
        """All that the other lacks comes in any order, and twice."""
        other = self.replicas[step.a % len(self.replicas)]
        await self.commit(replica)
        parts, pieces, chains = [], list[Piece](), {}
        for author, chain in replica.seen.visible().items():
            if (
                author in other.seen.hidden
                or author == other.key
                or other is replica
                or author in self.forked
            ):
                continue
            if not other.seen.copy().takes(author, chain):
                return
            chains[author] = chain
            missing = await replica.graph.frames.read(author, other.seen.length(author) + 1, len(chain))
            if len(missing) < len(chain) - other.seen.length(author):
                return  # what was pruned goes over as a whole
            parts += missing
            pieces += [read_piece(one, other.name, chain) for one in missing] if other.waiting else []
        rng = random.Random(step.b)
        await other.graph.receive(rng.sample(parts, len(parts)))
        await other.graph.receive(rng.sample(parts, len(parts)))
        if other.waiting is not None:
            other.waiting.add(other, pieces)
        for author, chain in chains.items() if other.waiting is None else ():
            other.seen.takes(author, chain)
        other.ripen()
        if not other.dirty:
            await self.commit(other)

    async def everyone(self, _: Replica, __: Step) -> None:
        """All meet all: then all that saw the same hold the same, byte for byte."""
        for _ in range(2):
            await self.meet_all()
        self.compare_states()

    async def meet_all(self) -> None:
        for one in self.replicas:
            for other in self.replicas[: one.number]:
                await self.meet(one, other)

    async def agree(self) -> None:
        """All meet and agree to what they offer, again and again: then nothing that anybody wrote waits anywhere."""
        for _ in range(2):
            await self.meet_all()
            for one in self.replicas:
                await self.prune(one, NO_STEP)
        await self.meet_all()
        if self.history.is_late:
            # of what was summed up before somebody asked nobody may have had the frames: its author's word does then
            for one in self.replicas:
                await self.ask_for(one, Agreement(0, ()))
            await self.meet_all()
            self.compare_states()
        for one in self.replicas:
            if one.waiting is not None and (left := one.waiting.unagreed(one)):
                raise Difference(f"{one.number} waits for ever for {len(left)} sums")

    async def settle(self, _: Replica, step: Step) -> None:
        """All say what they have seen, and forget what all others have seen deleted."""
        for _ in range(2):
            await self.meet_all()
            for one in self.replicas:
                await self.compact(one, step)

    def compare_states(self) -> None:
        if self.compacted or self.forked:
            return
        states: dict[tuple[object, ...], tuple[int, bytes]] = {}
        for replica in self.replicas:
            if replica.has_part:
                continue
            seen = tuple(
                sorted((a, len(c), replica.seen.due.get(a, 0)) for a, c in replica.seen.visible().items())
            )
            number, state = states.setdefault(seen, (replica.number, replica.graph.replica.save()))
            if state != replica.graph.replica.save():
                raise Difference(f"{number} and {replica.number} saw the same, and their states differ")

    # ---- time, and what happens to machines ------------------------------------------------------------------------

    async def sleep(self, _: Replica, step: Step) -> None:
        await self.pause(PAUSES[step.a % len(PAUSES)])

    async def pause(self, seconds: float) -> None:
        """Time passes, and what comes due is let in."""
        await asyncio.sleep(seconds)
        for replica in self.replicas:
            replica.ripen()

    async def jump(self, replica: Replica, step: Step) -> None:
        """Somebody sets a clock; within a minute all that is due by it is there."""
        replica.skew += JUMPS[step.a % len(JUMPS)]
        await self.pause(60)

    async def reopen(self, replica: Replica, _: Step) -> None:
        if replica.kind == "memory":
            return
        await self.commit(replica)
        await replica.graph.close()
        await replica.open()
        await self.commit(replica)

    async def crash(self, replica: Replica, step: Step) -> None:
        """The program dies: at rest, or with any part of a commit written."""
        if replica.kind != "sqlite":
            return
        self.secrets.learn(replica, await replica.absorb())  # what was committed in the background
        kept = self.keep(replica)
        seen = replica.seen.copy()
        if step.a % 2:
            with suppress(GraphForked):
                await self.commit(replica)
            kept = self.cut(replica, kept, step.b)
        with suppress(GraphForked):
            await replica.graph.close()
        self.put_back(replica, kept)
        await replica.open()
        told, replica.dirty = replica.graph.frames.vector().get(replica.key, 0), False
        if told < seen.length(replica.key) or told > replica.seen.length(replica.key):
            raise Difference(
                f"{told} frames are there after a crash, {seen.length(replica.key)} were said to be"
            )
        if told < replica.seen.length(replica.key):
            replica.signed, replica.seen = seen.length(replica.key), seen
        replica.reopened()
        await self.commit(replica)

    def keep(self, replica: Replica) -> tuple[dict[str, bytes], dict[Path, bytes]]:
        """The files of a store, and the data folder, as they are."""
        files = {path: path.read_bytes() for path in self.home.rglob("*") if path.is_file()}
        return image(replica.place), files

    def put_back(self, replica: Replica, kept: tuple[dict[str, bytes], dict[Path, bytes]]) -> None:
        files, home = kept
        put_image(replica.place, files)
        for path in self.home.rglob("*"):
            if path.is_file() and path not in home:
                path.unlink()
        for path, data in home.items():
            path.write_bytes(data)

    def cut(
        self, replica: Replica, before: tuple[dict[str, bytes], dict[Path, bytes]], where: int
    ) -> tuple[dict[str, bytes], dict[Path, bytes]]:
        """The log with a part of what a commit wrote."""
        files, _ = before
        after = image(replica.place)
        log, longer = files.get("-wal", b""), after.get("-wal", b"")
        if after[""] != files[""] or not longer.startswith(log) or len(longer) == len(log):
            return before
        return {"": files[""], "-wal": longer[: len(log) + where % (len(longer) - len(log))]}, before[1]

    async def backup(self, replica: Replica, _: Step) -> None:
        if replica.kind != "sqlite":
            return
        await self.commit(replica)
        await replica.graph.close()
        replica.backup = image(replica.place)[""], replica.seen.copy()
        await replica.open()

    async def restore(self, replica: Replica, step: Step) -> None:
        """A backup is put back: nothing is signed until a peer has told what it knows."""
        if replica.backup is None:
            return
        with suppress(GraphForked):
            await replica.graph.close()
        await self.absorb_closed(replica)
        data, seen = replica.backup
        if step.a % 2:
            os.unlink(replica.place)
        put_image(replica.place, {"": data})
        replica.seen, replica.dirty = seen.copy(), False
        await replica.open()
        replica.reopened()
        replica.behind = replica.behind or seen.length(replica.key) < replica.signed
        await self.check(replica)

    async def damage(self, replica: Replica, step: Step) -> None:
        """What somebody else signed last is lost, and nothing tells of it: it is written on before it syncs."""
        others = sorted(replica.seen.chains.keys() - {replica.key})
        if replica.kind != "sqlite" or not others:
            return
        await self.commit(replica)
        await replica.graph.close()
        author = others[step.a % len(others)]
        left = lose(replica.place, author, step.b)
        del replica.seen.chains[author][left:]
        replica.seen.due[author] = min(left, replica.seen.due.get(author, 0))
        await replica.open()
        replica.reopened()
        await self.commit(replica)

    async def absorb_closed(self, replica: Replica) -> None:
        """What was signed when it was closed."""
        await replica.open()
        self.secrets.learn(replica, await replica.absorb())
        await replica.graph.close()

    async def join(self, _: Replica, __: Step) -> None:
        """Somebody comes who has nothing yet."""
        await self.add(somebody(len(self.replicas)), "memory")

    async def fork(self, replica: Replica, _: Step) -> None:
        """Another machine has the same identity, and an empty graph."""
        if len(self.replicas) < 6:
            self.doubled.add(replica.key)
            await self.add(replica.identity, "memory")


#: For what needs no numbers.
NO_STEP = Step("", 0, 0, 0, 0)


async def happen(history: History, postgres: str | None) -> None:
    """Let a history happen. Raises `Difference`.

    Nobody else writes where a replica is kept in PostgreSQL, so nobody listens there: a thread can't in virtual time.
    """
    folder = Path(tempfile.mkdtemp(prefix="dtp-model-", dir=MEMORY))
    world = World(history, folder, postgres)
    with (
        mock.patch.dict(os.environ, DTP_HOME=str(world.home)),
        mock.patch.object(PostgresStore, "watch_news", return_value=None),
    ):
        try:
            await world.start()
            for step in history.steps:
                await world.take(step)
            if history.need:
                await world.agree()
            for replica in world.replicas:
                await world.commit(replica)
        finally:
            await world.close()
            shutil.rmtree(folder, ignore_errors=True)
