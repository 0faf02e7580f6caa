"""Structural similarity against scikit-image and torchmetrics."""

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from skimage.metrics import structural_similarity
from torchmetrics.functional.image import multiscale_structural_similarity_index_measure

from benchmark.numbers.structure import ms_ssim, scales, ssim

Array = NDArray[np.float64]
_BETAS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)


def pair(side: int, seed: int, noise: float) -> tuple[Array, Array]:
    """A smooth map in [0, 1] and a disturbed copy."""
    rng = np.random.default_rng(seed)
    smooth = cv2.GaussianBlur(rng.random((side, side)), (0, 0), 2.0)
    a = (smooth - smooth.min()) / np.ptp(smooth)
    return a, np.clip(a + rng.normal(0, noise, a.shape), 0, 1)


@pytest.mark.parametrize("noise", [0.02, 0.2, 1.0])
@pytest.mark.parametrize("side", [64, 177, 256])
def test_ms_ssim_is_that_of_torchmetrics(side: int, noise: float) -> None:
    a, b = pair(side, 0, noise)
    count = scales(side)
    betas = np.array(_BETAS[:count]) / (1 if count == 5 else sum(_BETAS[:count]))
    theirs = multiscale_structural_similarity_index_measure(
        torch.from_numpy(b)[None, None], torch.from_numpy(a)[None, None], data_range=1.0, betas=tuple(betas)
    )
    assert ms_ssim(a, b, count) == pytest.approx(float(theirs), rel=1e-5)


def test_the_published_weights_add_up_to_one() -> None:
    assert sum(_BETAS) == pytest.approx(1.0, abs=2e-4)


@pytest.mark.parametrize("noise", [0.02, 0.2])
def test_ssim_is_that_of_scikit_image(noise: float) -> None:
    a, b = pair(64, 1, noise)
    options = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "data_range": 1.0}
    _, full = structural_similarity(a, b, full=True, **options)
    assert ssim(a, b) == pytest.approx(full[5:-5, 5:-5].mean(), rel=1e-6)


@pytest.mark.parametrize("count", [3, 5])
def test_degenerate_maps_have_a_value(count: int) -> None:
    flat, other = np.zeros((176, 176)), np.ones((176, 176))
    a, _ = pair(176, 2, 0.1)
    assert ms_ssim(flat, flat, count) == ms_ssim(a, a, count) == pytest.approx(1.0)
    assert 0 <= ms_ssim(flat, other, count) < 0.9
    assert ms_ssim(a, 1 - a, count) == 0.0  # a negative mean counts as none
