"""Names of files: those that are taken, and those that would lead elsewhere."""

import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_files import connection_to, folders, hear, run, say

from dtp.files import (
    NameRefused,
    check_name,
    receive_file,
    serve_file,
)
from dtp.files.names import check_path, part_name

__all__ = ["folders"]


# --- Names.


@pytest.mark.parametrize(
    "name", ["a", "ä b.txt", "日本.iso", "שלום\u200f.txt", "-rf", "a" * 250, "con", "x.part", "%2e%2e"]
)
def test_names_that_are_taken(name: str) -> None:
    assert check_name(name) == name


@pytest.mark.parametrize(
    "name",
    ["", ".", "..", ".profile", "a/b", "/etc/passwd", "..\\x", "a\0b", "a\nb", "a\x1b[31m", "a\u2028b",
     "\ud800", "a" * 251, "ä" * 126, "photo\u202egpj.exe", "\u2067a"],
)  # fmt: skip
def test_names_that_are_not(name: str) -> None:
    with pytest.raises(NameRefused):
        check_name(name)


@given(st.text())
def test_a_taken_name_stays_in_its_folder(name: str) -> None:
    try:
        check_name(name)
    except NameRefused:
        return
    assert (Path("/folder") / name).parent == Path("/folder")
    assert len(os.fsencode(part_name(name))) <= 255


@given(st.text(alphabet="ab./\\\0 ", max_size=12))
def test_a_taken_path_stays_below(path: Any) -> None:
    try:
        names = check_path(path)
    except NameRefused:
        return
    assert "/".join(names) == path
    assert os.path.normpath(f"/root/{path}").startswith("/root")


@pytest.mark.parametrize("name", ["../evil", "/tmp/evil", ".bashrc", "..", "a\0b"])
def test_a_receiver_does_not_take_hostile_names(folders: Any, name: str) -> None:
    _, there = folders

    async def main() -> None:
        async with connection_to(lambda stream: receive_file(stream, there)) as connection:
            stream = await connection.open_stream()
            say(stream, op="put", version=1, name=name, size=1, mtime=0, hash="sha256")
            assert (await hear(stream))["code"] == "name"
            with pytest.raises(NameRefused):
                await connection.outcome

    run(main())
    assert os.listdir(there) == []


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("../secret", "name"),
        ("a/../../secret", "name"),
        ("/etc/passwd", "name"),
        (".hidden", "name"),
        ("link", "missing"),
        ("folder-link/secret", "missing"),
        ("a", "missing"),
        ("", "missing"),
        ("none", "missing"),
        ("a/none", "missing"),
        ("a//b", "name"),
        ("fifo", "io"),
        ("x" * 2000, "protocol"),
    ],
)
def test_a_server_gives_nothing_from_elsewhere(folders: Any, tmp_path: Path, path: Any, code: Any) -> None:
    here, _ = folders
    (tmp_path / "secret").write_bytes(b"s")
    (here / "a").mkdir()
    (here / ".hidden").write_bytes(b"h")
    os.mkfifo(here / "fifo")
    (here / "link").symlink_to(tmp_path / "secret")
    (here / "folder-link").symlink_to(tmp_path)

    async def main() -> None:
        async with connection_to(lambda stream: serve_file(stream, here)) as connection:
            stream = await connection.open_stream()
            say(stream, op="get", version=1, name=path)
            answer = await hear(stream)
            assert (answer["op"], answer["code"]) == ("refuse", code)
            assert str(tmp_path) not in answer["message"]

    run(main())
