"""Steps that a GPU replays are the steps that Python would have asked for; skipped where there is none."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmark import registry
from benchmark.base.errors import UserError
from benchmark.contracts.plugins import Method
from benchmark.engine.bases import Base, load_base
from benchmark.engine.journal import read_curve
from benchmark.engine.reader import TrainingData
from benchmark.engine.recorded import Recorded
from benchmark.engine.training import Recipe, Trainee, train
from tests.small_bases import write_base

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
RECIPE = Recipe(12, 4, 1e-4, 0.01, 0.5, {"init": 0, "order": 0, "noise": 0}, 5, max_grad_norm=1.0)


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Base]:
    """Return bases on the GPU: the bundled one, and Stable Diffusion's wirings at an eighth of their widths."""
    scratch = tmp_path_factory.mktemp("bases")
    small = {kind: load_base(str(write_base(kind, scratch / kind, 8)), "cuda") for kind in ("sd15", "sd2", "sdxl")}
    return {"scenes-tiny": load_base("scenes-tiny", "cuda"), **small}


def data_for(base: Base) -> TrainingData:
    draw = torch.Generator().manual_seed(0)
    pixels = 16 * base.latent_scale
    moments = torch.randn(6, 2, 4, 16, 16, generator=draw).abs()
    images = torch.randint(0, 256, (6, pixels, pixels, 3), generator=draw, dtype=torch.uint8).numpy()
    return TrainingData(moments, images, base.token_ids([f"a red cube {i}" for i in range(6)]), base.token_ids([""])[0])


def losses(base: Base, method: Method, recipe: Recipe, run: Path, eager: bool) -> list[float]:
    """Train and return the losses of the curve."""
    torch.manual_seed(0)
    module = method.build(base.unet, base.latent_scale)
    trainee = Trainee(module, method.save, lambda folder: method.load(str(folder)))
    train(base, trainee, data_for(base), recipe, run, eager=eager)
    return [row["loss"] for row in read_curve(run)]


METHODS = ["controlnet", "controlnet,init=gaussian", "controlnet,unlocked=true", "controlnet_lite", "t2i_adapter"]
CASES = [
    *[("scenes-tiny", method, RECIPE) for method in METHODS],
    *[(base, "controlnet", RECIPE) for base in ("sd15", "sd2", "sdxl")],
    ("sd15", "controlnet", replace(RECIPE, mixed_precision="bf16")),
    ("sd15", "controlnet", replace(RECIPE, gradient_accumulation_steps=2)),
    ("sd15", "controlnet", replace(RECIPE, ema_decay=0.9, snr_gamma=5.0, schedule="cosine")),
    ("sd15", "controlnet", replace(RECIPE, gradient_checkpointing=True)),
]


@pytest.mark.parametrize(("name", "method", "recipe"), CASES)
def test_a_replayed_training_is_the_one_that_python_asks_for(
    bases: dict[str, Base], tmp_path: Path, name: str, method: str, recipe: Recipe
) -> None:
    base, made = bases[name], registry.make(Method, method)
    asked = losses(base, made, recipe, tmp_path / "asked", eager=True)
    base.unet.disable_gradient_checkpointing()
    replayed = losses(base, made, recipe, tmp_path / "replayed", eager=False)
    base.unet.disable_gradient_checkpointing()
    assert len(replayed) == len(asked) == 3  # of updates 1, 11 and 12
    np.testing.assert_allclose(replayed, asked, rtol=2e-2 if recipe.mixed_precision == "bf16" else 2e-3)
    assert asked[0] != asked[1]


def test_a_step_that_waits_for_the_gpu_is_refused() -> None:
    with pytest.raises(UserError, match="--eager"):
        Recorded(lambda x: x * float(x.sum()))(torch.ones(3, device="cuda"))


def test_a_replay_computes_with_new_numbers_and_returns_a_result_of_its_own() -> None:
    weight = torch.ones(3, device="cuda", requires_grad=True)

    def work(x: torch.Tensor) -> torch.Tensor:
        weight.grad = None
        value = (weight * x).square().sum()
        value.backward()  # type: ignore[no-untyped-call]
        return value.detach()

    recorded = Recorded(work)
    first = recorded(torch.tensor([1.0, 2.0, 3.0]).pin_memory())
    with torch.no_grad():
        weight.mul_(2)
    second = recorded(torch.tensor([0.0, 1.0, 0.0], device="cuda"))
    assert (first.item(), second.item()) == (14.0, 4.0)
    assert weight.grad is not None
    assert weight.grad.tolist() == [0.0, 4.0, 0.0]
