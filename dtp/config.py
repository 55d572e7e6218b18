"""Where files are, and TOML files read so that every complaint names file and line.

Paths come from the environment or from the platform's convention (`platformdirs`):

| what | variable | without it, on Linux |
|---|---|---|
| folder of all that follows | `DTP_HOME` | `~/.config/dtp` for settings, `~/.local/share/dtp` for data |
| identity file | `DTP_IDENTITY` | `identity.pem` in the settings folder |
| peer table | `DTP_PEERS` | `peers.toml` in the settings folder |
| vouchers that are held, keys of channels | `DTP_PAY_STORE` | `pay.sqlite` in the data folder |

The environment is read at each call, so a test or a program may change it.
"""

from __future__ import annotations

import bisect
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, overload

from dtp.errors import ConfigError

_Value = TypeVar("_Value", str, int, float, bool)
_Default = TypeVar("_Default")
#: A place in a TOML document: names of tables and keys, numbers in arrays.
_KeyPath = tuple[str | int, ...]

_REQUIRED: Any = object()
_TOML_KINDS = {str: "text", int: "a whole number", float: "a number", bool: "true or false"}
# tomllib says the place only in words before Python 3.14.
_PLACE = re.compile(r" \(at (?:line (?P<line>\d+), column (?P<column>\d+)|end of document)\)$")
_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")


class ConfigFileError(ConfigError):
    """A configuration file can't be used. `line` and `column` count from 1 and are 0 where there is none."""

    code = "config-file"

    def __init__(self, message: str, path: Path, line: int = 0, column: int = 0) -> None:
        place = "".join(f":{number}" for number in (line, column) if number)
        super().__init__(f"{path}{place}: {message}")
        self.path, self.line, self.column = path, line, column


def config_dir() -> Path:
    """Return the folder of settings: `$DTP_HOME`, else the platform's. It need not exist."""
    return _from_environment("DTP_HOME") or _platform("user_config_path")


def data_dir() -> Path:
    """Return the folder of what programs keep (stores, unfinished transfers): `$DTP_HOME/data` or the platform's."""
    home = _from_environment("DTP_HOME")
    return home / "data" if home else _platform("user_data_path")


def identity_path() -> Path:
    """Return the identity file used when none is named: `$DTP_IDENTITY`, else `identity.pem` in `config_dir()`."""
    return _from_environment("DTP_IDENTITY") or config_dir() / "identity.pem"


def peers_path() -> Path:
    """Return the table of known peers: `$DTP_PEERS`, else `peers.toml` in `config_dir()`."""
    return _from_environment("DTP_PEERS") or config_dir() / "peers.toml"


def pay_store_path() -> Path:
    """Return the store of vouchers when none is named: `$DTP_PAY_STORE`, else `pay.sqlite` in `data_dir()`."""
    if "://" in os.environ.get("DTP_PAY_STORE", ""):  # not quoted: it may have a password in it
        raise ConfigError("$DTP_PAY_STORE is a file; a database of daemons is named by 'dtp channel --store'")
    return _from_environment("DTP_PAY_STORE") or data_dir() / "pay.sqlite"


def _from_environment(variable: str) -> Path | None:
    value = os.environ.get(variable)
    if not value:  # set to nothing is how a shell takes a variable back for one command
        return None
    try:
        return Path(value).expanduser()
    except RuntimeError as error:
        raise ConfigError(f"${variable} is {value!r}, which can't be expanded: {error}") from None


def _platform(function: str) -> Path:
    import platformdirs

    path: Path = getattr(platformdirs, function)("dtp", appauthor=False)
    return path


def read_toml(path: Path) -> TomlTable:
    """Return the root table of the TOML file at `path`.

    Raises `ConfigFileError`: the file is missing, can't be read, is not UTF-8 or not TOML 1.0.
    """
    import tomllib  # most programs have no such file, and it is 0.2 MB

    try:
        text = path.read_bytes().decode()
    except FileNotFoundError:
        raise ConfigFileError("there is no such file", path) from None
    except OSError as error:
        raise ConfigFileError(f"can't be read: {error.strerror or error}", path) from error
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise ConfigFileError("is not UTF-8 text", path, line) from None
    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        message, place = str(error), _PLACE.search(str(error))
        line, column = 0, 0
        if place:
            message = message[: place.start()]
            # At the end of the document there is no number; it is the last line.
            line = int(place["line"] or len(text.splitlines()) or 1)
            column = int(place["column"] or 0)
        raise ConfigFileError(message[:1].lower() + message[1:], path, line, column) from None
    return TomlTable(_Document(path, text), (), values)


@dataclass(frozen=True)
class _Document:
    path: Path
    text: str

    def line_of(self, key: _KeyPath) -> int:
        """Return the line (from 1) where the value at `key` begins: the shortest beginning of the file that has it.

        Used only to report an error. Looking for the key's text would be a guess: keys may be quoted or
        dotted, and a text of several lines may look like anything.
        """
        import tomllib

        lines = self.text.splitlines(keepends=True)

        def has_key(length: int) -> bool:
            # A beginning that ends inside a value is not TOML; the next that is one tells.
            for end in range(length, len(lines) + 1):
                try:
                    return _contains(tomllib.loads("".join(lines[:end])), key)
                except tomllib.TOMLDecodeError:
                    continue
            return True

        return bisect.bisect_left(range(len(lines) + 1), True, key=has_key)


def _contains(values: Any, key: _KeyPath) -> bool:
    for part in key:
        try:
            values = values[part]
        except (KeyError, IndexError, TypeError):
            return False
    return True


class TomlTable:
    """A table of a TOML file that knows its place in it. Ask for the keys you know, then call `finish`.

    All methods raise `ConfigFileError`, with the line, for a key that is missing or of another type.
    """

    def __init__(self, document: _Document, place: _KeyPath, values: dict[str, Any]) -> None:
        self._document, self._place, self._values = document, place, values
        self._asked: set[str] = set()

    @overload
    def get(self, key: str, kind: type[_Value]) -> _Value: ...

    @overload
    def get(self, key: str, kind: type[_Value], default: _Default) -> _Value | _Default: ...

    def get(self, key: str, kind: type[Any], default: Any = _REQUIRED) -> Any:
        """Return the value of `key`, of TOML type `kind` (a whole number is a `float` too), or `default`."""
        self._asked.add(key)
        if key not in self._values:
            if default is not _REQUIRED:
                return default
            raise self.error(f"{self._spell_key()} needs {key} = ... ({_TOML_KINDS[kind]})")
        value = self._values[key]
        if kind is float and type(value) is int:
            return float(value)
        if type(value) is not kind:  # bool is a subclass of int, so isinstance would let `port = true` pass
            raise self.error(f"has to be {_TOML_KINDS[kind]}, not {value!r}", key)
        return value

    def texts(self, key: str) -> list[str]:
        """Return the array of texts at `key`; empty if it is not there."""
        self._asked.add(key)
        values = self._values.get(key, [])
        if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
            raise self.error(f"has to be an array of texts, not {values!r}", key)
        return list(values)

    def table(self, key: str) -> TomlTable:
        """Return the table at `key`; an empty one if it is not there."""
        self._asked.add(key)
        values = self._values.get(key, {})
        if not isinstance(values, dict):
            raise self.error(f"has to be a table ([{self._spell_key(key)}]), not {values!r}", key)
        return TomlTable(self._document, (*self._place, key), values)

    def tables(self) -> Iterator[tuple[str, TomlTable]]:
        """Yield all keys of this table, each with the table it has to hold, in the order of the file."""
        for key in self._values:
            yield key, self.table(key)

    def finish(self) -> None:
        """Refuse the keys nobody asked for: a misspelt setting must not be ignored in silence."""
        for key in self._values:
            if key not in self._asked:
                import difflib

                near = difflib.get_close_matches(key, self._asked, n=1)
                known = (
                    f"did you mean {near[0]}?" if near else f"known here: {', '.join(sorted(self._asked))}"
                )
                raise self.error(f"is not a setting; {known}", key)

    def error(self, message: str, key: str | None = None, index: int | None = None) -> ConfigFileError:
        """Return an error to raise: what is wrong with `key` (its element `index`) or with this table, and where."""
        place = (*self._place, *(part for part in (key, index) if part is not None))
        what = "" if key is None else f"{self._spell_key(key)} "
        line = self._document.line_of(place) if place else 0
        return ConfigFileError(what + message, self._document.path, line)

    def _spell_key(self, key: str | None = None) -> str:
        parts = [str(part) for part in (*self._place, *([] if key is None else [key]))]
        spelled = ".".join(part if _BARE_KEY.fullmatch(part) else f'"{part}"' for part in parts)
        return spelled or "the file"
