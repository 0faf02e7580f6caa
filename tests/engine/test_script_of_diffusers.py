"""Our trainer fits what the training script of diffusers fits, loss by loss, when both are given the same draws."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from benchmark.engine.bases import Base
from benchmark.engine.training import Recipe
from tests.perf.train_step import both_with_the_same_draws, fresh, load_frozen, make_pairs, our_data, ours

RECIPE = Recipe(
    steps=3,
    batch=2,
    learning_rate=1e-3,
    weight_decay=0.01,
    empty_prompt_rate=0.5,
    seeds={"order": 0, "noise": 0},
    checkpoint_every=3,
    max_grad_norm=1.0,
)


def flat(module: nn.Module) -> Tensor:
    return torch.cat([p.detach().flatten() for p in module.parameters()])


def test_losses_and_weights_are_those_of_the_script(base: Base) -> None:
    pairs = make_pairs(4, 64)  # the third step begins a second epoch
    script, losses, theirs, mine = both_with_the_same_draws(base, load_frozen(base.folder), pairs, RECIPE)
    assert losses == pytest.approx(script, rel=1e-5)
    moved, apart = flat(theirs) - flat(fresh(base)), flat(mine) - flat(theirs)
    assert float(apart.norm()) < 0.05 * float(moved.norm())
    untrained = ours(base, fresh(base), our_data(base, pairs), replace(RECIPE, learning_rate=1e-12))
    assert losses[0] == pytest.approx(untrained[0], rel=1e-6)
    assert losses[2] != pytest.approx(untrained[2], rel=1e-4)  # else any two trainers would pass
