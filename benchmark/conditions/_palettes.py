"""Palettes of label maps: which colour each class has, and whether there is a colour for what is unlabelled."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from benchmark.scenes.palette import SEG_COLOURS

Colour = tuple[int, int, int]
BLACK: Colour = (0, 0, 0)


@dataclass(frozen=True)
class Palette:
    """Colours of class ids from 0.

    Attributes:
        classes: RGB of each class.
        background: How many of the first classes are background.
        has_unlabelled: Whether one id more, black, stands for pixels without a label; they are never scored.
    """

    classes: tuple[Colour, ...]
    background: int = 0
    has_unlabelled: bool = False

    @cached_property
    def colours(self) -> NDArray[np.uint8]:
        """The colour of every id, uint8 (C, 3) RGB, the unlabelled one last."""
        return np.array([*self.classes, *([BLACK] if self.has_unlabelled else [])], dtype=np.uint8)


def voc_colour(number: int) -> Colour:
    """Return a colour of PASCAL VOC's map: the number's bits, dealt to red, green and blue, highest first.

    0 is black, and all 256 differ.
    """
    red = green = blue = 0
    for i in range(8):
        red |= (number >> 3 * i & 1) << 7 - i
        green |= (number >> 3 * i + 1 & 1) << 7 - i
        blue |= (number >> 3 * i + 2 & 1) << 7 - i
    return red, green, blue


def _hex(text: str) -> tuple[Colour, ...]:
    return tuple((int(c[:2], 16), int(c[2:4], 16), int(c[4:], 16)) for c in text.split())


# The 150 classes of the scene parsing benchmark in its order, wall first. Classes 6 (road) and 48 (skyscraper) share
# 8c8c8c, so a picture in these colours cannot always be read back; label numbers can.
_ADE20K = """
    787878 b47878 06e6e6 503232 04c803 787850 8c8c8c cc05ff e6e6e6 04fa07 e005ff ebff07 96053d 787846 08ff33
    ff0652 8fff8c ccff04 ff3307 cc4603 0066c8 3de6fa ff0633 0b66ff ff0747 ff09e0 0907e6 dcdcdc ff095c 7009ff
    08ffd6 07ffe0 ffb806 0aff47 ff290a 07ffff e0ff08 6608ff ff3d06 ffc207 ff7a08 00ff14 ff0829 ff0599 0633ff
    eb0cff a09614 00a3ff 8c8c8c fa0a0f 14ff00 1fff00 ff1f00 ffe000 99ff00 0000ff ff4700 00ebff 00adff 1f00ff
    0bc8c8 ff5200 00fff5 003dff 00ff70 00ff85 ff0000 ffa300 ff6600 c2ff00 008fff 33ff00 0052ff 00ff29 00ffad
    0a00ff adff00 00ff99 ff5c00 ff00ff ff00f5 ff0066 ffad00 ff0014 ffb8b8 001fff 00ff3d 0047ff ff00cc 00ffc2
    00ff52 000aff 0070ff 3300ff 00c2ff 007aff 00ffa3 ff9900 00ff0a ff7000 8fff00 5200ff a3ff00 ffeb00 08b8aa
    8500ff 00ff5c b800ff ff001f 00b8ff 00d6ff ff0070 5cff00 00e0ff 70e0ff 46b8a0 a300ff 9900ff 47ff00 ff00a3
    ffcc00 ff008f 00ffeb 85ff00 ff00eb f500ff ff007a fff500 0abed4 d6ff00 00ccff 1400ff ffff00 0099ff 0029ff
    00ffcc 2900ff 29ff00 ad00ff 00f5ff 4700ff 7a00ff 00ffb8 005cff b8ff00 0085ff ffd600 19c2c2 66ff00 5c00ff
"""

# COCO-Stuff numbers its labels 0 to 181 and fixes no colours; the palette in use repeats some, so VOC's is taken.
_COCOSTUFF_CLASSES = 182

PALETTES = {
    "scenes": Palette(SEG_COLOURS, background=2),
    "ade20k": Palette(_hex(_ADE20K), has_unlabelled=True),
    "cocostuff": Palette(tuple(voc_colour(i + 1) for i in range(_COCOSTUFF_CLASSES)), has_unlabelled=True),
}
