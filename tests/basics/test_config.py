"""Paths from the environment, and TOML whose every fault has a place."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dtp import config
from dtp.config import ConfigFileError, read_toml
from dtp.errors import ConfigError

VARIABLES = ("DTP_HOME", "DTP_IDENTITY", "DTP_PEERS")


@pytest.fixture(autouse=True)
def clean(monkeypatch, tmp_path):
    for variable in VARIABLES:
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    for variable in ("XDG_CONFIG_HOME", "XDG_DATA_HOME"):
        monkeypatch.delenv(variable, raising=False)


@pytest.mark.skipif("sys.platform != 'linux'", reason="the convention of Linux")
def test_the_convention_of_linux(tmp_path, monkeypatch):
    assert config.config_dir() == tmp_path / ".config/dtp"
    assert config.data_dir() == tmp_path / ".local/share/dtp"
    assert config.identity_path() == tmp_path / ".config/dtp/identity.pem"
    assert config.peers_path() == tmp_path / ".config/dtp/peers.toml"
    monkeypatch.setenv("XDG_CONFIG_HOME", "/elsewhere")
    assert config.peers_path() == Path("/elsewhere/dtp/peers.toml")


def test_the_variables(monkeypatch, tmp_path):
    monkeypatch.setenv("DTP_HOME", "~/all")
    assert config.config_dir() == tmp_path / "all"
    assert config.data_dir() == tmp_path / "all/data"
    assert config.identity_path() == tmp_path / "all/identity.pem"
    monkeypatch.setenv("DTP_IDENTITY", "/run/secrets/dtp")
    monkeypatch.setenv("DTP_PEERS", "relative.toml")
    assert config.identity_path() == Path("/run/secrets/dtp")
    assert config.peers_path() == Path("relative.toml")
    monkeypatch.setenv("DTP_IDENTITY", "")
    assert config.identity_path() == tmp_path / "all/identity.pem"


def test_a_home_that_does_not_exist(monkeypatch):
    monkeypatch.setenv("DTP_HOME", "~nobody-of-this-name/x")
    with pytest.raises(ConfigError, match=r"\$DTP_HOME is '~nobody-of-this-name/x'"):
        config.config_dir()


def write(tmp_path, text):
    path = tmp_path / "some.toml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


@pytest.mark.parametrize(
    ("text", "place", "reason"),
    [
        ("a = 1\nb = \n", ":2:5", "invalid value"),
        ("a = 1\na = 2\n", ":2:6", "cannot overwrite a value"),
        ('a = 1\n\nb = "x', ":3", "unterminated|expected|illegal"),
        (b"a = 1\nb = '\xff'\n", ":2", "UTF-8"),
    ],
)
def test_syntax_errors_have_a_place(tmp_path, text, place, reason):
    path = write(tmp_path, text)
    with pytest.raises(ConfigFileError, match=reason) as caught:
        read_toml(path)
    assert str(caught.value).startswith(f"{path}{place}: ")
    assert f":{caught.value.line}" == ":" + place.split(":")[1]


def test_files_that_can_not_be_read(tmp_path):
    with pytest.raises(ConfigFileError, match="there is no such file"):
        read_toml(tmp_path / "none.toml")
    with pytest.raises(ConfigFileError, match="can't be read: Is a directory"):
        read_toml(tmp_path)


def test_values_of_each_kind(tmp_path):
    table = read_toml(write(tmp_path, 'a = "x"\nb = 1\nc = 1.5\nd = true\ne = ["x", "y"]\n[f]\ng = 2\n'))
    assert table.get("a", str) == "x"
    assert table.get("b", int) == 1
    assert table.get("b", float) == 1.0
    assert isinstance(table.get("b", float), float)
    assert table.get("c", float) == 1.5
    assert table.get("d", bool) is True
    assert table.texts("e") == ["x", "y"]
    assert table.table("f").get("g", int) == 2
    assert table.get("z", str, "default") == "default"
    assert table.get("z", str, None) is None
    assert table.texts("z") == []
    assert list(table.table("z").tables()) == []
    table.finish()


@pytest.mark.parametrize(
    ("text", "ask", "message"),
    [
        ("x = true", lambda t: t.get("x", int), ":1: x has to be a whole number, not True"),
        ("\nx = 1", lambda t: t.get("x", bool), ":2: x has to be true or false, not 1"),
        ("x = 1.5", lambda t: t.get("x", int), ":1: x has to be a whole number, not 1.5"),
        ("x = 1", lambda t: t.get("x", str), ":1: x has to be text, not 1"),
        ("x = 1", lambda t: t.texts("x"), ":1: x has to be an array of texts, not 1"),
        ("x = [1]", lambda t: t.texts("x"), ":1: x has to be an array of texts, not [1]"),
        ("x = 1", lambda t: t.table("x"), ":1: x has to be a table ([x]), not 1"),
        ("", lambda t: t.get("x", str), ": the file needs x = ... (text)"),
        (
            "#\n[a.b]\n",
            lambda t: t.table("a").table("b").get("x", int),
            ":2: a.b needs x = ... (a whole number)",
        ),
        ('[a."b c"]\nx=1', lambda t: t.table("a").table("b c").get("x", str), ':2: a."b c".x has to be text'),
        (
            "portt = 1",
            lambda t: (t.get("port", int, 0), t.finish()),
            ":1: portt is not a setting; did you mean port?",
        ),
        ("q = 1", lambda t: (t.get("port", int, 0), t.finish()), ":1: q is not a setting; known here: port"),
    ],
)
def test_faults_have_a_place(tmp_path, text, ask, message):
    path = write(tmp_path, text)
    with pytest.raises(ConfigFileError) as caught:
        ask(read_toml(path))
    assert str(caught.value).startswith(f"{path}{message}")


TRICKY = '''
text = """
wanted = 1
[a]
"""
list = [
  "wanted",
  "x",
]
a.wanted = 1   # dotted
[b]
"wanted" = """
two lines"""
[[c]]
x = 1
[[c]]
wanted = 2
'''


@pytest.mark.parametrize(
    ("key", "line"),
    [
        (("text",), 2),
        (("list",), 6),
        (("list", 1), 6),
        (("a", "wanted"), 10),
        (("b",), 11),
        (("b", "wanted"), 12),
        (("c", 0), 14),
        (("c", 1), 16),
        (("c", 1, "wanted"), 17),
    ],
)
def test_the_line_is_exact_in_spite_of_look_alikes(tmp_path, key, line):
    document = read_toml(write(tmp_path, TRICKY))._document
    assert document.line_of(key) == line


@given(st.integers(0, 60), st.integers(0, 60))
def test_the_line_of_each_of_many(before, after):
    text = "".join(f"k{number} = [\n{number}\n]\n" for number in range(before))
    text += "wanted = 1\n" + "".join(f"z{number} = 1\n" for number in range(after))
    document = config._Document(Path("x"), text)
    assert document.line_of(("wanted",)) == 3 * before + 1
