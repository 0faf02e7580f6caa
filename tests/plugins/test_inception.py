"""FID through clean-fid's own network and resize: a real Inception of random weights, in the layout clean-fid loads."""

from functools import cache, partial
from pathlib import Path

import cleanfid.fid
import numpy as np
import pytest
import torch
from cleanfid.features import InceptionV3W
from numpy.typing import NDArray
from PIL import Image
from torch import nn
from torchvision.models import inception_v3

from benchmark import registry
from benchmark.base.errors import UserError
from benchmark.base.files import sha256_file
from benchmark.contracts.plugins import Encoder, Images, Metric
from benchmark.contracts.tables import Table
from benchmark.numbers.frechet import Gaussian, frechet_distance

FILE = "inception-2015-12-05.pt"


class _Published(nn.Module):
    """The published file's layout: the whole network as called, and its layers for pixels that are prepared."""

    def __init__(self, layers: torch.jit.ScriptModule) -> None:
        super().__init__()
        self.layers = layers

    def forward(self, x: torch.Tensor, return_features: bool = False) -> torch.Tensor:
        features: torch.Tensor = self.layers(x)
        return features


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a file with an Inception of random weights whose activations neither vanish nor explode."""
    folder = tmp_path_factory.mktemp("inception")
    torch.manual_seed(0)
    network = inception_v3(weights=None, aux_logits=False, init_weights=False, transform_input=False).eval()
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
    network.fc = nn.Identity()
    layers = torch.jit.trace(network, torch.zeros(1, 3, 299, 299))  # type: ignore[no-untyped-call]
    torch.jit.script(_Published(layers)).save(str(folder / FILE))  # type: ignore[no-untyped-call]
    return folder


@cache
def _images(count: int, seed: int, size: int = 64) -> Images:
    """Smooth random pictures."""
    rng = np.random.default_rng(seed)
    small = rng.integers(0, 256, (count, 5, 5, 3), dtype=np.uint8)
    return np.stack([np.asarray(Image.fromarray(x).resize((size, size), Image.Resampling.BICUBIC)) for x in small])


def _saved(folder: Path, images: Images) -> str:
    folder.mkdir()
    for i, image in enumerate(images):
        Image.fromarray(image).save(folder / f"{i:03d}.png")
    return str(folder)


@pytest.fixture(scope="module")
def encoder(weights: Path) -> Encoder:
    return registry.make(Encoder, f"inception:{weights},sha256={sha256_file(weights / FILE)}")


@pytest.fixture
def theirs(weights: Path) -> nn.Module:
    network: nn.Module = InceptionV3W(str(weights), download=False)
    return network


@pytest.mark.parametrize("size", [64, 320])
def test_features_are_those_of_clean_fid(size: int, encoder: Encoder, theirs: nn.Module, tmp_path: Path) -> None:
    images = _images(3, 0, size)
    read = partial(cleanfid.fid.get_folder_features, num_workers=0, device=torch.device("cpu"), verbose=False)
    expected = read(_saved(tmp_path / "images", images), theirs)
    found = encoder.encode(images)
    assert found.shape == (3, 2048)
    assert found.dtype == np.float32
    assert found.std(axis=0).max() > 1e-3
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())


def test_batches_do_not_change_features(encoder: Encoder, monkeypatch: pytest.MonkeyPatch) -> None:
    images = _images(3, 0)
    whole = encoder.encode(images)
    monkeypatch.setattr("benchmark.encoders.inception._BATCH", 2)
    np.testing.assert_allclose(encoder.encode(images), whole, rtol=1e-4, atol=1e-5 * np.abs(whole).max())


def test_identity_is_the_hash_of_the_file(encoder: Encoder, weights: Path) -> None:
    assert encoder.identity() == {"space": "inception, clean-fid", "weights_sha256": sha256_file(weights / FILE)}


def test_a_file_of_another_hash_is_not_loaded(weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.jit, "load", lambda *_: pytest.fail("a file that is not the published one was loaded"))
    for place in (weights, weights / FILE):
        with pytest.raises(UserError, match=r"has the sha256 \w{64}, not f58cb9b6ec323ed6\w{48}; it is not loaded"):
            registry.make(Encoder, f"inception:{place}").encode(_images(1, 0))


def test_missing_weights_are_an_error_that_says_where_they_go(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=f"are missing: put {FILE}.* at {tmp_path}/{FILE}, or name"):
        registry.make(Encoder, f"inception:{tmp_path}").identity()


def test_the_name_fid_is_kept_for_the_published_network() -> None:
    table = _table(_vectors(30, 0), "inception")
    assert registry.make(Metric, "fid").score(table, table)[0].name == "fid"
    other = registry.make(Metric, "fid:somewhere,sha256=0123456789")
    assert other.needs == ("inception:somewhere,sha256=0123456789",)
    table = _table(_vectors(30, 0), *other.needs)
    assert other.score(table, table)[0].name == "fd-inception-01234567"


def _vectors(n: int, seed: int, width: int = 48) -> NDArray[np.float32]:
    values = np.random.default_rng(seed).normal(size=(n, width)) * np.arange(1, width + 1) ** -0.5 + 0.1 * seed
    return values.astype(np.float32)


def _table(vectors: NDArray[np.float32], column: str = "inception") -> Table:
    return Table(tuple(f"{i:04d}" for i in range(len(vectors))), {column: vectors})


@pytest.mark.filterwarnings("ignore:The `disp` argument")  # of scipy, as clean-fid calls it
def test_the_distance_is_that_of_clean_fid_on_the_same_features() -> None:
    x, y = _vectors(400, 0), _vectors(400, 1)
    (score,) = registry.make(Metric, "fid").score(_table(x), _table(y))
    assert score.value == pytest.approx(cleanfid.fid.fid_from_feats(x, y), rel=1e-4)
    assert score.unranked is None


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Matrix is singular")  # 24 images in 2048 dimensions
@pytest.mark.filterwarnings("ignore:The `disp` argument")
def test_fid_is_that_of_clean_fid_on_two_folders(
    encoder: Encoder, weights: Path, theirs: nn.Module, tmp_path: Path
) -> None:
    x, y = _images(24, 1), _images(24, 2) // 2
    compute = partial(cleanfid.fid.compute_fid, num_workers=0, device=torch.device("cpu"), verbose=False)
    folders = _saved(tmp_path / "x", x), _saved(tmp_path / "y", y)
    expected = compute(*folders, custom_feat_extractor=theirs)
    metric = registry.make(Metric, f"fid:{weights},sha256={sha256_file(weights / FILE)}")
    (column,) = metric.needs
    (score,) = metric.score(_table(encoder.encode(x), column), _table(encoder.encode(y), column))
    assert score.value == pytest.approx(expected, rel=1e-4)
    assert score.unranked == "n = 24 is below 2 D = 4096"
    assert score.value == frechet_distance(Gaussian.fit(encoder.encode(x)), Gaussian.fit(encoder.encode(y)))
