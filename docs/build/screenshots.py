"""Pictures of the documentation: a report at 1280 and 390 px, light, dark and printed, and a pool's sheet.

Run as ``python -m docs.build.screenshots [REPORT]`` after the report of ``results/small`` was remade. Needs a
Chromium on the path, and some minutes to train the scorer of a pool.
"""

import shutil
import sys
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

from PIL import Image
from playwright.sync_api import sync_playwright

from study.cli import main as main_of_study

ROOT = Path(__file__).resolve().parents[2]
IMAGES = ROOT / "docs" / "images"
REPORT = ROOT / "results" / "small" / "report" / "report.html"
_COLOURS = 256
_SHOTS: dict[str, tuple[int, int, Literal["light", "dark"], Literal["screen", "print"]]] = {
    "report": (1280, 1460, "light", "screen"),
    "report-dark": (1280, 800, "dark", "screen"),
    "report-phone": (390, 844, "light", "screen"),
    "report-phone-dark": (390, 844, "dark", "screen"),
    "report-print": (718, 1047, "light", "print"),  # A4 between the margins of a browser
}
"""Picture → width and height in CSS pixels, colours and medium."""


def main(report: Path = REPORT) -> None:
    """Draw all pictures into docs/images."""
    IMAGES.mkdir(exist_ok=True)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        for name, (width, height, scheme, medium) in _SHOTS.items():
            page = browser.new_page(viewport={"width": width, "height": height}, color_scheme=scheme)
            page.emulate_media(media=medium)
            page.goto(report.resolve().as_uri())
            _save(Image.open(BytesIO(page.screenshot())), name)
        browser.close()
    with TemporaryDirectory() as folder:
        sheet = f"{folder}/sheet.png"
        for words in (f"build {folder}/pool --from embedded:2048", f"info {folder}/pool --sheet {sheet}"):
            assert main_of_study(["data", *words.split()]) == 0
        with Image.open(sheet) as rows:
            margin = 8
            width, half = rows.width, (rows.height - margin) // 2
            beside = Image.new("RGB", (2 * width, half + margin), "white")
            for part in (0, 1):  # the worse half of the rows stands beside the better one
                beside.paste(
                    rows.crop((0, part * half, width, (part + 1) * half + margin)), (part * width, 0)
                )
        _save(beside, "pool-sheet")


def _save(picture: Image.Image, name: str) -> None:
    """Save a picture with few colours, which keeps it small."""
    few = picture.convert("RGB").quantize(_COLOURS, dither=Image.Dither.NONE)
    few.save(IMAGES / f"{name}.png", optimize=True)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
