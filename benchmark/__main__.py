"""Explain the suite: `python -m benchmark`."""

from benchmark import registry
from benchmark.base.console import say

_COMMANDS = {
    "build": "make a paired dataset: image, caption, condition maps",
    "train": "fit a ControlNet on a frozen base",
    "generate": "generate images for a split, with or without control",
    "evaluate": "score images: condition reconstruction, Frechet distance, CLIP score",
    "compare": "how far two records of the same samples lie apart, sample by sample",
    "leaderboard": "make the board from result records",
    "study": "run many of these from one file: study run smoke",
    "regress": "did a change make training worse? four short runs against committed bands",
}


def main() -> int:
    """Print what the suite is for, its commands and its plugins."""
    say("Measures how robust ControlNet training is. Commands, as python -m benchmark.NAME (--help for each):\n")
    for name, text in _COMMANDS.items():
        say(f"  {name:<12} {text}")
    say("\nPlugins, by family:\n")
    for family, folder in registry.FAMILIES.items():
        say(f"  {folder:<12} {', '.join(registry.names(family))}")
    say("\nFirst run, a few minutes: python -m benchmark.study run smoke")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
