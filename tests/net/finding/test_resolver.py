"""Resolvers: the contract, the peer table, and what a program is told when nobody knows the peer."""

import asyncio
import os
import random
from pathlib import Path
from typing import Any

import pytest

from dtp.config import ConfigFileError
from dtp.errors import CarrierError, ChainError, LocalError, PeerError
from dtp.identity import Identity
from dtp.net.address import Address, AddressError
from dtp.net.resolver import (
    MAX_ADDRESSES,
    Candidate,
    NotResolved,
    ResolveFailed,
    Resolver,
    StaticResolver,
    in_order,
    resolve_all,
)
from dtp.testing.resolvers import FakeResolver, check_resolver

ALICE = Identity(bytes(range(32)), bytes(32)).id
BOB = Identity(bytes(range(1, 33)), bytes(32)).id
HOST_OBJECT = "0x" + "5a" * 32
TABLE = f"""
[peers.alice]
id = "{ALICE}"
addresses = ["dtp+tcp://192.0.2.7:9000", "dtp+unix://{ALICE}@/run/dtp.sock?service=files", "dtp+tcp://192.0.2.7:9000"]
host = "{HOST_OBJECT.upper().replace("X", "x")}"

[peers."bob.example"]
id = "{BOB}"
addresses = ["dtp+ws://h.example/fallback?path=/dtp&x=1&y=2"]
"""


def table(tmp_path: Path, text: str = TABLE) -> Any:
    path = tmp_path / "peers.toml"
    path.write_text(text)
    return path


def resolve(resolver: Any, text: str) -> Any:
    return asyncio.run(resolver.resolve(Address.parse(text)))


def urls(candidates: Any) -> Any:
    return [str(candidate.address) for candidate in candidates]


# --- The contract.


@pytest.mark.parametrize("known", [f"dtp://{ALICE}/echo", "dtp://alice/echo", f"dtp://{HOST_OBJECT}"])
@pytest.mark.parametrize(
    "unknown", ["dtp://carol", f"dtp://{Identity(bytes(32)).id}", f"dtp://0x{'00' * 32}"]
)
def test_static_keeps_the_contract(tmp_path: Path, known: Any, unknown: Any) -> None:
    asyncio.run(check_resolver(StaticResolver(table(tmp_path)), Address.parse(known), Address.parse(unknown)))


def test_the_fake_keeps_the_contract() -> None:
    known = Address.parse(f"dtp://{ALICE}")
    fake = FakeResolver({known: [Address("dtp+tcp", ALICE, "h", 1), Address("dtp+tcp", ALICE, "h", 2)]})
    asyncio.run(check_resolver(fake, known, Address.parse("dtp://carol")))
    assert fake.asked[0] == known


class Wrong(FakeResolver):
    """Answers with another peer than the one that was asked for."""

    async def resolve(self, address: Any) -> Any:
        self.asked.append(address)
        return [Candidate(Address("dtp+tcp", BOB, "h", 1), source="fake")]


def test_the_check_finds_a_wrong_peer() -> None:
    with pytest.raises(AssertionError, match="does not choose who answers"):
        asyncio.run(check_resolver(Wrong(), Address.parse(f"dtp://{ALICE}"), Address.parse("dtp://carol")))


def test_a_candidate_is_direct() -> None:
    with pytest.raises(AddressError, match="has to be a direct address"):
        Candidate(Address.parse("dtp://alice"))
    for priority, weight in ((0, 0), (-1, 1)):
        with pytest.raises(AddressError, match="at least 0 and 1"):
            Candidate(Address("dtp+tcp", ALICE, "h", 1), priority=priority, weight=weight)


# --- The peer table.


@pytest.mark.parametrize("who", ["alice", str(ALICE), HOST_OBJECT])
def test_the_order_of_the_table_is_kept(tmp_path: Path, who: Any) -> None:
    found = resolve(StaticResolver(table(tmp_path)), f"dtp://{who}/echo")
    assert urls(found) == [
        f"dtp+tcp://{ALICE}@192.0.2.7:9000/echo",
        f"dtp+unix://{ALICE}@/run/dtp.sock?service=echo",
    ]
    assert [candidate.priority for candidate in found] == [0, 1]
    assert {candidate.source for candidate in found} == {"peers.toml"}
    assert {candidate.expires for candidate in found} == {None}


def test_what_is_asked_for_goes_before_what_the_table_says(tmp_path: Path) -> None:
    resolver = StaticResolver(table(tmp_path))
    base = f"dtp+ws://{BOB}@h.example"
    assert urls(resolve(resolver, "dtp://bob.example")) == [f"{base}/fallback?path=/dtp&x=1&y=2"]
    assert urls(resolve(resolver, "dtp://bob.example/echo?y=3&z=4")) == [f"{base}/echo?path=/dtp&x=1&y=3&z=4"]
    assert urls(resolve(resolver, "dtp://alice"))[1] == f"dtp+unix://{ALICE}@/run/dtp.sock?service=files"


def test_a_peer_with_two_names(tmp_path: Path) -> None:
    text = (
        TABLE
        + f'[peers.bobby]\nid = "{BOB}"\naddresses = ["dtp+ws://h.example/fallback?path=/dtp&x=1&y=2", "dtp+tcp://h:1"]\n'
    )
    resolver = StaticResolver(table(tmp_path, text))
    assert len(resolve(resolver, f"dtp://{BOB}")) == 2
    assert len(resolve(resolver, "dtp://bob.example")) == 1


def test_a_change_is_seen(tmp_path: Path) -> None:
    path = table(tmp_path)
    resolver = StaticResolver(path)
    assert resolve(resolver, "dtp://carol") == []
    path.write_text(TABLE + f'[peers.carol]\nid = "{BOB}"\naddresses = ["dtp+tcp://h:1"]\n')
    assert urls(resolve(resolver, "dtp://carol")) == [f"dtp+tcp://{BOB}@h:1"]


def test_a_file_that_replaces_another_of_the_same_size_and_time_is_seen(tmp_path: Path) -> None:
    path = table(tmp_path)
    resolver = StaticResolver(path)
    assert len(resolve(resolver, "dtp://alice")) == 2
    before = path.stat()
    other = tmp_path / "other"
    other.write_text(TABLE.replace("alice", "alicf"))
    os.utime(other, ns=(before.st_atime_ns, before.st_mtime_ns))
    other.replace(path)
    assert path.stat().st_size == before.st_size
    assert resolve(resolver, "dtp://alice") == []


def test_it_is_read_only_when_it_changed(tmp_path: Path) -> None:
    path = table(tmp_path)
    resolver = StaticResolver(path)
    assert len(resolve(resolver, "dtp://alice")) == 2
    before = path.stat()
    path.write_text(
        TABLE.replace("alice", "alicf")
    )  # the same file, and as long: it says that it didn't change
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert len(resolve(resolver, "dtp://alice")) == 2
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns + 1))
    assert resolve(resolver, "dtp://alice") == []


def test_a_broken_table_is_told_until_it_is_repaired(tmp_path: Path) -> None:
    path = table(tmp_path, "[peers.alice\n")
    resolver = StaticResolver(path)
    for _ in range(2):
        with pytest.raises(ConfigFileError):
            resolve(resolver, "dtp://alice")
    path.write_text(TABLE)
    assert len(resolve(resolver, "dtp://alice")) == 2


@pytest.mark.parametrize(
    ("text", "line", "reason"),
    [
        ("[peers.alice]\naddresses = []\n", 1, "peers.alice needs id = ... (text)"),
        (f'[peers.alice]\nid = "{ALICE}"\n', 1, "needs addresses = [...]"),
        (f'[peers.alice]\nid = "{ALICE}"\naddresses = []\n', 1, "needs addresses = [...]"),
        ('[peers.alice]\n\nid = "dtp1x"\n', 3, "peers.alice.id can't be used: 'dtp1x' has 5 characters"),
        ("[peers.alice]\nid = 7\n", 2, "peers.alice.id has to be text, not 7"),
        (f'[peers.alice]\nid = "{ALICE}"\naddresses = "dtp+tcp://h:1"\n', 3, "has to be an array of texts"),
        (f'[peers.alice]\nid = "{ALICE}"\naddresses = ["tcp://h:1"]\n', 3, "did you mean dtp+tcp"),
        (f'[peers.alice]\nid = "{ALICE}"\naddresses = ["dtp://bob"]\n', 3, "does not say where to dial"),
        (f'[peers.alice]\nid = "{ALICE}"\naddresses = ["dtp+tcp://{BOB}@h:1"]\n', 3, "is meant"),
        (f'[peers.alice]\nid = "{ALICE}"\nadresses = ["dtp+tcp://h:1"]\n', 1, "needs addresses"),
        (
            f'[peers.alice]\nid = "{ALICE}"\naddresses = ["dtp+tcp://h:1"]\nhosts = "x"\n',
            4,
            "did you mean host?",
        ),
        (
            f'[peers.alice]\nid = "{ALICE}"\naddresses = ["dtp+tcp://h:1"]\nhost = "0x1"\n',
            4,
            "is not an object id",
        ),
        (f'[peers.Alice]\nid = "{ALICE}"\n', 1, "the name 'Alice' can't stand for a peer"),
        (f'[peers.{ALICE}]\nid = "{ALICE}"\n', 1, "looks like an identity"),
        ("[peers]\nalice = 7\n", 2, "has to be a table ([peers.alice])"),
        ("peers = 7\n", 1, "has to be a table ([peers])"),
        ("[peer.alice]\n", 1, "peer is not a setting; did you mean peers?"),
        (
            TABLE + f'[peers.carol]\nid = "{BOB}"\naddresses = ["dtp+tcp://h:1"]\nhost = "{HOST_OBJECT}"\n',
            13,
            "is the host object of alice already",
        ),
        (
            f'[peers.a]\nid = "{ALICE}"\naddresses = {["dtp+tcp://h:1"] * (MAX_ADDRESSES + 1)}\n',
            1,
            "1 to 64 addresses",
        ),
    ],
)
def test_a_mistake_in_the_table_is_told_with_its_line(
    tmp_path: Path, text: str, line: Any, reason: Any
) -> None:
    path = table(tmp_path, text)
    with pytest.raises(ConfigFileError) as caught:
        resolve(StaticResolver(path), "dtp://alice")
    assert reason in str(caught.value)
    assert str(caught.value).startswith(f"{path}:{line}: ")
    assert (caught.value.path, caught.value.line) == (path, line)


def test_the_default_file_need_not_exist(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DTP_PEERS", raising=False)
    monkeypatch.setenv("DTP_HOME", str(tmp_path))
    resolver = StaticResolver()
    assert resolver.path == tmp_path / "peers.toml"
    assert resolve(resolver, "dtp://alice") == []
    table(tmp_path)
    assert len(resolve(resolver, "dtp://alice")) == 2
    resolver.path.unlink()
    assert resolve(resolver, "dtp://alice") == []


def test_a_file_that_was_named_has_to_exist(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigFileError, match="no such file"):
        resolve(StaticResolver(tmp_path / "none.toml"), "dtp://alice")
    monkeypatch.setenv("DTP_PEERS", str(tmp_path / "none.toml"))
    with pytest.raises(ConfigFileError, match="no such file"):
        resolve(StaticResolver(), "dtp://alice")
    with pytest.raises(ConfigFileError, match="can't be read"):
        resolve(StaticResolver(tmp_path), "dtp://alice")


# --- Several resolvers.


def test_nobody_is_asked_for_a_direct_address() -> None:
    fake = FakeResolver()
    address = Address("dtp+tcp", ALICE, "h", 1)
    assert asyncio.run(resolve_all(address, [fake])) == [Candidate(address)]
    assert fake.asked == []


def test_the_first_that_knows_answers() -> None:
    address = Address.parse("dtp://alice/echo")
    places = [
        FakeResolver({Address.parse("dtp://alice"): [Address("dtp+tcp", ALICE, "h", n)]}) for n in (1, 2)
    ]
    found = asyncio.run(resolve_all(address, [FakeResolver(), *places]))
    assert urls(found) == [f"dtp+tcp://{ALICE}@h:1/echo"]
    assert places[1].asked == []


@pytest.mark.parametrize("error", [CarrierError("no network"), ChainError("no node"), PeerError("it lies")])
def test_one_that_fails_does_not_keep_the_next_from_answering(error: Any) -> None:
    address = Address.parse("dtp://alice")
    broken, good = FakeResolver(), FakeResolver({address: [Address("dtp+tcp", ALICE, "h", 1)]})
    broken.error = error
    assert len(asyncio.run(resolve_all(address, [broken, good]))) == 1
    with pytest.raises(ResolveFailed, match=f"fake: {error}; unknown to fake"):
        asyncio.run(resolve_all(address, [broken, FakeResolver()]))


def test_what_the_user_has_to_repair_is_told_at_once() -> None:
    broken = FakeResolver()
    broken.error = LocalError("the table is broken")
    with pytest.raises(LocalError, match="the table is broken"):
        asyncio.run(resolve_all(Address.parse("dtp://alice"), [broken, FakeResolver()]))


def test_nobody_knows(tmp_path: Path) -> None:
    resolver = StaticResolver(table(tmp_path))
    with pytest.raises(NotResolved) as caught:
        asyncio.run(resolve_all(Address.parse("dtp://carol/echo"), [FakeResolver(), resolver]))
    message = str(caught.value)
    assert "can't find dtp://carol/echo (unknown to fake, peers.toml)" in message
    assert f"Add to {resolver.path}: [peers.carol] with id" in message
    with pytest.raises(NotResolved, match="there is no resolver to ask"):
        asyncio.run(resolve_all(Address.parse("dtp://carol"), []))


@pytest.mark.parametrize(
    ("asked", "advice"),
    [
        (f"dtp://{BOB}", f'[peers.NAME] with id = "{BOB}"'),
        (f"dtp://{HOST_OBJECT}", f'host = "{HOST_OBJECT}"'),
    ],
)
def test_the_advice_fits_the_address(tmp_path: Path, asked: Any, advice: Any) -> None:
    assert advice in StaticResolver(tmp_path / "x").advice(Address.parse(asked))


def test_an_answer_with_another_identity_is_not_used() -> None:
    with pytest.raises(NotResolved, match="answers with another identity"):
        asyncio.run(resolve_all(Address.parse(f"dtp://{ALICE}"), [Wrong()]))
    # For a name the resolver is the one who knows.
    assert len(asyncio.run(resolve_all(Address.parse("dtp://alice"), [Wrong()]))) == 1


def test_a_resolver_has_to_resolve() -> None:
    class Nothing(Resolver):
        name = "nothing"

    with pytest.raises(TypeError, match="abstract"):
        Nothing()  # type: ignore[abstract]


# --- The order of trying.


def at(port: Any, **fields: Any) -> Any:
    return Candidate(Address("dtp+tcp", ALICE, "h", port), **fields)


def test_priorities_go_first_and_expired_ones_are_left_out() -> None:
    candidates = [at(1, priority=2), at(2, priority=0, expires=10.0), at(3, priority=1), at(4, expires=10.5)]
    ordered = in_order(candidates, random.Random(1), now=10.0)
    assert [candidate.address.port for candidate in ordered] == [4, 3, 1]


def test_weights_share_the_first_place() -> None:
    generator = random.Random(20)
    candidates = [at(1, weight=1), at(2, weight=3)]
    first = [in_order(candidates, generator, now=0.0)[0].address.port for _ in range(4000)]
    # Binomial with p = 3/4: 3000 and a standard deviation of 27.
    assert abs(first.count(2) - 3000) < 5 * 27
