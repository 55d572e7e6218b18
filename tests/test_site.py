"""The site is built without a warning, has a page for each document and module, and its links lead within it."""

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import api_page
import pytest

ROOT = Path(__file__).parents[1]
#: What the site needs, by the names that are imported.
NEEDED = "mkdocs", "mkdocstrings", "material", "ruff"


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        pytest.skip(f"not installed: {', '.join(missing)}; pip install '.[docs]'")
    target = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-P", "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", target],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},  # about a version that isn't asked for
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    return target


@pytest.mark.slow
def test_each_document_is_a_page(site):
    for path in (ROOT / "docs").glob("*.md"):
        assert (site / path.stem / "index.html").exists()
    assert "Sockets that are addressed by" in (site / "index.html").read_text()


@pytest.mark.slow
def test_each_module_is_a_page_and_each_class_is_on_one(site):
    pages = {module: (site / "reference" / module / "index.html").read_text() for module in api_page.MODULES}
    assert all("<h1 id=" in page for page in pages.values())
    shown = {found for page in pages.values() for found in re.findall(r'<h2 id="dtp\.([\w.]+)"', page)}
    names = {found.rpartition(".")[2] for found in shown}
    public = [
        getattr(sys.modules[module], name)
        for module in api_page.MODULES
        for name in api_page.names_of(module)
    ]
    classes = {
        each.__name__ for each in public if isinstance(each, type) and each.__module__.startswith("dtp.")
    }
    assert len(classes) > 200
    assert classes <= names


@pytest.mark.slow
def test_links_to_files_of_the_checkout_lead_to_pages(site):
    first = (site / "index.html").read_text()
    assert 'href="guide/"' in first
    assert 'href="source/examples/"' in first
    listing = (site / "source" / "examples" / "index.html").read_text()
    for path in (ROOT / "examples").glob("*.py"):
        assert f'href="{path.name}/"' in listing
        assert (site / "source" / "examples" / path.name / "index.html").exists()
