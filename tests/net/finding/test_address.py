"""Addresses: text and value are inverse, and a mistake is told where it is and what was meant."""

import contextlib
import pickle
from typing import Any
from urllib.parse import urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dtp.errors import LocalError
from dtp.identity import Identity, PeerId
from dtp.net.address import (
    FORMS,
    MAX_SERVICE_SIZE,
    Address,
    AddressError,
    check_petname,
    check_service,
    check_told,
)
from dtp.testing.strategies import addresses

PEER = Identity(bytes(range(32)), bytes(32)).id
OTHER = Identity(bytes(range(1, 33)), bytes(32)).id
HOST_OBJECT = "0x" + "5a" * 32

# --- Every form, taken apart.

EXAMPLES = [
    (
        f"dtp+tcp://{PEER}@127.0.0.1:9000/echo",
        {"host": "127.0.0.1", "port": 9000, "service": "echo"},
        "tcp://127.0.0.1:9000",
    ),
    (
        f"dtp+tcp://{PEER}@[2001:db8::7]:9000",
        {"host": "2001:db8::7", "port": 9000},
        "tcp://[2001:db8::7]:9000",
    ),
    (
        f"dtp+tcp://{PEER}@[fe80::1%25eth0]:9/x",
        {"host": "fe80::1%eth0", "port": 9, "service": "x"},
        "tcp://[fe80::1%25eth0]:9",
    ),
    (
        f"dtp+tcp://{PEER}@relay.example.org:443/db/replica?cipher=aes",
        {"host": "relay.example.org", "port": 443, "service": "db/replica", "query": (("cipher", "aes"),)},
        "tcp://relay.example.org:443",
    ),
    (
        f"dtp+tcp://{PEER}@h:1/s?carrier.nodelay=0&x=%26%3D",
        {"host": "h", "port": 1, "service": "s", "query": (("carrier.nodelay", "0"), ("x", "&="))},
        "tcp://h:1?nodelay=0",
    ),
    (
        f"dtp+relay://{PEER}@h:9/x?carrier.relay={PEER}",
        {"host": "h", "port": 9, "service": "x", "query": (("carrier.relay", str(PEER)),)},
        f"relay://h:9?relay={PEER}&target={PEER}",
    ),
    (f"dtp+quic://{PEER}@h:9/x", {"host": "h", "port": 9, "service": "x"}, "quic://h:9"),
    (f"dtp+ws://{PEER}@h.example/echo", {"host": "h.example", "service": "echo"}, "ws://h.example"),
    (
        f"dtp+wss://{PEER}@h.example:8443/echo?path=/dtp/x",
        {"host": "h.example", "port": 8443, "path": "/dtp/x", "service": "echo"},
        "wss://h.example:8443/dtp/x",
    ),
    (
        f"dtp+unix://{PEER}@/run/dtp%20a.sock?service=echo&x=1",
        {"path": "/run/dtp a.sock", "service": "echo", "query": (("x", "1"),)},
        "unix:///run/dtp%20a.sock",
    ),
    (f"dtp+unix://{PEER}@/run/%3F%23.sock", {"path": "/run/?#.sock"}, "unix:///run/%3F%23.sock"),
    (f"dtp+memory://{PEER}@test-1/echo", {"host": "test-1", "service": "echo"}, "memory://test-1"),
    (
        f"dtp+pipe://{PEER}@{HOST_OBJECT}/echo?carrier.service=7",
        {"host": HOST_OBJECT, "service": "echo", "query": (("carrier.service", "7"),)},
        f"pipe://{HOST_OBJECT}?service=7",
    ),
]


@pytest.mark.parametrize(("text", "fields", "carrier_url"), EXAMPLES, ids=[row[0][:20] for row in EXAMPLES])
def test_direct(text: str, fields: Any, carrier_url: Any) -> None:
    address = Address.parse(text)
    assert address == Address(text.partition(":")[0], PEER, **fields)
    assert str(address) == text
    assert address.carrier_url == carrier_url
    assert address.is_direct
    again = Address.direct(PEER, carrier_url, address.service)
    assert again.carrier_url == carrier_url
    assert (again.peer, again.host, again.port, again.path) == (
        PEER,
        address.host,
        address.port,
        address.path,
    )


@pytest.mark.parametrize(
    ("text", "fields"),
    [
        (f"dtp://{PEER}/echo", {"peer": PEER, "service": "echo"}),
        (f"dtp://{PEER}", {"peer": PEER}),
        (
            f"dtp://{HOST_OBJECT}/db/replica?x=1",
            {"host_object": HOST_OBJECT, "service": "db/replica", "query": (("x", "1"),)},
        ),
        ("dtp://alice/echo", {"name": "alice", "service": "echo"}),
        ("dtp://shop.example-1_2/", {"name": "shop.example-1_2"}),
    ],
)
def test_resolved(text: str, fields: Any) -> None:
    address = Address.parse(text)
    assert address == Address("dtp", **fields)
    assert Address.parse(str(address)) == address
    assert not address.is_direct
    with pytest.raises(AddressError, match="a resolver has to find one"):
        _ = address.carrier_url


@pytest.mark.parametrize(
    ("spelled", "meant"),
    [
        (f"DTP+TCP://{str(PEER).upper()}@Example.ORG:9000/Echo", f"dtp+tcp://{PEER}@example.org:9000/Echo"),
        (f"dtp+tcp://{PEER}@[FE80::1%25Eth0]:9/", f"dtp+tcp://{PEER}@[fe80::1%25Eth0]:9"),
        (f"dtp+tcp://{PEER}@[fe80::1%eth0]:9/", f"dtp+tcp://{PEER}@[fe80::1%25eth0]:9"),
        (f"dtp+tcp://{PEER}@h:0009/", f"dtp+tcp://{PEER}@h:9"),
        (f"dtp+tcp://{PEER}@h:9/%65cho", f"dtp+tcp://{PEER}@h:9/echo"),
        ("dtp://Alice/é", "dtp://alice/%C3%A9"),
        (f"dtp://{HOST_OBJECT.upper().replace('X', 'x')}/", f"dtp://{HOST_OBJECT}"),
        (f"dtp+unix://{PEER}@/s?x=1&service=a", f"dtp+unix://{PEER}@/s?service=a&x=1"),
    ],
)
def test_other_spellings(spelled: Any, meant: Any) -> None:
    assert str(Address.parse(spelled)) == meant


# --- Text and value are inverse.


@given(addresses())
def test_text_and_back(address: Any) -> None:
    text = str(address)
    assert Address.parse(text) == address
    assert hash(Address.parse(text)) == hash(address)
    assert text.isascii()
    assert pickle.loads(pickle.dumps(address)) == address


@given(addresses())
def test_the_standard_parser_agrees(address: Any) -> None:
    parts = urlsplit(str(address))
    assert parts.scheme == address.scheme
    if address.host:
        assert parts.username == str(address.peer)
        assert (parts.hostname or "").replace("%25", "%").lower() == address.host.lower()
        assert parts.port == address.port
    if address.is_direct:
        assert urlsplit(address.carrier_url).scheme == FORMS[address.scheme].carrier


near_misses = st.one_of(
    st.text(max_size=60),
    st.text("dtp1+:/@?&=%[].tcpx09é", max_size=60),
    st.text(max_size=20).map(f"dtp+tcp://{PEER}@h:1/".__add__),
    st.text("h:[]%/?1@é", max_size=20).map(f"dtp+ws://{PEER}@".__add__),
)


@given(near_misses)
def test_any_text_is_an_address_or_refused(text: str) -> None:
    try:
        address = Address.parse(text)
    except AddressError as error:
        message = str(error)
    else:
        message = ""
        assert Address.parse(str(address)) == address
    assert message == "" or repr(text) in message


# --- Services and petnames.


@pytest.mark.parametrize(
    "name", ["", "echo", "db/replica", "a b", "日本", "x" * MAX_SERVICE_SIZE, "é" * 127, "a//b/"]
)
def test_services(name: str) -> None:
    check_service(name)
    assert Address.parse(str(Address("dtp", PEER, service=name))).service == name


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("x" * 256, "256 bytes"),
        ("é" * 128, "256 bytes"),
        ("a\nb", "control"),
        ("a\u2028b", "control"),
        (" a", "space"),
        ("a ", "space"),
        ("/a", "begin with '/'"),
        ("e\u0301", "normal form C"),
        ("\ud800", "surrogate"),
    ],
)
def test_what_is_no_service(name: str, reason: Any) -> None:
    with pytest.raises(AddressError, match=reason):
        check_service(name)
    with pytest.raises(AddressError, match=reason):
        Address("dtp", PEER, service=name)


@pytest.mark.parametrize("name", ["Alice", "", "-a", "a b", "é", "x" * 64, "dtp1abc", "0xab", "10.0.0.1"])
def test_what_is_no_petname(name: str) -> None:
    with pytest.raises(AddressError):
        check_petname(name)


# --- Mistakes.

MISTAKES = [
    ("", "not a URL"),
    ("echo", "not a URL"),
    ("alice/echo", "not a URL"),
    ("Alice/echo", "or, for a peer in peers.toml, dtp://Alice/echo"),
    (f"{PEER}/echo", f"scheme is missing; did you mean dtp://{PEER}/echo"),
    (f"{PEER}@h:1/echo", f"scheme is missing; did you mean dtp+tcp://{PEER}@h:1/echo"),
    (f"dtp:{PEER}/echo", "'//' is missing after 'dtp:'"),
    (f"tcp://{PEER}@h:1/echo", "did you mean dtp+tcp:?"),
    (f"ws://{PEER}@h:1/echo", "did you mean dtp+ws:?"),
    ("https://example.org/", "did you mean dtp+wss:?"),
    (f"dtp+tpc://{PEER}@h:1/", "did you mean dtp+tcp:?"),
    ("ftp2000://x/", "known: dtp, "),
    ("dtp+tcp://127.0.0.1:9000/echo", "does not say who has to answer"),
    ("dtp+tcp://127.0.0.1:9000/echo", "dtp+tcp://dtp1...@127.0.0.1:9000/echo"),
    (f"dtp+tcp://{PEER}/echo", f"did you mean dtp://{PEER}/echo, or dtp+tcp://{PEER}@host:port"),
    (f"dtp+unix://{PEER}/run/x", f"dtp+unix://{PEER}@/run/dtp.sock"),
    ("dtp+unix:///run/x", "does not say who has to answer"),
    (f"dtp+unix://{PEER}@host/run/x", "a path has no host 'host'"),
    (f"dtp+unix://{PEER}@", "needs the absolute path"),
    (f"dtp+unix://{PEER}@/", "needs the absolute path"),
    (f"dtp+unix://{PEER}@/x%00y", "can't be in one"),
    (f"dtp+tcp://{PEER}@h/echo", "needs a port after the host, as in h:9000"),
    (f"dtp+tcp://{PEER}@:9000/", "there is no host"),
    (f"dtp+tcp://{PEER}@h:0/", "no port 0"),
    (f"dtp+tcp://{PEER}@h:65536/", "no port 65536"),
    (f"dtp+tcp://{PEER}@h:http/", "'http' is not a port"),
    (f"dtp+tcp://{PEER}@h:٣/", "'٣' is not a port"),
    (f"dtp+tcp://{PEER}@::1:9000/", "stands in brackets"),
    (f"dtp+tcp://{PEER}@[::1:9000/", "in brackets with a port"),
    (f"dtp+tcp://{PEER}@[::1]9000/", "in brackets with a port"),
    (f"dtp+tcp://{PEER}@[::zz]:9000/", "not an IPv6 address"),
    (f"dtp+tcp://{PEER}@[h]:9000/", "only IPv6 addresses stand in brackets"),
    (f"dtp+tcp://{PEER}@[fe80::1%25a/b]:9000/", "in brackets with a port"),
    (f"dtp+tcp://{PEER}@[fe80::1%25a!]:9000/", "the zone 'a!'"),
    (f"dtp+tcp://{PEER}@bücher.example:9000/", "not ASCII"),
    (f"dtp+tcp://{PEER}@a..b:9000/", "neither a host name nor an IP address"),
    (f"dtp+tcp://{PEER}@{'a' * 64}:9000/", "neither a host name nor an IP address"),
    (f"dtp+tcp://{PEER}:secret@h:1/", "no passwords"),
    ("dtp+tcp://alice@h:1/", "not a peer's name"),
    (f"dtp+tcp://{str(PEER)[:-1]}@h:1/", "61 characters, too few"),
    ("dtp:///echo", "whom?"),
    ("dtp://127.0.0.1/echo", "an IP address, not a peer"),
    ("dtp://127.0.0.1:9000/echo", "did you mean dtp+tcp://dtp1...@127.0.0.1:9000/echo"),
    (f"dtp://{PEER}@h:1/echo", f"did you mean dtp+tcp://{PEER}@h:1/echo"),
    ("dtp://0x12/echo", "is not an object id"),
    (f"dtp://{HOST_OBJECT[:-1]}g/echo", "is not an object id"),
    (f"dtp://{PEER}x/echo", "63 characters, too many"),
    (f"dtp://{PEER}/a b", "character 71 (' ')"),
    (f"dtp://{PEER}/a\n", "character 71 ('\\n')"),
    (f"dtp://{PEER}/a#b", "no fragment (#b)"),
    (f"dtp://{PEER}/%zz", "needs two hex digits"),
    (f"dtp://{PEER}/100%", "needs two hex digits"),
    (f"dtp://{PEER}/%ff", "does not decode to UTF-8"),
    (f"dtp://{PEER}//a", "begin with '/'"),
    (f"dtp://{PEER}/a?b", "has no value; write b="),
    (f"dtp://{PEER}/a?x=1&", "has no value"),
    (f"dtp://{PEER}/a?x=1&x=2", "given twice"),
    (f"dtp://{PEER}/a?X=1", "can't be called 'X'"),
    (f"dtp+ws://{PEER}@h/a?path=/x&path=/y", "given twice"),
    (f"dtp+ws://{PEER}@h/a?path=x", "has to start with '/'"),
    ("dtp://" + "x" * 5000, "5006 characters"),
]


@pytest.mark.parametrize(("text", "reason"), MISTAKES, ids=[row[1][:40] for row in MISTAKES])
def test_mistakes(text: str, reason: Any) -> None:
    with pytest.raises(AddressError) as caught:
        Address.parse(text)
    assert reason in str(caught.value)
    assert isinstance(caught.value, LocalError | ValueError)
    assert str(caught.value).startswith(repr(text)) or len(text) > 4096


@pytest.mark.parametrize("value", [None, b"dtp://x", 7])
def test_only_text_is_parsed(value: Any) -> None:
    with pytest.raises(AddressError, match="is a str, not"):
        Address.parse(value)


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"scheme": "tcp", "peer": PEER}, "no scheme 'tcp'"),
        ({"scheme": "dtp"}, "exactly one of"),
        ({"scheme": "dtp", "peer": PEER, "name": "alice"}, "exactly one of"),
        ({"scheme": "dtp", "peer": PEER, "host": "h"}, "no host and port"),
        ({"scheme": "dtp", "peer": PEER, "path": "/x"}, "no path"),
        ({"scheme": "dtp", "name": "dtp1x"}, "looks like an identity"),
        ({"scheme": "dtp", "peer": PEER, "query": (("x", "\ud800"),)}, "surrogate"),
        ({"scheme": "dtp+tcp", "host": "h", "port": 1}, "needs a peer"),
        (
            {"scheme": "dtp+tcp", "peer": PEER, "host": "h", "port": 1, "name": "alice"},
            "no host object or name",
        ),
        ({"scheme": "dtp+tcp", "peer": PEER, "host": "h", "port": 1, "path": "/x"}, "no path"),
        ({"scheme": "dtp+unix", "peer": PEER, "path": "/x", "port": 1}, "no host and port"),
        ({"scheme": "dtp+unix", "peer": PEER, "path": "run/x"}, "start with '/'"),
        ({"scheme": "dtp+unix", "peer": PEER, "path": "/x", "query": (("service", "a"),)}, "not an option"),
        ({"scheme": "dtp+ws", "peer": PEER, "host": "h", "query": (("path", "/a"),)}, "not an option"),
    ],
)
def test_what_is_built_is_checked(fields: Any, reason: Any) -> None:
    with pytest.raises(AddressError, match=reason):
        Address(**fields)


# --- Used in code.


def test_a_known_peer_may_be_left_out() -> None:
    expected = Address("dtp+tcp", PEER, "h", 1)
    assert Address.parse("dtp+tcp://h:1", peer=PEER) == expected
    assert Address.parse(f"dtp+tcp://{PEER}@h:1", peer=PEER) == expected
    assert Address.parse("dtp+unix:///run/x", peer=PEER) == Address("dtp+unix", PEER, path="/run/x")
    with pytest.raises(AddressError, match=f"this is of {OTHER}, but {PEER} is meant"):
        Address.parse(f"dtp+tcp://{OTHER}@h:1", peer=PEER)


def test_options() -> None:
    address = Address.parse(f"dtp+tcp://{PEER}@h:1/?cipher=aes&carrier.nodelay=1")
    assert dict(address.options) == {"cipher": "aes"}
    with pytest.raises(TypeError):
        address.options["x"] = "y"  # type: ignore[index]
    address.check_options({"cipher"})
    with pytest.raises(AddressError, match="no option 'cipher'; did you mean 'ciphers'"):
        address.check_options({"ciphers", "psk"})
    with pytest.raises(AddressError, match="known: none"):
        address.check_options(())


def test_with_service() -> None:
    address = Address.parse(f"dtp+ws://{PEER}@h/a?path=/p")
    assert str(address.with_service("b/c")) == f"dtp+ws://{PEER}@h/b/c?path=/p"
    assert address.service == "a"


@pytest.mark.parametrize("url", ["udp://h:1", "h:1", "dtp+tcp://h:1", ""])
def test_a_url_of_no_carrier(url: str) -> None:
    with pytest.raises(AddressError, match="no carrier in addresses"):
        Address.direct(PEER, url)


def test_every_form_is_in_the_examples() -> None:
    assert {row[0].partition(":")[0] for row in EXAMPLES} | {"dtp"} == set(FORMS)
    assert all(
        isinstance(PeerId.parse(row[0][len("dtp+") :].partition("//")[2].partition("@")[0]), PeerId)
        for row in EXAMPLES
    )


# --- What others tell.


@pytest.mark.parametrize(
    ("text", "is_dialled"),
    [
        (f"dtp+tcp://{PEER}@h:9/x", True),
        (f"dtp+relay://{PEER}@h:9/x?carrier.relay={PEER}", True),
        (f"dtp://{PEER}/x", True),
        (f"dtp://{HOST_OBJECT}/x", True),
        (f"dtp://{HOST_OBJECT}/x?via=direct", True),
        (f"dtp+wss://{PEER}@h/x?path=/dtp&carrier.key=1", True),  # the server's own option
        (f"dtp+wss://{PEER}@h/x?carrier.ca=/dev/stdin", False),  # reading that stops the program
        (f"dtp+ws://{PEER}@h/x?carrier.proxy=http://127.0.0.1:6379", False),
        (f"dtp+wss://{PEER}@h/x?carrier.proxy=none", False),
        (f"dtp://{PEER}/x?carrier.ca=/dev/stdin", False),
        ("dtp://alice/x", False),  # out of a table of this machine
        ("that is none", True),  # it leads nowhere, and dialling it says so
        (f"dtp+unix://{PEER}@/run/dtp.sock", False),
        (f"dtp+pipe://{PEER}@{HOST_OBJECT}/x", False),
        (f"DTP+PIPE://{PEER}@{HOST_OBJECT}/x", False),
        (f"dtp://{HOST_OBJECT}/x?via=pipe", False),
        (f"dtp://{HOST_OBJECT}/x?network=mainnet&via=%61ny", False),
    ],
)
def test_nobody_dials_this_machine_or_pays_because_somebody_else_says_so(text: str, is_dialled: Any) -> None:
    with (
        contextlib.nullcontext() if is_dialled else pytest.raises(AddressError, match="told by somebody else")
    ):
        check_told(text)
