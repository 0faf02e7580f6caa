"""The tokenizer of the bundled text encoders: CLIP's byte-level BPE, with every word of the grammar one token."""

import itertools
import json

from tokenizers import pre_tokenizers, trainers
from transformers import CLIPTokenizer

from benchmark.scenes.models import TEXT_TOKENS
from benchmark.scenes.palette import COLOURS, GROUNDS, KINDS, MATERIALS, SIZES

_BOS, _EOS = "<|startoftext|>", "<|endoftext|>"


def build_tokenizer() -> CLIPTokenizer:
    """Return the tokenizer; words outside the grammar fall apart into known bytes, so none is unknown."""
    phrases = [phrase for phrase, _, _ in GROUNDS.values()]
    relations = ["a left of, right behind in front of and"]
    corpus = [" ".join(itertools.chain(COLOURS, KINDS, MATERIALS, SIZES)), *phrases, *relations]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    backend = CLIPTokenizer().backend_tokenizer
    backend.train_from_iterator(
        corpus,
        trainers.BpeTrainer(
            vocab_size=100_000,
            initial_alphabet=sorted(alphabet),
            special_tokens=[_BOS, _EOS],
            end_of_word_suffix="</w>",
            show_progress=False,
        ),
    )
    merges = backend.model.__getstate__()
    return _assemble(merges, sorted(alphabet))


def _assemble(state: bytes, alphabet: list[str]) -> CLIPTokenizer:
    """Number the tokens as CLIP does: bytes, bytes at a word's end, merges in order, the two special tokens."""
    merges = [tuple(pair) for pair in json.loads(state)["merges"]]
    tokens = [*alphabet, *(f"{byte}</w>" for byte in alphabet), *("".join(pair) for pair in merges), _BOS, _EOS]
    vocabulary = {token: i for i, token in enumerate(dict.fromkeys(tokens))}
    return CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=TEXT_TOKENS)
