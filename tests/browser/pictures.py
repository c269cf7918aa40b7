"""Takes the pictures of the console that the documents show.

    python -m tests.browser.pictures [FOLDER]

The folder is docs/pictures unless another is given. The pictures are of a made-up mesh, so they are
nearly the same each time. It needs Chromium and playwright.
"""

import base64
import sys
from pathlib import Path
from typing import Any, Final

from tests import ROOT
from tests.browser.conftest import CHROMIUM
from tests.worlds.stand_in import StandIn
from tests.worlds.watched import STUCK, Watched, event

PICTURES: Final[dict[str, dict[str, Any]]] = {
    "console": {"viewport": {"width": 1300, "height": 880}, "color_scheme": "light"},
    "console-phone": {"viewport": {"width": 390, "height": 844}, "color_scheme": "dark"},
}
"""The name of each picture, and how its browser is."""

SECONDS: Final = 45
"""So much happens before a picture is taken."""

# A browser of ours is the only program here that makes small pictures.
SMALLER: Final = """async (png) => {
    const image = new Image();
    image.src = `data:image/png;base64,${png}`;
    await image.decode();
    const canvas = Object.assign(document.createElement("canvas"), {
        width: image.width, height: image.height,
    });
    canvas.getContext("2d").drawImage(image, 0, 0);
    return canvas.toDataURL("image/webp", 0.75).split(",")[1];
}"""


def take(browser: Any, how: dict[str, Any]) -> bytes:
    """One picture, as WebP."""
    with StandIn() as relay:
        context = browser.new_context(timezone_id="UTC", **how)
        page = context.new_page()
        page.goto(relay.url)
        mesh = Watched()
        relay.send(event("state", mesh.state()))
        for _ in range(SECONDS):
            relay.send(event("change", mesh.change()))
        page.wait_for_selector(f"#troubles >> text={STUCK}")
        page.wait_for_selector("#flow-picture path")
        png = base64.b64encode(page.screenshot()).decode()
        context.close()
    page = browser.new_page()
    webp = base64.b64decode(page.evaluate(SMALLER, png))
    page.close()
    return webp


def main(arguments: list[str]) -> int:
    """Take all pictures. Returns the exit code."""
    from playwright.sync_api import sync_playwright  # noqa: PLC0415 (an extra)

    folder = Path(arguments[0]) if arguments else ROOT / "docs" / "pictures"
    folder.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        for name, how in PICTURES.items():
            path = folder / f"{name}.webp"
            path.write_bytes(take(browser, how))
            sys.stdout.write(f"{path}: {path.stat().st_size // 1024} KiB\n")
        browser.close()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
