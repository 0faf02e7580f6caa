"""Making the bundled models: every stage, from nothing, at a size that takes seconds and learns nothing."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionPipeline
from transformers import CLIPModel

from benchmark.base.errors import UserError
from benchmark.scenes import pretrain
from benchmark.scenes.models import load_referee


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Return a folder with `work` and `out` of one run of all stages."""
    folder = tmp_path_factory.mktemp("pretrain")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pretrain, "HELD_OUT", 16)
        for name, stage in pretrain.STAGES.items():
            batch = min(stage.batch, 8)
            patch.setitem(pretrain.STAGES, name, replace(stage, rounds=(5 * batch,) * len(stage.rounds), batch=batch))
        arguments = ["--work", str(folder / "work"), "--out", str(folder / "out"), "--pool-size", "40"]
        assert pretrain.main([*arguments, "--device", "cpu"]) == 0
        yield folder


def cards(folder: Path) -> dict[str, dict[str, object]]:
    return {path.stem: json.loads(path.read_text()) for path in (folder / "out" / "cards").glob("*.json")}


def test_one_command_makes_every_model_in_the_layout_its_library_reads(made: Path) -> None:
    out = made / "out"
    pipeline = StableDiffusionPipeline.from_pretrained(out / "scenes-tiny", safety_checker=None)
    assert pipeline.unet.config.in_channels == pipeline.vae.config.latent_channels
    assert CLIPModel.from_pretrained(out / "clip").config.projection_dim == 64
    assert not load_referee(out / "referee" / "model.safetensors").training


def test_every_card_says_what_was_done(made: Path) -> None:
    found = cards(made)
    assert set(found) == set(pretrain.STAGES)
    for name, card in found.items():
        stage = pretrain.STAGES[name]
        assert (card["images_seen"], card["rounds"]) == (sum(stage.rounds), len(stage.rounds))
        assert card["device"] == "cpu"
        assert card["held_out_scores"]


def test_the_base_is_judged_with_and_without_its_own_drawing(made: Path) -> None:
    scores = json.loads((made / "out" / "cards" / "unet.json").read_text())["held_out_scores"]
    assert set(scores["frechet"]) == {"real", "vae", "base"}
    assert len(scores["curve"]) == 5 * len(pretrain.STAGES["unet"].rounds) - 1
    assert "miou" in scores["referee_after_vae"]


def test_the_last_round_of_the_autoencoder_leaves_its_latents_as_they_are(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage = pretrain.STAGES["vae"]
    monkeypatch.setitem(pretrain.STAGES, "vae", replace(stage, rounds=(*stage.rounds, stage.rounds[0])))
    arguments = ["--work", str(tmp_path), "--out", str(made / "out"), "--pool-size", "40", "--stage", "vae"]
    for pool in (made / "work").glob("pretrain*-s0"):
        (tmp_path / pool.name).symlink_to(pool)
    before = pretrain.finished_model("vae", made / "out").state_dict()
    assert pretrain.main([*arguments, "--device", "cpu", "--go-on"]) == 0
    after = pretrain.finished_model("vae", made / "out").state_dict()
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert any(name.startswith("decoder.") for name in moved)
    assert not any(name.startswith(("encoder.", "quant_conv.")) for name in moved)
    assert cards(made)["vae"]["before"] is not None


def test_going_on_needs_weights_that_lack_one_round(made: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--go-on trains the last"):
        pretrain.begin_last_round("clip", tmp_path, made / "out")
