"""Files that are replaced whole."""

import os
import stat

import pytest

from dtp.replacing import remove_scratch, rename_without_replacing, replace_file, replacing


class Killed(BaseException):
    """The program ends here."""


@pytest.mark.parametrize("step", ["fsync", "replace"])
@pytest.mark.parametrize("before", [None, b"before"])
def test_a_path_has_what_it_had_until_all_is_written(tmp_path, monkeypatch, step, before):
    path = tmp_path / "file"
    if before is not None:
        path.write_bytes(before)

    def killed(*_: object) -> None:
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(os, step, killed)
        with pytest.raises(Killed):
            replace_file(path, b"behind")
    assert (path.read_bytes() if path.exists() else None) == before
    assert os.listdir(tmp_path) == ([] if before is None else ["file"])
    replace_file(path, b"behind")
    assert path.read_bytes() == b"behind"
    assert os.listdir(tmp_path) == ["file"]


def test_what_raises_in_the_block_leaves_the_path_as_it_was(tmp_path):
    path = tmp_path / "file"
    replace_file(path, b"before")

    def broken_off():
        with replacing(path) as file:
            file.write(b"half")
            raise Killed

    with pytest.raises(Killed):
        broken_off()
    assert path.read_bytes() == b"before"
    assert os.listdir(tmp_path) == ["file"]


def test_a_new_file_takes_no_name_that_something_has(tmp_path):
    path = tmp_path / "file"
    replace_file(path, b"first", new=True)
    with pytest.raises(FileExistsError) as caught:
        replace_file(path, b"second", new=True)
    assert caught.value.filename == str(path)
    assert path.read_bytes() == b"first"
    assert os.listdir(tmp_path) == ["file"]


@pytest.mark.parametrize("is_there", [True, False])
def test_what_cannot_be_renamed_leaves_no_file_of_its_new_name(tmp_path, is_there):
    source = tmp_path / "source"
    if is_there:
        source.mkdir()  # which has no hard links, and takes no file's name
    with pytest.raises(NotADirectoryError if is_there else FileNotFoundError):
        rename_without_replacing(source, tmp_path / "target")
    assert os.listdir(tmp_path) == (["source"] if is_there else [])


def test_nobody_but_the_owner_can_read_it(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"open to all")
    path.chmod(0o644)
    before = os.umask(0o277)  # takes the owner's right to write, too
    try:
        replace_file(path, b"secret")
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_what_kills_left_of_writing_a_path_is_removed_and_nothing_else(tmp_path):
    path = tmp_path / "a[b].show"
    replace_file(path, b"kept")
    for name in (".a[b].show.x1y2", ".a[b].show.z3", ".ab.show.x1", ".a[b].shows.x1"):
        (tmp_path / name).write_bytes(b"a part")
    remove_scratch(path)
    assert sorted(os.listdir(tmp_path)) == [".a[b].shows.x1", ".ab.show.x1", "a[b].show"]
