"""The four prompt settings of the paper's ablation."""

import pytest

from benchmark.base.errors import UserError
from benchmark.engine.imagesets import PROMPTS, prompts

CAPTIONS = ["a red cube", "a blue cone", "a person", "a green sphere", "two cubes"]


def test_full_and_none_are_the_caption_and_nothing() -> None:
    assert prompts("full", CAPTIONS) == CAPTIONS
    assert prompts("none", CAPTIONS) == [""] * 5


def test_insufficient_is_the_papers_sentence_for_all() -> None:
    assert set(prompts("insufficient", CAPTIONS)) == {"a high-quality, detailed, and professional image"}


def test_conflicting_is_every_caption_once_and_never_with_its_own_sample() -> None:
    found = prompts("conflicting", CAPTIONS)
    assert sorted(found) == sorted(CAPTIONS)
    assert all(a != b for a, b in zip(found, CAPTIONS, strict=True))


@pytest.mark.parametrize("captions", [["", ""], ["a red cube"], ["same", "same", "same"]])
def test_conflicting_prompts_need_captions_that_differ(captions: list[str]) -> None:
    with pytest.raises(UserError, match="need captions that differ"):
        prompts("conflicting", captions)


@pytest.mark.parametrize("setting", PROMPTS)
def test_every_setting_gives_a_prompt_for_each_sample(setting: str) -> None:
    assert len(prompts(setting, CAPTIONS)) == 5
