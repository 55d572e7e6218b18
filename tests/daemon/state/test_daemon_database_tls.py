"""TLS with a database: what only a person mends ends a daemon for good, what may heal by itself doesn't."""

from __future__ import annotations

import asyncio
import datetime
import json
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

import pytest
import trustme
from click.testing import CliRunner

from dtp.cli.daemon import main
from dtp.daemon.state import check_url, make
from dtp.daemon.state.errors import StateError, StateUnusable
from dtp.identity import Identity
from dtp.messaging.errors import StoreUnusable

psycopg = pytest.importorskip("psycopg")
pytest.importorskip("redis")

from dtp.daemon.state.redis_vouchers import RedisVouchers  # noqa: E402
from dtp.daemon.state.vouchers import PostgresVouchers  # noqa: E402
from dtp.messaging.mailbox.postgres_store import PostgresMailbox  # noqa: E402

ASKS_FOR_TLS = bytes.fromhex("0000000804d2162f")


class Certificates(NamedTuple):
    """Files: of an issuer, of another one, of a server of 127.0.0.1, and of the same that has expired."""

    ca: Path
    other_ca: Path
    server: Path
    old: Path


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    folder = tmp_path_factory.mktemp("certificates")
    found = Certificates(*(folder / each for each in ("ca", "other", "server", "old")))
    authority = trustme.CA()
    authority.cert_pem.write_to_path(found.ca)
    trustme.CA().cert_pem.write_to_path(found.other_ca)
    authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(found.server)
    past = datetime.datetime(2021, 1, 1, tzinfo=datetime.UTC)
    before = past - datetime.timedelta(days=1)
    old = authority.issue_cert("127.0.0.1", not_before=before, not_after=past)
    old.private_key_and_cert_chain_pem.write_to_path(found.old)
    return found


@contextmanager
def database(certificate: Path | None, *, asks: bool = False, says: bytes = b"") -> Iterator[int]:
    """Give the port of a server with TLS by `certificate`, or without, that hangs up behind it. `asks`: its clients
    ask for TLS first, as those of PostgreSQL do; `says` is what it says in front of it, as NATS does."""

    def serve() -> None:
        with suppress(OSError):
            while True:
                line, _ = here.accept()
                with line, suppress(OSError):
                    line.settimeout(10)
                    line.sendall(says)
                    if asks and line.recv(8) == ASKS_FOR_TLS:
                        line.sendall(b"N" if certificate is None else b"S")
                    if certificate is not None:
                        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
                        context.load_cert_chain(certificate)
                        context.wrap_socket(line, server_side=True).close()

    with socket.create_server(("127.0.0.1", 0)) as here:
        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield here.getsockname()[1]
        finally:
            here.shutdown(socket.SHUT_RDWR)
            thread.join()


async def open_state(url: str) -> None:
    store = make(url, "host")
    try:
        await store.open()
    finally:
        await store.close()


@pytest.mark.parametrize(
    ("host", "settings", "certificate", "words"),
    [
        ("127.0.0.1", "sslmode=verify-full&sslrootcert={0.ca}", "server", None),
        ("127.0.0.1", "sslmode=verify-full&sslrootcert={0.other_ca}", "server", "certificate has to be"),
        ("localhost", "sslmode=verify-full&sslrootcert={0.ca}", "server", "certificate has to be"),
        ("localhost", "sslmode=verify-ca&sslrootcert={0.ca}", "server", None),
        ("127.0.0.1", "sslmode=verify-full&sslrootcert={0.ca}", "old", None),
        ("127.0.0.1", "sslmode=require", "", "no TLS"),
        ("127.0.0.1", "sslmode=prefer", "", None),
        (
            "127.0.0.1,127.0.0.1",
            "sslmode=verify-ca&sslrootcert={0.other_ca}",
            "server",
            "certificate has to be",
        ),
    ],
)
def test_postgresql_that_is_or_is_not_whom_the_url_means(
    certificates: Certificates, host: str, settings: str, certificate: str, words: str | None
) -> None:
    """An old certificate is renewed, and a server that hangs up may come back; another name or issuer stays."""
    with database(getattr(certificates, certificate, None), asks=True) as port:
        url = f"postgresql:///d?user=u&host={host}&port={port}&{settings.format(certificates)}"
        with pytest.raises(StateUnusable if words else StateError, match=words or "PostgreSQL"):
            asyncio.run(open_state(url))


@pytest.mark.parametrize(("issuer", "error"), [("ca", StateError), ("other_ca", StateUnusable)])
def test_redis_that_is_or_is_not_whom_the_url_means(
    certificates: Certificates, issuer: str, error: type[Exception]
) -> None:
    with database(certificates.server) as port:
        url = f"rediss://127.0.0.1:{port}/0?ssl_ca_certs={getattr(certificates, issuer)}"
        with pytest.raises(error, match="Redis"):
            asyncio.run(open_state(url))


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("postgresql://u@h/d?sslmode=nonsense", "sslmode"),
        ("postgresql://u@h/d?sslmode=verify-full&sslrootcert=/nowhere/ca.pem", "/nowhere/ca.pem"),
        ("postgresql://u@h/d?sslmode=verify-ca&sslrootcert=/etc/hostname", "/etc/hostname"),
        ("postgresql://u@h/d?sslmode=require&sslcert=/etc/hostname&sslkey=/nowhere", "/etc/hostname"),
        ("postgresql://u@h/d?gssencmode=nonsense", "gssencmode"),
        ("postgresql://u@h/d?target_session_attrs=nonsense", "target_session_attrs"),
        ("postgresql://u@h:9e9/d", "9e9"),
        ("postgresql://u@a:1,b:2,c/d?port=1,2", "2 ports of 3 hosts"),
        ("rediss://h/0?ssl_ca_certs=/nowhere/ca.pem", "settings of TLS"),
        ("rediss://h/0?ssl_cert_reqs=nonsense", "Redis"),
    ],
)
def test_settings_that_clients_do_not_take(url: str, words: str) -> None:
    """No server is asked; so `dtpd check` says them, too."""
    with pytest.raises(StateUnusable, match=words):
        check_url(url)
    with pytest.raises(StateUnusable):
        asyncio.run(open_state(url))


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://u@h/d",
        "postgresql://u:p@a:1,b:2/d?sslmode=require",
        "postgresql:///d?sslmode=verify-full&sslrootcert=/nowhere",
        "postgresql://u@h/d?sslmode=prefer&sslrootcert=/etc/hostname",
        "rediss://h/0",
    ],
)
def test_settings_that_clients_take(url: str) -> None:
    check_url(url)


def test_a_daemon_of_such_a_state_is_not_begun_again(tmp_path: Path) -> None:
    """`run` ends with 78, and `check` names the line."""
    Identity.generate().save(tmp_path / "me.pem")
    path = tmp_path / "dtpd.toml"
    path.write_text(
        '[[forward]]\nlisten = "127.0.0.1:0"\nto = "dtp://a/b"\n[identity]\nfile = "me.pem"\n'
        '[state]\nurl = "postgresql://u@127.0.0.1:9/d?sslmode=nonsense"\n[daemon]\ncontrol = "c"\n'
    )
    checked = CliRunner().invoke(main, ["check", "-c", str(path), "--json"])
    assert (checked.exit_code, json.loads(checked.stderr)["error"]["line"]) == (3, 7)
    ran = CliRunner().invoke(main, ["run", "-c", str(path)])
    assert ran.exit_code == 78
    assert "sslmode" in ran.stderr


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://u@127.0.0.1:9/d?sslmode=nonsense",
        "postgresql://u:SECRET@[::1/d",
        "rediss://127.0.0.1:9/0?ssl_ca_certs=/nowhere",
        "redis://:SECRET@127.0.0.1:9/0?socket_timeout=soon",
    ],
)
def test_vouchers_of_such_a_url(url: str) -> None:
    """No password is told."""
    with pytest.raises(StateUnusable) as raised:
        (PostgresVouchers if url.startswith("postgresql") else RedisVouchers)(url)
    assert "SECRET" not in str(raised.value)


@pytest.mark.parametrize("settings", ["?sslmode=nonsense", "?sslmode=verify-full&sslrootcert=/nowhere"])
def test_a_mailbox_of_such_a_url(settings: str) -> None:
    with pytest.raises(StoreUnusable, match="the URL takes other settings"):
        PostgresMailbox(f"postgresql://u@127.0.0.1:9/d{settings}")


def test_vouchers_in_redis_of_another_issuer(certificates: Certificates) -> None:
    with database(certificates.server) as port, pytest.raises(StateUnusable, match="certificate"):
        RedisVouchers(f"rediss://127.0.0.1:{port}/0?ssl_ca_certs={certificates.other_ca}")


@pytest.mark.slow
def test_a_mailbox_in_nats_of_an_unknown_issuer(certificates: Certificates) -> None:
    """Its client can't be closed behind that, and waited for ever."""
    pytest.importorskip("nats")
    from dtp.messaging.mailbox.nats_store import NatsMailbox

    hello = b'INFO {"server_id": "x", "version": "2.10.0", "tls_required": true, "max_payload": 1048576}\r\n'
    with database(certificates.server, says=hello) as port, pytest.raises(StoreUnusable, match="certificate"):
        NatsMailbox(f"nats://127.0.0.1:{port}/x")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("chain", "mailbox", "line", "words"),
    [
        ("rediss://127.0.0.1:{0}/0?ssl_ca_certs={1.other_ca}", "", 10, "certificate has to be"),
        ("postgresql://u@127.0.0.1:{0}/d?sslmode=verify-full&sslrootcert={1.other_ca}", "", 10, "certificate"),
        ("", "postgres://u@127.0.0.1:{0}/d?sslmode=verify-ca&sslrootcert={1.other_ca}", 17, "certificate"),
        ("rediss://127.0.0.1:{0}/0?ssl_ca_certs={1.ca}", "", 0, "vouchers in Redis"),
        ("postgresql://u@127.0.0.1:{0}/d?sslmode=verify-full&sslrootcert={1.ca}", "", 0, "[chain] PostgreSQL"),
        ("", "nats://127.0.0.1:{0}", 0, "mailbox in NATS could not be looked at"),
    ],
)  # fmt: skip
def test_check_asks_the_databases_where_it_is_told_to(
    certificates: Certificates, tmp_path: Path, chain: str, mailbox: str, line: int, words: str
) -> None:
    """What would end `run` with 78 is a mistake with its line; a server that is away a warning."""
    if mailbox.startswith("nats"):
        pytest.importorskip("nats")
    Identity.generate().save(tmp_path / "me.pem")
    path = tmp_path / "dtpd.toml"
    with database(certificates.server, asks="postgres" in chain + mailbox) as port:
        vouchers = f'vouchers = "{chain.format(port, certificates)}"' if chain else ""
        store = f'store = "{mailbox.format(port, certificates)}"' if mailbox else ""
        path.write_text(
            '[[forward]]\nlisten = "127.0.0.1:0"\nto = "dtp://a/b"\n[identity]\nfile = "me.pem"\n'
            f'[daemon]\nlisten = ["tcp://127.0.0.1:0"]\n[chain]\nnetwork = "testnet"\n{vouchers}\n'
            '[[expose]]\nservice = "m"\nkind = "mailbox"\nallow = ["*"]\n\n'
            f"[expose.mailbox]\n{store}\n"
        )
        assert CliRunner().invoke(main, ["check", "-c", str(path), "--json"]).exit_code == 0
        done = CliRunner().invoke(main, ["check", "--connect", "-c", str(path), "--json"])
    if line:
        error = json.loads(done.stderr)["error"]
        assert (done.exit_code, error["line"]) == (3, line)
        assert words in error["message"]
    else:
        assert done.exit_code == 0, done.output
        (warning,) = json.loads(done.stdout)["warnings"]
        assert words in warning
