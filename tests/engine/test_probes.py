"""Probes: the base alone is the floor, the round trip the ceiling."""

from pathlib import Path

import pytest
import torch
from torch import nn

from benchmark import registry
from benchmark.contracts.plugins import Annotator, Condition
from benchmark.engine.bases import Base
from benchmark.engine.datasets import BuiltDataset
from benchmark.engine.diffusion import Sampling, draw
from benchmark.engine.imagesets import load_reference
from benchmark.engine.probes import Probe
from benchmark.methods.controlnet import Controlnet

SETTINGS = Sampling(num_inference_steps=2)


@pytest.fixture(scope="module")
def probe(base: Base, tiny_dataset: Path) -> Probe:
    dataset = BuiltDataset.open(tiny_dataset)
    condition = registry.remake(Condition, dataset.condition("seg"))
    reference = load_reference(dataset, "val", "seg", 4)
    return Probe(base, condition, registry.make(Annotator, condition.referee), reference, SETTINGS)


def test_the_base_alone_has_no_control(probe: Probe) -> None:
    scores = probe(None)
    assert scores["miou.normalised"] == 0.0
    assert 0 < scores["miou"] < 1


def test_a_fresh_controlnet_scores_as_the_base_alone(base: Base, probe: Probe) -> None:
    module = Controlnet().build(base.unet, base.latent_scale)
    assert probe(module) == probe(None)


def test_a_module_that_moves_the_picture_moves_the_score_and_repeats(base: Base, probe: Probe) -> None:
    module = Controlnet().build(base.unet, base.latent_scale)
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.05, generator=torch.Generator().manual_seed(0))
    assert probe(module) == probe(module)
    assert probe(module) != probe(None)


def test_an_error_measure_grows_towards_control_too(base: Base, tiny_dataset: Path) -> None:
    dataset = BuiltDataset.open(tiny_dataset)
    reference = load_reference(dataset, "val", "seg", 2)
    seg = registry.make(Condition, "seg")
    upside_down = type("UpsideDown", (type(seg),), {"errors": frozenset({"miou"})})()
    scores = Probe(base, upside_down, registry.make(Annotator, "scenes:seg"), reference, SETTINGS)(None)
    assert "miou.normalised" not in scores  # the round trip's larger mIoU would be worse: no room between
    assert "pixel_accuracy.normalised" in scores


def test_what_is_drawn_depends_on_the_key_not_on_its_neighbours(base: Base, probe: Probe) -> None:
    keys, captions = probe.reference.keys, probe.reference.captions
    blank = probe.reference.images() * 0
    together = draw(base, None, keys, captions, blank, SETTINGS)
    alone = draw(base, None, keys[1:2], captions[1:2], blank[1:2], SETTINGS)
    assert abs(together[1].astype(int) - alone[0]).max() <= 1
