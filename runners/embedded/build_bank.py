"""Rebuilding of the sprite bank from the npm packages that publish the artwork; for maintainers only.

Run as ``python -m runners.embedded.build_bank`` with the extra ``bank`` and ``npm`` installed. The same
package versions give the same file.
"""

import io
import json
import re
import subprocess
import tarfile
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from runners.embedded.bank import BANK_FILE, CONCEPTS, HELD_OUT, SPRITE_SIZE, STYLE, TRAINING

PACKAGES = {
    "noto": "@iconify-json/noto@1.2.9",
    "noto-v1": "@iconify-json/noto-v1@1.2.5",
    "fluent-emoji": "@iconify-json/fluent-emoji@1.2.7",
    "fluent-emoji-flat": "@iconify-json/fluent-emoji-flat@1.2.6",
    "twemoji": "@iconify-json/twemoji@1.2.5",
}

# Fluent's two sets are the same drawing, shaded and flat: a held-out one would not be new to the model.
# Noto's two sets are different drawings; which of them is held out alternates between concepts.
HELD_OUT_IN_TURN = ("noto", "noto-v1")
STYLE_MAKER = "twemoji"


def main() -> None:
    """Fetch the packages, rasterise every concept and write the bank file."""
    with tempfile.TemporaryDirectory() as folder:
        collections = {maker: read_icons(pack(name, folder)) for maker, name in PACKAGES.items()}
    rows = [(number, maker) for number in range(len(CONCEPTS)) for maker in PACKAGES]
    np.savez_compressed(
        BANK_FILE,
        sprites=np.stack([rasterise(collections[maker], CONCEPTS[number].emoji) for number, maker in rows]),
        concept=np.array([number for number, _ in rows], np.int16),
        used_for=np.array([use_of(number, maker) for number, maker in rows], np.int8),
        maker=np.array([maker for _, maker in rows]),
    )
    print(f"{BANK_FILE}: {len(rows)} sprites, {BANK_FILE.stat().st_size:,} bytes")  # noqa: T201 (a script)


def use_of(concept: int, maker: str) -> int:
    """Return the use of a maker's rendition of a concept: ``TRAINING``, ``HELD_OUT`` or ``STYLE``."""
    if maker == STYLE_MAKER:
        return STYLE
    return HELD_OUT if maker == HELD_OUT_IN_TURN[concept % len(HELD_OUT_IN_TURN)] else TRAINING


def pack(package: str, folder: str) -> Path:
    """Fetch one package as a tarball with npm; returns the tarball's path."""
    command = ["npm", "pack", "--silent", "--pack-destination", folder, package]
    name = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-1]  # noqa: S603
    return Path(folder) / name


def read_icons(tarball: Path) -> dict[str, Any]:
    """Read the drawings of a package: ``icons`` maps a name to its SVG body, ``aliases`` to another name."""
    with tarfile.open(tarball) as package:
        package.extract("package/icons.json", tarball.with_suffix(""), filter="data")
    collection: dict[str, Any] = json.loads((tarball.with_suffix("") / "package/icons.json").read_text())
    return collection


def rasterise(collection: dict[str, Any], emoji: str) -> np.ndarray:
    """Draw one icon; returns uint8 (40, 40, 4): RGB times alpha, and alpha."""
    import resvg_py  # noqa: PLC0415 (only maintainers have it)

    icon = re.sub(r"[^a-z0-9]+", "-", emoji.lower())
    icon = collection.get("aliases", {}).get(icon, {"parent": icon})["parent"]
    drawing = collection["icons"][icon]
    width = drawing.get("width", collection["width"])
    height = drawing.get("height", collection["height"])
    # Drawn at four times the size and averaged, so that thin lines survive. Non-square icons are centred.
    size = 4 * SPRITE_SIZE
    svg = (
        f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        f'viewBox="0 0 {width} {height}" width="{size}" height="{size}">{drawing["body"]}</svg>'
    )
    png = bytes(resvg_py.svg_to_bytes(svg_string=svg))
    # Premultiplied alpha avoids dark rims when sprites are rotated and scaled.
    image = Image.open(io.BytesIO(png)).convert("RGBA").convert("RGBa")
    assert image.size == (size, size)
    return np.asarray(image.reduce(4))


if __name__ == "__main__":
    main()
