"""`dtp topic pub` and `sub`: what one process publishes another prints, signed, also by a key that both have."""

import json
import secrets

import pytest

QUIET = ("--discover", "none", "--listen", "tcp://127.0.0.1:0")


def start_reader(dtp, *options):
    """A process that reads a topic, and where it listens."""
    reader = dtp("topic", "sub", "weather", "--json", *QUIET, *options)
    return reader, reader.event("listening")["address"]


def test_what_is_published_is_printed_with_its_author(dtp):
    reader, address = start_reader(dtp, "--count", "2")
    writer = dtp("topic", "pub", "weather", "21.5", "20.0", "--json", *QUIET, "--bootstrap", address)
    published = [json.loads(line) for line in writer.wait().splitlines()]
    found = [reader.event("message"), reader.event("message")]
    assert [each["data"] for each in found] == ["21.5", "20.0"]
    assert [each["id"] for each in found] == [each["id"] for each in published]
    assert found[0]["author"].startswith("dtp1")
    assert found[0]["topic"] == "weather"
    reader.wait()


def test_lines_of_standard_input_are_messages(dtp):
    reader, address = start_reader(dtp, "--count", "3")
    writer = dtp("topic", "pub", "weather", *QUIET, "--bootstrap", address)
    writer.stdin.write(b"one\ntwo\nthree\n")
    writer.stdin.close()
    assert [reader.event("message")["data"] for _ in range(3)] == ["one", "two", "three"]
    writer.wait()
    reader.wait()


@pytest.mark.slow
def test_private_topics_are_printed_by_holders_of_the_key(dtp, tmp_path):
    key = tmp_path / "topic.key"
    key.touch(0o600)
    key.write_text(secrets.token_urlsafe())
    reader, address = start_reader(dtp, "--count", "1", "--key-file", str(key))
    outsider = dtp("topic", "pub", "weather", "x", "--wait", "1", *QUIET, "--bootstrap", address)
    outsider.wait(5)
    assert b"nobody connected has the topic" in outsider.errors
    insider = dtp("topic", "pub", "weather", "secret", "--key-file", str(key), *QUIET, "--bootstrap", address)
    insider.wait()
    assert reader.event("message")["data"] == "secret"
    reader.wait()
