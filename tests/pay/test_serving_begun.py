"""What a service is begun with, without a network."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from dtp.chain.heartbeat import EndpointsApart
from dtp.chain.host import Kind, Mode
from dtp.chain.pipes.posts import hint_of
from dtp.chain.signer import KeySigner
from dtp.errors import LocalError
from dtp.identity import Identity
from dtp.net import reachable
from dtp.pay import serving as module
from dtp.pay.errors import StoreError
from dtp.pay.server.book import BookLimits
from dtp.pay.server.cashier import Cashier
from dtp.pay.serving import Selling, serve
from dtp.session.limits import DEFAULT

from .test_claims import TERMS
from .test_paid import give
from .test_serving import HOST


class World:
    """What `serve` is made of, each part in the place of the real one: it notes what it was given."""

    places = ("tcp://here:1",)

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.calls, self.apart, self.signer = [], [], KeySigner.generate()
        self.address = self.signer.address
        self.owned = SimpleNamespace(host=SimpleNamespace(id=HOST))
        for name in ("find_host", "ensure_service", "refuse_apart", "listen"):
            monkeypatch.setattr(module, name, getattr(self, name))
        for name in ("Firewall", "Heart"):
            monkeypatch.setattr(module, name, self.part(name))
        monkeypatch.setattr(module, "ChainClient", World)  # this is one
        monkeypatch.setattr(module, "kind_for", lambda chain: "pipes")
        monkeypatch.setattr(Cashier, "start", lambda cashier, every: self.note("cashier", every))

    def note(self, *what: Any, **options: Any) -> None:
        self.calls.append((what, options))

    def noted_by(self, notes: Any) -> Any:
        return self

    def given(self, name: Any) -> Any:
        """The arguments of the only call of this name."""
        (found,) = ((what[1:], options) for what, options in self.calls if what[0] == name)
        return found

    def part(self, name: Any) -> Any:
        def make(*given: Any, **options: Any) -> Any:
            self.note(name, *given, **options)
            return SimpleNamespace(
                rules=None,
                refresh=lambda: self.done(f"{name} refreshed"),
                start=lambda: self.done(f"{name} started"),
                stop=lambda **_: self.done(f"{name} stopped"),
                generation=4,
                close=lambda: self.done(f"{name} closed"),
            )

        return make

    async def done(self, what: Any) -> None:
        self.note(what)

    async def connect(self) -> None:
        pass

    async def find_host(self, chain: Any, host: Any) -> Any:
        self.note("find_host", host)
        return self.owned

    async def ensure_service(self, chain: Any, owned: Any, service: Any, terms: Any, **options: Any) -> Any:
        self.note("ensure_service", service, terms, **options)
        return owned

    async def refuse_apart(self, chain: Any, owned: Any, key: Any, clock: Any, *, is_alive: Any) -> None:
        self.note("refuse_apart", key, clock)
        if self.apart and (fault := self.apart.pop(0)) is not None:
            raise fault

    async def listen(self, urls: Any, handler: Any, **options: Any) -> Any:
        self.note("listen", urls, **options)
        self.listener = SimpleNamespace(urls=self.places, connections=[], add=self.add, close=self.close)
        self.listener.presence = SimpleNamespace(announce_host=lambda *what: self.note("serves", *what))
        return self.listener

    async def add(self, url: Any, kind: Any) -> None:
        self.note("add", url, kind)

    async def close(self, *, grace: Any) -> None:
        self.note("listener closed", grace)


def begin(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, scenario: Any = None, apart: Any = (), **options: Any
) -> Any:
    """Begin to serve with a world's parts, and end it; the world."""

    async def work() -> Any:
        world = World(monkeypatch)
        world.apart = list(apart)
        options.setdefault("wallet", world.signer)
        serving = await serve("files", give, network=world, store=tmp_path / "pay.sqlite", **options)
        try:
            if scenario is not None:
                await scenario(world, serving)
        finally:
            await serving.close(claim=False)
        with pytest.raises(StoreError):  # what was opened for it is closed with it
            serving.store.sold_lanes()
        return world

    return asyncio.run(work())


def test_what_is_asked_for_is_begun(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    me, limits, book = Identity.generate(), replace(DEFAULT, idle=77), BookLimits(channels=3)

    def clock() -> Any:
        return 5.0

    async def scenario(world: Any, serving: Any) -> None:
        assert serving.book.limits == book
        assert (serving.gate.now_ms(), serving.book._clock, serving.gate._quotas._clock) == (
            5000,
            clock,
            clock,
        )

    world = begin(
        monkeypatch,
        tmp_path,
        scenario,
        urls=["tcp://0.0.0.0:7"],
        host=HOST,
        terms=TERMS,
        kind=Kind.HTTP,
        mode=Mode.PASS,
        identity=me,
        hint="tcp://there:1",
        plans=["0xp"],
        selling=Selling(book=book, claim_every=7.0),
        pipe=True,
        limits=limits,
        psk=b"p" * 32,
        clock=clock,
    )
    assert world.given("find_host") == ((HOST,), {})
    assert world.given("ensure_service") == (("files", TERMS), {"kind": Kind.HTTP, "mode": Mode.PASS})
    assert world.given("Firewall") == ((world, HOST), {"plans": ["0xp"], "clock": clock})
    (urls,), listening = world.given("listen")
    assert urls == ["tcp://0.0.0.0:7"]
    assert (listening["identity"], listening["limits"], listening["psk"]) == (me, limits, b"p" * 32)
    given, heart = world.given("Heart")
    assert given[1:] == (world.owned, me.id.key, hint_of("tcp://there:1", me))
    assert callable(heart.pop("is_alive"))
    assert heart == {"alone": True, "clock": clock}
    assert world.given("serves") == ((HOST, 4, "tcp://there:1"), {})
    assert world.given("add") == ((f"pipe://{HOST}?to={me.id.key.hex()}", "pipes"), {})
    assert world.given("cashier") == ((7.0,), {})
    said = [what[0] for what, _ in world.calls]
    # The rules are known before anybody can come, and clients are sent here when somebody listens.
    assert said.index("Firewall refreshed") < said.index("listen") < said.index("Heart started")


def test_others_find_it_where_it_listens_by_its_wallet_s_key(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    world = begin(monkeypatch, tmp_path, terms=None)
    given, _ = world.given("Heart")
    assert given[2:] == (world.signer.public_key, b"tcp://here:1")
    assert not any(what[0] in ("ensure_service", "add") for what, _ in world.calls)


@pytest.mark.parametrize(
    ("place", "told"),
    [("tcp://0.0.0.0:7", b"tcp://203.0.113.7:7"), ("ws://[::]:7/a", b"ws://[2001:db8::7]:7/a")],
)
def test_nobody_is_sent_to_an_address_that_is_none(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, place: Any, told: Any
) -> None:
    """What listens at all addresses was announced as 0.0.0.0, which is whoever dials it."""
    own = {"0.0.0.0": "203.0.113.7", "::": "2001:db8::7"}
    monkeypatch.setattr(reachable, "own_ip", own.__getitem__)
    monkeypatch.setattr(World, "places", ("unix:///x", place))
    assert begin(monkeypatch, tmp_path, terms=None).given("Heart")[0][3] == told
    with pytest.raises(LocalError, match="--hint"):
        begin(monkeypatch, tmp_path, terms=None, hint=place)


@pytest.mark.parametrize(
    ("heartbeat", "shares", "looks", "alone"),
    [(True, False, 2, True), (True, True, 0, False), (False, False, 0, None)],
)
def test_who_shares_a_store_may_serve_beside_others(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, heartbeat: Any, shares: Any, looks: Any, alone: Any
) -> None:
    world = begin(monkeypatch, tmp_path, heartbeat=heartbeat, selling=Selling(shares_store=shares))
    said = [what[0] for what, _ in world.calls]
    assert said.count("refuse_apart") == looks
    if looks:  # before anything is done for clients, and when others can see us
        first, second = (at for at, each in enumerate(said) if each == "refuse_apart")
        assert first < said.index("Firewall")
        assert said.index("Heart started") < second
    assert ("Heart" in said) == heartbeat
    if heartbeat:
        assert world.given("Heart")[1]["alone"] is alone


@pytest.mark.parametrize("late", [True, False])
def test_who_finds_another_serving_ends_at_once(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, late: Any
) -> None:
    worlds, genuine = [], World.__init__

    def made(world: Any, patch: Any) -> None:
        genuine(world, patch)
        worlds.append(world)

    monkeypatch.setattr(World, "__init__", made)
    fault = EndpointsApart("another one")
    with pytest.raises(EndpointsApart):
        begin(monkeypatch, tmp_path, apart=[None, fault] if late else [fault])
    (world,) = worlds
    said = [what[0] for what, _ in world.calls]
    assert ("listen" in said) == late
    assert said[-3:] == (["Heart stopped", "listener closed", "Firewall closed"] if late else said[-3:])
