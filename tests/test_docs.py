"""The documents: every link leads somewhere, and every path and module that they name exists."""

import importlib.util
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import ROOT

FOLDERS = ("actors", "protocol", "tests", "docs", "browser", "infrastructure", "examples")
PAGES = sorted(
    path
    for path in (
        *ROOT.glob("*.md"),
        *(ROOT / "docs").rglob("*.md"),
        *(ROOT / "browser").glob("*.md"),
        *(ROOT / "benchmarks").glob("*.md"),
    )
)
SOURCES = sorted(
    path
    for folder in ("actors", "protocol", "agi_diy_relay", "browser/src", "docs", "tests")
    for kind in ("py", "js")
    for path in (ROOT / folder).rglob(f"*.{kind}")
    if "node_modules" not in path.parts
)

LINK = re.compile(r"\]\((?!https?:|mailto:)([^)#\s]*)(?:#([^)\s]+))?\)")
CODE = re.compile(r"^```.*?^```|`[^`\n]+`", re.DOTALL | re.MULTILINE)
NAMED = re.compile(rf"(?<![\w/.:-])(?:{'|'.join(FOLDERS)}|benchmarks)/[\w/.-]*\w/?")
MODULE = re.compile(r"python -m ((?:tests|protocol|examples|benchmarks)(?:\.\w+)*)")


def links(page: Path) -> Iterator[tuple[Path, str]]:
    """Every relative link of a page: the file, and the anchor in it ("" without one)."""
    for target, anchor in LINK.findall(CODE.sub("", page.read_text())):
        yield (page.parent / target if target else page).resolve(), anchor


def anchors(page: Path) -> set[str]:
    """What a link to a place in a page may name: its headings, and the names that are set there."""
    text = page.read_text()
    headings = re.findall(r"^#+ (.+)$", CODE.sub(lambda code: code[0].strip("`"), text), re.M)
    slugs = {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
    return slugs | set(re.findall(r'<a id="([^"]+)">', text))


def named_paths(text: str) -> list[str]:
    """Paths of this repository that a text names, as far as they look like files or folders.

    >>> named_paths("see docs/run.md and protocol/mesh/; actors/asyncio or not, http://a/docs/x.md")
    ['docs/run.md', 'protocol/mesh/']
    """
    return [path for path in NAMED.findall(text) if path.endswith("/") or "." in Path(path).name]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_to_a_file_and_a_heading(page: Path) -> None:
    for target, anchor in links(page):
        assert target.exists(), target
        if anchor:
            assert anchor in anchors(target), f"{target}#{anchor}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_path_and_module_that_a_page_names_exists(page: Path) -> None:
    text = page.read_text()
    made = {"infrastructure/outputs.json"}  # by a command that the page gives
    for path in named_paths(text):
        assert (ROOT / path).exists() or path in made, path
    for module in MODULE.findall(text):
        assert importlib.util.find_spec(module) is not None, module


def test_every_document_that_a_docstring_names_exists() -> None:
    for source in SOURCES:
        for name in re.findall(r"(?<![\w/])docs/[\w/-]+\.md", source.read_text()):
            assert (ROOT / name).exists() or source == Path(__file__), f"{source}: {name}"
