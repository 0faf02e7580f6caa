"""The tokenizer of the bundled text encoders: CLIP's byte-level BPE, with every word of the grammar one token."""

import itertools
from collections import Counter
from collections.abc import Iterable

from tokenizers import pre_tokenizers
from transformers import CLIPTokenizer

from benchmark.scenes.models import TEXT_TOKENS
from benchmark.scenes.palette import COLOURS, GROUND_PHRASES, KINDS, MATERIALS, SIZES, STATURE_WORDS, WALLS

_BOS, _EOS, _END = "<|startoftext|>", "<|endoftext|>", "</w>"
_WORDS = "a an and behind by from front in left of on one two three four five right thing things to wall with , :"


def build_tokenizer() -> CLIPTokenizer:
    """Return the tokenizer; words outside the grammar fall apart into known bytes, so none is unknown.

    Tokens are numbered as CLIP does: bytes, bytes at a word's end, merges in order, the two special tokens.
    """
    names = (*COLOURS, *KINDS, *MATERIALS, *SIZES, *STATURE_WORDS.values(), *WALLS, *GROUND_PHRASES.values())
    merges = learn_merges({word for name in (_WORDS, *names) for word in name.split()})
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokens = [*alphabet, *(byte + _END for byte in alphabet), *("".join(pair) for pair in merges), _BOS, _EOS]
    vocabulary = {token: i for i, token in enumerate(tokens)}
    return CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=TEXT_TOKENS)


def learn_merges(words: Iterable[str]) -> list[tuple[str, str]]:
    """Return the byte-pair merges, in order, after which every word is one token (Sennrich et al. 2016).

    The most frequent pair is merged first, of equally frequent ones the first in the alphabet: the trainer of
    `tokenizers` breaks ties by the order of a hash map, so that two processes number the same tokens differently.
    """
    pieces = [(*word[:-1], word[-1] + _END) for word in sorted(words)]
    merges = []
    while pairs := Counter(pair for word in pieces for pair in itertools.pairwise(word)):
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        merges.append(best)
        pieces = [_merge(word, best) for word in pieces]
    return merges


def _merge(word: tuple[str, ...], pair: tuple[str, str]) -> tuple[str, ...]:
    """Return the word with every occurrence of a pair joined, from left to right."""
    merged: list[str] = []
    for piece in word:
        if merged and (merged[-1], piece) == pair:
            merged[-1] += piece
        else:
            merged.append(piece)
    return tuple(merged)
