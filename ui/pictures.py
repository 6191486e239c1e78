"""Put screenshots that ``make test-ui`` has taken into ``docs/images``: smaller, and cut where nothing is."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
TAKEN = ROOT / "build" / "ui-screenshots" / "3.3"
SHOWN = ROOT / "docs" / "images"
PICTURES = {
    "ui-choice": ("choice-light", 660),
    "ui-gallery": ("gallery-light", 880),
    "ui-batch": ("batch-light", 980),
}
"""Name in the docs -> name of the screenshot, and how many pixels of its height are shown."""
WIDTH = 1200


def main() -> None:
    """Take each picture of the docs from its screenshot."""
    SHOWN.mkdir(exist_ok=True)
    for name, (taken, height) in PICTURES.items():
        with Image.open(TAKEN / f"{taken}.png") as picture:
            cut = picture.convert("RGB").crop((0, 0, picture.width, height))
        cut = cut.resize((WIDTH, round(height * WIDTH / cut.width)), Image.Resampling.LANCZOS)
        cut.quantize(256, method=Image.Quantize.MEDIANCUT, kmeans=2).save(
            SHOWN / f"{name}.png", optimize=True
        )


if __name__ == "__main__":
    main()
