"""The tokenizer: numbered alike everywhere, a token for every word of the grammar, and room for every caption."""

import os
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest
from transformers import CLIPTokenizer

from benchmark.engine.bases import BUNDLED
from benchmark.scenes.captions import caption
from benchmark.scenes.models import CLIP_FOLDER, TEXT_TOKENS
from benchmark.scenes.tokenizer import build_tokenizer, learn_merges
from benchmark.scenes.world import draw_scene

LONGEST = 48  # tokens, both special ones included


@cache
def captions() -> list[str]:
    return [caption(draw_scene(5, i), 5, i) for i in range(10_000)]


def words(text: str) -> list[str]:
    return text.replace(",", " ,").replace(":", " :").split()


@pytest.mark.parametrize("where", ["built", "base", "clip"])
def test_every_word_of_the_grammar_is_one_token(where: str) -> None:
    folders = {"base": BUNDLED["scenes-tiny"] / "tokenizer", "clip": CLIP_FOLDER}
    tokenizer = build_tokenizer() if where == "built" else CLIPTokenizer.from_pretrained(folders[where])
    for text in captions()[:500]:
        assert [token.removesuffix("</w>") for token in tokenizer.tokenize(text)] == words(text)
    assert tokenizer.model_max_length == TEXT_TOKENS


def test_no_caption_is_cut_short() -> None:
    ids = build_tokenizer()(captions()).input_ids
    lengths = {len(words(text)) + 2 for text in captions()}
    assert {len(row) for row in ids} == lengths
    assert max(lengths) <= LONGEST <= TEXT_TOKENS
    assert len({word for text in captions() for word in words(text)}) > 50


def test_captions_come_back_from_their_tokens() -> None:
    tokenizer = build_tokenizer()
    for text in captions()[:200]:
        back = tokenizer.decode(tokenizer(text).input_ids, skip_special_tokens=True)
        assert words(back) == words(text)


def test_different_captions_have_different_tokens() -> None:
    texts = sorted(set(captions()))[:2000]
    assert len({tuple(row) for row in build_tokenizer()(texts).input_ids}) == len(texts)


@pytest.mark.parametrize("text", ["a zebra", "a glossier cube", "ünïted"])
def test_a_word_outside_the_grammar_is_spelt_and_comes_back(text: str) -> None:
    tokenizer = build_tokenizer()
    ids = tokenizer(text).input_ids
    assert tokenizer.unk_token_id not in ids[1:-1]
    assert len(ids) - 2 > len(text.split())
    assert tokenizer.decode(ids, skip_special_tokens=True) == text


def test_another_process_numbers_the_tokens_alike() -> None:
    code = "from benchmark.scenes.tokenizer import build_tokenizer as b; print(sorted(b().get_vocab().items()))"
    root, other = Path(__file__).parents[2], {**os.environ, "PYTHONHASHSEED": "7"}  # its sets are in another order
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, cwd=root, env=other)
    assert str(sorted(build_tokenizer().get_vocab().items())).encode() in done.stdout


def test_merges_take_the_most_frequent_pair_first_and_end_in_whole_words() -> None:
    assert learn_merges(["ab", "abc"]) == [("a", "b"), ("a", "b</w>"), ("ab", "c</w>")]
