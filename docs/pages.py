"""Puts the pages of the docs site together in build/pages, for the generator: see `make docs`.

Pages are those of docs/, and some files from elsewhere in the repository. The pictures of
docs/pictures/ go with them. Links are written as they work in the repository. On the site a link
to a file that is no page becomes the bare path. A dead link, and a page that the navigation of
mkdocs.yml lacks, end the build.
"""

import posixpath
import re
import shutil
import sys
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parent.parent
PAGES: Final = ROOT / "build" / "pages"
PICTURES: Final = "docs/pictures"

ELSEWHERE: Final = {
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security.md",
}
"""Files of the repository that are pages of the site, and the page that each one is."""

_LINK: Final = re.compile(r"\[([^\]]*)\]\((?!https?:|mailto:|#)([^)#\s]+)(#[^)\s]*)?\)")
_CODE: Final = re.compile(r"(^```.*?^```)", re.DOTALL | re.MULTILINE)


class Wrong(Exception):
    """A link is dead, or a page is missing in the navigation."""


def sources() -> dict[str, str]:
    """Every file that is a page, and the page's path on the site."""
    pages = {
        path.relative_to(ROOT).as_posix(): path.relative_to(ROOT / "docs").as_posix()
        for path in sorted((ROOT / "docs").rglob("*.md"))
    }
    return pages | ELSEWHERE


def page_of(source: str, pages: dict[str, str]) -> str:
    """The text of a page, with links as they work on the site. Raises Wrong."""
    here = posixpath.dirname(pages[source])

    def link(found: re.Match[str]) -> str:
        text, target, anchor = found[1], found[2], found[3] or ""
        path = posixpath.normpath(posixpath.join(posixpath.dirname(source), target))
        if path in pages:
            return f"[{text}]({posixpath.relpath(pages[path], here or '.')}{anchor})"
        if not (ROOT / path).exists():
            raise Wrong(f"{source} links to {target}, which does not exist")
        if posixpath.dirname(path) == PICTURES:
            own = posixpath.relpath(posixpath.relpath(path, "docs"), here or ".")
            return f"[{text}]({own})"
        return f"`{path}`" if text.strip("`") in path else f"{text} (`{path}`)"

    # Links may span lines, so the text is cut at blocks of code and nowhere else.
    parts = _CODE.split((ROOT / source).read_text(encoding="utf-8"))
    return "".join(part if part.startswith("```") else _LINK.sub(link, part) for part in parts)


def check_navigation(page: str) -> None:
    """Raises Wrong if mkdocs.yml's navigation does not have this page."""
    navigation = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    if not re.search(rf"(?m)^ +- (.+: )?{re.escape(page)}$", navigation):
        raise Wrong(f"{page} is missing in the navigation of mkdocs.yml")


def main() -> int:
    """Write all pages anew. Returns the exit code."""
    shutil.rmtree(PAGES, ignore_errors=True)
    pages = sources()
    shutil.copytree(ROOT / PICTURES, PAGES / posixpath.basename(PICTURES))
    for source, page in pages.items():
        (PAGES / page).parent.mkdir(parents=True, exist_ok=True)
        try:
            (PAGES / page).write_text(page_of(source, pages), encoding="utf-8")
            check_navigation(page)
        except Wrong as wrong:
            sys.stderr.write(f"docs: {wrong}\n")
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
