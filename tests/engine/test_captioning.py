"""The captioner on the real architecture of BLIP, with random weights saved in the hub's layout."""

import json
import shutil
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from transformers import (
    BertTokenizerFast,
    BlipConfig,
    BlipForConditionalGeneration,
    BlipImageProcessor,
    BlipProcessor,
)

from benchmark import build
from benchmark.base.errors import UserError
from benchmark.base.images import decode_rgb
from benchmark.engine.captioning import Captioner
from benchmark.engine.datasets import BuiltDataset
from tests.weights import without_weight

WORDS = ("a", "the", "red", "green", "blue", "cat", "dog", "house", "tree", "car", "on", "under", "near", "sky", "road")
COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture(scope="module")
def blip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny BLIP whose captions depend on the image."""
    folder = tmp_path_factory.mktemp("model") / "blip"
    folder.mkdir()
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[DEC]", *WORDS]
    (folder / "vocab.txt").write_text("\n".join(vocabulary))
    tokenizer = BertTokenizerFast(vocab=str(folder / "vocab.txt"))
    size = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    special = {"bos_token_id": 5, "sep_token_id": 3, "pad_token_id": 0, "eos_token_id": 3}
    config = BlipConfig(
        text_config={
            **size,
            **special,
            "vocab_size": len(vocabulary),
            "encoder_hidden_size": 32,
            "max_position_embeddings": 64,
            "initializer_range": 0.5,
        },
        vision_config={**size, "image_size": 32, "patch_size": 8, "initializer_range": 0.5},
    )
    torch.manual_seed(1)
    BlipForConditionalGeneration(config).save_pretrained(folder)
    processor = BlipImageProcessor(size={"height": 32, "width": 32})
    BlipProcessor(processor, tokenizer).save_pretrained(folder)
    return folder


def images(count: int = 8) -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (count, 6, 6, 3), np.uint8).repeat(8, 1).repeat(8, 2)


def greedy(model: Any, processor: Any, image: NDArray[np.uint8]) -> str:
    """The most likely token at each step, taken by hand: what a greedy caption is."""
    pixels = processor(images=image, return_tensors="pt").pixel_values
    tokens = [5]
    with torch.inference_mode():
        seen = model.vision_model(pixels)[0]
        while len(tokens) < 41 and tokens[-1] != 3:
            logits = model.text_decoder(torch.tensor([tokens]), encoder_hidden_states=seen).logits
            tokens.append(int(logits[0, -1].argmax()))
    return str(processor.decode(tokens, skip_special_tokens=True)).strip()


def test_captions_are_greedy_and_belong_to_their_images(blip: Path) -> None:
    captions = Captioner(str(blip)).caption(images())
    model, processor = BlipForConditionalGeneration.from_pretrained(blip).eval(), BlipProcessor.from_pretrained(blip)
    assert captions == [greedy(model, processor, image) for image in images()]
    assert len(set(captions)) > 4
    assert all(captions)


def test_batches_change_no_caption(blip: Path) -> None:
    alone = [Captioner(str(blip)).caption(image[None])[0] for image in images()]
    assert Captioner(str(blip)).caption(images()) == alone


@pytest.fixture
def source(photos: Path, tmp_path: Path) -> Path:
    """The photographs, every third with a caption, one with a blank one."""
    folder = Path(shutil.copytree(photos, tmp_path / "photos"))
    for i, path in enumerate(sorted(folder.rglob("*.*"))):
        if i % 3 == 0:
            path.with_suffix(".txt").write_text(" " if i == 0 else f"written by hand {i}")
    return folder


def words(source: Path, model: str, out: Path) -> list[str]:
    return f"--cond canny --source folder:{source} --captioner {model} --workers 1 --out {out}".split()


def test_only_missing_captions_are_written_and_they_are_counted(
    blip: Path, source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert build.main(words(source, str(blip), out)) == 0
    dataset = BuiltDataset.open(out)
    rows = [r for s in ("train", "val", "test") for r in dataset.rows(s, ["image", "caption", "tags"])]
    written = [row for row in rows if json.loads(row["tags"]) == {"captioned": True}]
    kept = [row["caption"] for row in rows if json.loads(row["tags"]) == {}]
    assert sorted(kept) == sorted(f"written by hand {i}" for i in range(3, 24, 3))
    assert len(written) == 17
    shown = np.stack([decode_rgb(row["image"]["bytes"]) for row in written])
    assert [row["caption"] for row in written] == Captioner(str(blip)).caption(shown)
    commits = [json.loads(path.read_text()) for path in (out / "commits").glob("*.json")]
    assert sum(commit["captioned"] for commit in commits) == 17
    assert f"Captions written by {blip}: 17." in (out / "README.md").read_text()
    assert build.verify(out, 1.0) == []
    capsys.readouterr()
    assert build.main(words(source, str(blip), out)) == 0
    assert "already built" in capsys.readouterr().out


def test_without_a_captioner_missing_captions_stay_empty_and_the_plan_knows_nothing_of_it(
    source: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    assert build.main(["--cond", "canny", "--workers", "1", "--source", f"folder:{source}", "--out", str(out)]) == 0
    rows = list(BuiltDataset.open(out).rows("train", ["caption"]))
    assert None in [row["caption"] for row in rows]
    assert "captioner" not in json.loads((out / "plan.json").read_text())
    assert not any("captioned" in path.read_text() for path in (out / "commits").glob("*.json"))


def test_other_weights_are_another_plan(
    blip: Path, source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = Path(shutil.copytree(blip, tmp_path / "model"))
    assert build.main(words(source, str(model), tmp_path / "out")) == 0
    weights = model / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    assert build.main(words(source, str(model), tmp_path / "out")) == 2
    assert "captioner.content_sha256" in capsys.readouterr().err


def test_a_model_of_the_hub_is_pinned_by_its_commit(
    blip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the cache, without a network: the same lines as with one."""
    repository = tmp_path / "models--someone--blip"
    shutil.copytree(blip, repository / "snapshots" / COMMIT)
    (repository / "refs").mkdir()
    (repository / "refs" / "safe").write_text(COMMIT)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    captioner = Captioner.of("someone/blip@safe")
    assert captioner == Captioner("someone/blip", "safe")
    identity = captioner.identity()
    assert identity["commit"] == COMMIT
    assert identity["content_sha256"] == Captioner(str(blip)).identity()["content_sha256"]
    assert Captioner("someone/blip", COMMIT).caption(images(3)) == Captioner(str(blip)).caption(images(3))


@pytest.mark.parametrize("model", ["someone/nothing", "no/such/model", "not a name"])
def test_a_model_that_is_nowhere_is_one_line(model: str) -> None:
    with pytest.raises(UserError, match=f"no captioner {model} .*; give a hub id or a folder"):
        Captioner(model).identity()


def test_pickled_weights_and_other_models_are_refused(blip: Path, tmp_path: Path) -> None:
    pickled: Any = Path(shutil.copytree(blip, tmp_path / "pickled"))
    (pickled / "model.safetensors").rename(pickled / "pytorch_model.bin")
    clip = Path(build.__file__).parent / "scenes" / "weights" / "clip"
    for folder in (pickled, clip):
        with pytest.raises(UserError, match=r"captions no images .*such as a BLIP"):
            Captioner(str(folder)).identity()


def test_a_captioner_that_lacks_a_weight(blip: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(blip, tmp_path / "blip"))
    gone = without_weight(copy, "vision_model.post_layernorm.weight")
    with pytest.raises(UserError, match=f"captions no images .* lacks 1 weights, {gone} among them"):
        Captioner(str(copy)).identity()
