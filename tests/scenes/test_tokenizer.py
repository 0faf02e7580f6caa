import subprocess
import sys
from pathlib import Path

import pytest
from transformers import CLIPTokenizer

from benchmark.engine.bases import BUNDLED
from benchmark.scenes.models import CLIP_FOLDER, TEXT_TOKENS
from benchmark.scenes.splits import example
from benchmark.scenes.tokenizer import build_tokenizer, learn_merges

CAPTIONS = [example(0, "test", i, 32).caption for i in range(100)]


def words(caption: str) -> list[str]:
    return caption.replace(",", " ,").split()


@pytest.mark.parametrize("where", ["built", "base", "clip"])
def test_every_word_of_the_grammar_is_one_token(where: str) -> None:
    folders = {"base": BUNDLED["scenes-tiny"] / "tokenizer", "clip": CLIP_FOLDER}
    tokenizer = build_tokenizer() if where == "built" else CLIPTokenizer.from_pretrained(folders[where])
    for caption in CAPTIONS:
        assert [token.removesuffix("</w>") for token in tokenizer.tokenize(caption)] == words(caption)
        assert len(words(caption)) + 2 <= TEXT_TOKENS


def test_a_word_outside_the_grammar_is_spelt_and_comes_back() -> None:
    tokenizer = build_tokenizer()
    ids = tokenizer("a zebra").input_ids
    assert tokenizer.unk_token_id not in ids[1:-1]
    assert tokenizer.decode(ids, skip_special_tokens=True) == "a zebra"


def test_two_processes_number_the_tokens_alike() -> None:
    code = "from benchmark.scenes.tokenizer import build_tokenizer as b; print(sorted(b().get_vocab().items()))"
    root = Path(__file__).parents[2]
    seen = {
        subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, cwd=root).stdout for _ in range(3)
    }
    assert len(seen) == 1
    assert str(sorted(build_tokenizer().get_vocab().items())).encode() in seen.pop()


def test_merges_take_the_most_frequent_pair_first_and_end_in_whole_words() -> None:
    assert learn_merges(["ab", "abc"]) == [("a", "b"), ("a", "b</w>"), ("ab", "c</w>")]
