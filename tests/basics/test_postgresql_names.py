"""Which servers a URL of PostgreSQL names, as errors say it."""

from __future__ import annotations

import pytest

psycopg = pytest.importorskip("psycopg")

from dtp.postgresql import describe_fault, name_servers  # noqa: E402


@pytest.mark.parametrize(
    ("url", "named"),
    [
        ("postgresql://me:secret@box:5433/mail?sslmode=require", "box:5433"),
        ("postgresql://box/mail", "box:5432"),
        ("postgresql:///mail", "localhost:5432"),
        ("postgresql://a:1,b:2/mail", "a:1, b:2"),
        ("host=a,b port=7 password=secret", "a:7, b:7"),
        ("hostaddr=10.0.0.1 user=me", "10.0.0.1:5432"),
        ("postgresql://[", ""),
    ],
)
def test_servers_are_named_without_what_is_secret(url: str, named: str) -> None:
    assert name_servers(url) == named


def test_a_session_that_is_gone_is_said_with_its_server_and_what_a_server_says_is_not() -> None:
    url = "postgresql://me:secret@box/mail"
    assert describe_fault(psycopg.OperationalError("it closed the connection"), url) == (
        "box:5432: it closed the connection"
    )
    assert describe_fault(psycopg.DataError("too long"), url) == "too long"
    refused = 'connection to server at "box", port 5432 failed: refused'
    assert describe_fault(psycopg.OperationalError(refused), url) == refused
