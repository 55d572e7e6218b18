"""What `mkdocs build` adds to the pages of docs/: the README, the reference, and files that pages link to.

A hook of MkDocs, named in mkdocs.yml. Pages are written for a checkout, where links lead to files beside them; here
each link is led to where its file is in the site.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import os.path
import re
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[1]
_LINK = re.compile(r"(?<=\]\()(?!\w+:)([^)#\s]+)(#[^)\s]*)?(?=\))")
_FENCED = re.compile(r"^```.*?^```$", re.DOTALL | re.MULTILINE)
#: What a file is shown as, by the end of its name.
_LANGUAGES = {".py": "python", ".toml": "toml", ".json": "json", ".sh": "bash", ".js": "javascript"}


def site_path(path: Path) -> str:
    """Return where in the site a file or folder of the checkout is, as the source of a page."""
    name = path.relative_to(ROOT).as_posix()
    if name == "README.md":
        return "index.md"
    if name.startswith("docs/"):
        return name.removeprefix("docs/")
    if path.is_dir():
        return f"source/{name}/index.md"
    return f"source/{name}" if name.endswith(".md") else f"source/{name}.md"


def links(text: str, folder: Path) -> Iterator[Path]:
    """Yield the files and folders of the checkout that a page links to."""
    for found in _LINK.finditer(_FENCED.sub("", text)):
        target = (folder / found[1]).resolve()
        if target.is_relative_to(ROOT) and target.exists():
            yield target


def page_of(path: Path) -> str:
    """Return the Markdown of a page about a file or folder that is not one of docs/."""
    name = path.relative_to(ROOT).as_posix()
    if path.is_dir():
        rows = (f"- [{each.name}]({each.name})\n" for each in sorted(path.iterdir()) if _is_shown(each))
        return f"# {name}\n\n" + "".join(rows)
    text = path.read_text()
    if path.suffix == ".md":
        return text
    return f"# {name}\n\n````{_LANGUAGES.get(path.suffix, 'text')}\n{text}````\n"


def _is_shown(path: Path) -> bool:
    hidden = path.name.startswith((".", "__")) or path.name == "node_modules"
    return not hidden and (path.is_dir() or path.suffix in {".md", ".py", ".toml"})


def reference() -> Iterator[tuple[str, str]]:
    """Yield (module, Markdown) for each page of the reference: names that tests/api_page.py lists, each once."""
    listing = _load(ROOT / "tests" / "api_page.py")
    shown: set[str] = set()
    for module, (about, _) in listing.MODULES.items():
        text = f"# {module}\n\n{about.replace('](', '](../')}\n"
        for name in listing.names_of(module):
            where = home(module, name)
            if where is not None and where not in shown:
                shown.add(where)
                text += f"\n::: {where}\n"
        yield module, text


def home(module: str, name: str) -> str | None:
    """Return the path by which the sources define a name; None for what is no class or function of dtp."""
    value: Any = getattr(importlib.import_module(module), name)
    if inspect.ismodule(value):
        return None
    if (inspect.isclass(value) or inspect.isfunction(value)) and value.__module__.startswith("dtp."):
        return f"{value.__module__}.{value.__qualname__}"
    return None


def _load(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


# ---- what MkDocs calls --------------------------------------------------------------------------------------------


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Give their place in the navigation to the reference, and to pages of docs/ that mkdocs.yml doesn't place."""
    assert config.nav is not None
    placed = set(re.findall(r"[\w./-]+\.md", str(config.nav)))
    others = [
        path.name for path in sorted((ROOT / "docs").glob("*.md")) if path.name not in placed | {"api.md"}
    ]
    if others:
        config.nav.append({"More": list(others)})
    names = [{module: f"reference/{module}.md"} for module, _ in reference()]
    config.nav.append({"Reference": [{"Names": "api.md"}, *names]})
    return config


def on_files(files: Files, *, config: MkDocsConfig) -> Files:
    """Add the generated pages, and those of every file of the checkout that a page leads to."""
    for module, text in reference():
        files.append(File.generated(config, f"reference/{module}.md", content=text))
    waiting = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]
    known = set(waiting)
    while waiting:
        path = waiting.pop()
        text = page_of(path)
        if not path.is_relative_to(ROOT / "docs"):
            files.append(File.generated(config, site_path(path), content=text))
        folder = path if path.is_dir() else path.parent
        fresh = set(links(text, folder)) - known if path.is_dir() or path.suffix == ".md" else set()
        known |= fresh
        waiting += sorted(fresh)
    return files


def on_page_markdown(markdown: str, *, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Lead each link that is right in a checkout to where its file is in the site."""
    path = _source(page.file.src_uri)
    if path is None:
        return markdown
    folder = path if path.is_dir() else path.parent
    here = Path(page.file.src_uri).parent

    def lead(found: re.Match[str]) -> str:
        target = (folder / found[1]).resolve()
        if not target.is_relative_to(ROOT) or not target.exists():
            return found[0]
        return os.path.relpath(site_path(target), here) + (found[2] or "")

    return _LINK.sub(lead, markdown)


def _source(uri: str) -> Path | None:
    """Return the file or folder of the checkout that a page of the site is made of, if it is."""
    if uri.startswith("reference/"):
        return None
    if uri == "index.md":
        return ROOT / "README.md"
    if not uri.startswith("source/"):
        return ROOT / "docs" / uri
    name = uri.removeprefix("source/").removesuffix("/index.md")
    whole = ROOT / name
    return whole if whole.exists() else ROOT / name.removesuffix(".md")
