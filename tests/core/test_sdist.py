"""The source distribution builds and works with nothing of this checkout but what it carries."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
pytest.importorskip("setuptools", reason="building needs setuptools, as pip brings it")

TRY = """
import json, dtp.core
from dtp.core import Buffer, LinkOpener, Sealer
buffer = Buffer(100)
length = Sealer("ChaChaPoly", bytes(32)).seal([(8, 0, 0, 0, b"it works")], buffer, 90)
taken, frames, error = LinkOpener("ChaChaPoly", bytes(32)).open(buffer, 0, length)
print(json.dumps([dtp.core.__file__, bytes(buffer.view[frames[0][4]:][:8]).decode(), error is None]))
"""


def python(*args: str, cwd: Path, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, *args],
        cwd=cwd,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **environment},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy, so that nothing is left in the checkout."""
    copy = tmp_path_factory.mktemp("checkout")
    for name in ("pyproject.toml", "setup.py", "MANIFEST.in", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy)
    for name in ("dtp", "dtp_core", "packaging", "tests"):
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__", "*.so", "*.o"))
    code = "from setuptools.build_meta import build_sdist; build_sdist('dist')"
    python("-c", code, cwd=copy)
    (path,) = (copy / "dist").glob("*.tar.gz")
    return path


@pytest.mark.long
def test_sdist_carries_the_c_core(sdist: Path) -> None:
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    core = {
        str(p.relative_to(ROOT))
        for p in (ROOT / "dtp_core").rglob("*")
        if p.suffix in (".c", ".h", ".py", ".sh")
    }
    assert core <= names
    assert {"setup.py", "README.md", "LICENSE", "dtp/py.typed", "dtp/core/_dtp_core.pyi"} <= names
    packaging = {
        str(p.relative_to(ROOT))
        for p in (ROOT / "packaging").rglob("*")
        if p.is_file() and "__pycache__" not in p.parts  # which building the site leaves there
    }
    assert packaging <= names  # what docs/daemon.md installs
    assert not [name for name in names if name.endswith((".so", ".o", ".pyc"))]


@pytest.mark.long
def test_sdist_installs_and_seals(sdist: Path, tmp_path: Path) -> None:
    target = tmp_path / "site"
    install = [
        "-m",
        "pip",
        "install",
        "--no-deps",
        "--no-build-isolation",
        "--target",
        str(target),
        str(sdist),
    ]
    python(*install, cwd=tmp_path)
    where, text, good = json.loads(python("-c", TRY, cwd=tmp_path, PYTHONPATH=str(target)))
    assert Path(where).is_relative_to(target)
    assert (text, good) == ("it works", True)
    assert not (target / "dtp_core").exists()


@pytest.mark.long
def test_wheel_is_for_every_python_from_3_11(sdist: Path, tmp_path: Path) -> None:
    python(
        "-m",
        "pip",
        "wheel",
        "--no-deps",
        "--no-build-isolation",
        "-w",
        str(tmp_path),
        str(sdist),
        cwd=tmp_path,
    )
    (wheel,) = tmp_path.glob("*.whl")
    assert wheel.name.startswith("dtp_sockets-")
    assert "-cp311-abi3-" in wheel.name
