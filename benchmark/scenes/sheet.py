"""Look at the world: `python -m benchmark.scenes.sheet sheet.png` draws the first scenes of a split in one picture."""

import argparse
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from benchmark.base.console import say
from benchmark.base.files import replace_file
from benchmark.scenes.splits import SPLITS, example

_SUFFIXES = (".png", ".jpg", ".webp")
_WEBP_QUALITY = 80  # of 100; without one it would be five times as large


def sheet(seed: int, split: str, count: int, columns: int, resolution: int) -> NDArray[np.uint8]:
    """Return the first so many scenes of a split side by side, uint8 (rows * resolution, columns * resolution, 3)."""
    images = [example(seed, split, i, resolution).render.image for i in range(count)]
    images += [np.full_like(images[0], 255)] * (-count % columns)
    return np.concatenate([np.hstack(images[i : i + columns]) for i in range(0, len(images), columns)])


def main(argv: list[str] | None = None) -> int:
    """Parse arguments and write the picture, in the format that its suffix names."""
    example = "example: python -m benchmark.scenes.sheet scenes.png --count 16 --columns 4"
    parser = argparse.ArgumentParser(prog="python -m benchmark.scenes.sheet", description=__doc__, epilog=example)
    parser.add_argument("picture", type=Path, help="where it goes: .png, .jpg or .webp")
    parser.add_argument("--seed", type=int, default=0, help="which world (default: 0)")
    parser.add_argument("--split", choices=SPLITS, default="train")
    parser.add_argument("--count", type=int, default=64, help="scenes (default: 64)")
    parser.add_argument("--columns", type=int, default=8, help="scenes in a row (default: 8)")
    parser.add_argument("--resolution", type=int, default=128, help="pixels a side of each, 32 to 512 (default: 128)")
    chosen = parser.parse_args(argv)
    if chosen.picture.suffix not in _SUFFIXES:
        parser.error(f'no pictures end in "{chosen.picture.suffix}"; allowed: {", ".join(_SUFFIXES)}')
    picture = sheet(chosen.seed, chosen.split, chosen.count, chosen.columns, chosen.resolution)
    _, data = cv2.imencode(
        chosen.picture.suffix, cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_WEBP_QUALITY, _WEBP_QUALITY]
    )
    replace_file(chosen.picture, data.tobytes())
    say(f"{chosen.count} scenes in {chosen.picture}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
