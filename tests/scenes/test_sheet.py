"""The picture of the world that a person looks at."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from benchmark.scenes.sheet import main, sheet
from benchmark.scenes.splits import example


def test_the_sheet_shows_the_first_scenes_row_by_row() -> None:
    picture = sheet(3, "val", count=5, columns=3, resolution=32)
    assert picture.shape == (64, 96, 3)
    for i in range(5):
        row, column = divmod(i, 3)
        tile = picture[32 * row : 32 * row + 32, 32 * column : 32 * column + 32]
        assert np.array_equal(tile, example(3, "val", i, 32).render.image)
    assert (picture[32:, 64:] == 255).all()


def test_the_command_writes_it_without_loss_as_png(tmp_path: Path) -> None:
    assert main([str(tmp_path / "sheet.png"), "--count", "4", "--columns", "2", "--resolution", "32"]) == 0
    written = cv2.imread(str(tmp_path / "sheet.png"))
    assert written is not None
    assert np.array_equal(written[:, :, ::-1], sheet(0, "train", 4, 2, 32))


def test_an_unknown_suffix_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SystemExit) as caught:
        main([str(tmp_path / "sheet.xyz"), "--count", "1", "--resolution", "32"])
    assert caught.value.code == 2
