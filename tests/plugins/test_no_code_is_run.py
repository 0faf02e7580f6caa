"""Pickles and code planted wherever files are read: none is run, each is refused with a line."""

import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from datasets import Dataset
from transformers import CLIPVisionConfig, Dinov2Config

from benchmark import build, registry
from benchmark.annotators._hub import Weights
from benchmark.annotators.transformers_seg import TransformersSeg
from benchmark.base.errors import UserError
from benchmark.contracts.plugins import Encoder, Method
from benchmark.encoders.inception import Inception
from benchmark.engine.bases import BUNDLED, Base, load_base
from benchmark.engine.captioning import Captioner
from benchmark.engine.datasets import BuiltDataset
from benchmark.engine.latents import moments_at
from benchmark.sources.hub import Hub

PARTS = {"unet": "diffusion_pytorch_model", "vae": "diffusion_pytorch_model", "text_encoder": "model"}


class Planted:
    """Unpickled, it leaves a file."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.mark,))


@pytest.fixture
def mark(tmp_path: Path) -> Path:
    """The file that exists once planted code has run."""
    return tmp_path / "it-was-run"


@pytest.fixture
def planted(mark: Path) -> bytes:
    data = pickle.dumps(Planted(mark))
    pickle.loads(data)
    assert mark.exists()  # or the tests could not fail
    mark.unlink()
    return data


def refused(load: Callable[[], object], mark: Path) -> str:
    """Return the line that a load ends in, and see that nothing was run."""
    with pytest.raises(UserError) as caught:
        load()
    assert not mark.exists()
    return str(caught.value)


def folder_with(base: Path, place: Path) -> Path:
    return Path(shutil.copytree(base, place))


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("beside", [False, True])
def test_a_base_of_pickled_weights(part: str, beside: bool, planted: bytes, mark: Path, tmp_path: Path) -> None:
    """Under the name of safetensors, or under that of pickles, where safetensors are missing."""
    folder = folder_with(BUNDLED["scenes-tiny"], tmp_path / "base")
    weights = folder / part / f"{PARTS[part]}.safetensors"
    weights.unlink()
    pickles = [f"{PARTS[part]}.bin", "pytorch_model.bin", "model.pt"] if beside else [weights.name]
    for name in pickles:
        (folder / part / name).write_bytes(planted)
    assert "no base" in refused(lambda: load_base(str(folder)), mark)


@pytest.mark.parametrize("part", [*PARTS, "tokenizer", "scheduler", "_class_name"])
def test_a_base_that_brings_code(part: str, mark: Path, tmp_path: Path) -> None:
    folder = folder_with(BUNDLED["scenes-tiny"], tmp_path / "base")
    index = json.loads((folder / "model_index.json").read_text())
    (folder / "model_index.json").write_text(json.dumps({**index, part: ["own", "Own"]}))
    code = f"from pathlib import Path\nPath({str(mark)!r}).touch()\nfrom diffusers import UNet2DConditionModel as Own\n"
    for place in (folder, folder / part) if part != "_class_name" else (folder,):
        (place / "own.py").write_text(code)
    refused(lambda: load_base(str(folder)), mark)


@pytest.mark.parametrize("name", ["controlnet", "controlnet_lite", "t2i_adapter"])
def test_a_control_of_pickled_weights(name: str, base: Base, planted: bytes, mark: Path, tmp_path: Path) -> None:
    method = registry.make(Method, name)
    method.save(method.build(base.unet, base.latent_scale), tmp_path / "control")
    (weights,) = (tmp_path / "control").glob("*.safetensors")
    weights.write_bytes(planted)
    refused(lambda: method.load(str(tmp_path / "control")), mark)
    weights.rename(weights.with_suffix(".bin"))
    refused(lambda: method.load(str(tmp_path / "control")), mark)


@pytest.mark.parametrize(
    ("name", "config"), [("clip", CLIPVisionConfig()), ("dinov2", Dinov2Config(num_hidden_layers=1))]
)
def test_an_encoder_of_pickled_weights(name: str, config: Any, planted: bytes, mark: Path, tmp_path: Path) -> None:
    config.save_pretrained(tmp_path)
    encoder = registry.make(Encoder, f"{name}:{tmp_path}")
    part = "_clip" if name == "clip" else "_network"
    for file in ("pytorch_model.bin", "model.safetensors"):
        (tmp_path / file).write_bytes(planted)
        refused(lambda: getattr(encoder, part), mark)


def test_a_network_of_fid_that_is_not_the_published_one(planted: bytes, mark: Path, tmp_path: Path) -> None:
    (tmp_path / "inception-2015-12-05.pt").write_bytes(planted)
    assert "it is not loaded" in refused(lambda: Inception(str(tmp_path)).identity(), mark)


def test_an_aesthetic_predictor_of_pickled_objects(planted: bytes, mark: Path, tmp_path: Path) -> None:
    (tmp_path / "head.pth").write_bytes(planted)
    spec = f"aesthetic:{tmp_path / 'head.pth'},clip=scenes"
    images = np.zeros((1, 64, 64, 3), np.uint8)
    assert "no aesthetic predictor" in refused(lambda: registry.make(Encoder, spec).encode(images), mark)


def test_a_detector_of_pickled_objects(planted: bytes, mark: Path, tmp_path: Path) -> None:
    (tmp_path / "hed.pth").write_bytes(planted)
    line = refused(Weights(str(tmp_path), None, "hed.pth").state, mark)
    assert "cannot be loaded as weights alone" in line


def test_a_cache_of_pickled_latents(tiny_dataset: Path, base: Base, planted: bytes, mark: Path, tmp_path: Path) -> None:
    shard = BuiltDataset.open(tiny_dataset).files("val")[0]
    place = tmp_path / base.vae_sha256[:12] / f"{shard.stem}.safetensors"
    place.parent.mkdir()
    place.write_bytes(planted)
    assert str(place) in refused(lambda: moments_at(base, [(shard, 8)], np.arange(8), tmp_path), mark)


@pytest.mark.parametrize("name", ["train.pkl", "train.pickle", "train.pt", "repository.py", "dataset.py"])
def test_a_repository_of_pickles_or_code(name: str, planted: bytes, mark: Path, tmp_path: Path) -> None:
    place = tmp_path / "repository"
    place.mkdir()
    code = f"from pathlib import Path\nPath({str(mark)!r}).touch()\n".encode()
    (place / name).write_bytes(code if name.endswith(".py") else planted)
    refused(lambda: list(Hub(str(place)).parts()), mark)


def test_a_saved_dataset_whose_files_are_pickles(planted: bytes, mark: Path, tmp_path: Path) -> None:
    Dataset.from_dict({"image": [b"x"] * 4}).save_to_disk(tmp_path / "saved")
    for path in (tmp_path / "saved").iterdir():
        whole = path.read_bytes()
        path.write_bytes(planted)
        refused(lambda: Hub(str(tmp_path / "saved")).columns(), mark)
        path.write_bytes(whole)


def test_a_folder_of_pickles_holds_no_image(planted: bytes, mark: Path, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for name in ("a.pkl", "b.pt", "c.npy"):
        (tmp_path / "in" / name).write_bytes(planted)
    words = ["--cond", "canny", "--source", f"folder:{tmp_path / 'in'}", "--out", str(tmp_path / "out")]
    assert build.main(words) == 2
    assert not mark.exists()


CODE = "from pathlib import Path\nPath({mark!r}).touch()\nfrom transformers import CLIPConfig as Own\n"
AUTO = dict.fromkeys(("AutoConfig", "AutoModelForImageTextToText", "AutoModelForSemanticSegmentation"), "own.Own")
PROCESSORS = dict.fromkeys(("AutoProcessor", "AutoImageProcessor", "AutoTokenizer"), "own.Own")


@pytest.fixture
def with_code(mark: Path, tmp_path: Path) -> Path:
    """A checkpoint whose configuration names code of its own for every class."""
    place = tmp_path / "checkpoint"
    place.mkdir()
    (place / "own.py").write_text(CODE.format(mark=str(mark)))
    (place / "config.json").write_text(json.dumps({"model_type": "own", "auto_map": AUTO}))
    for name in ("preprocessor_config.json", "processor_config.json", "tokenizer_config.json"):
        (place / name).write_text(json.dumps({"auto_map": PROCESSORS, "image_processor_type": "Own"}))
    (place / "model.safetensors").write_bytes(b"")
    return place


def test_a_captioner_with_code_of_its_own(with_code: Path, mark: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is not asked for either: an answer would be enough to run it."""
    monkeypatch.setattr("builtins.input", lambda text="": "y")
    assert "custom code" in refused(lambda: Captioner(str(with_code)).identity(), mark)


@pytest.mark.parametrize("part", ["_config", "_processor"])
def test_an_annotator_with_code_of_its_own(
    part: str, with_code: Path, mark: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("builtins.input", lambda text="": "y")
    annotator = TransformersSeg(str(with_code))
    assert "custom code" in refused(lambda: getattr(annotator, part), mark)
