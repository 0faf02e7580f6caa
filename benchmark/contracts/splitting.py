"""How a source without splits of its own is divided, and into which parts: by hashes of its keys, whatever the size."""

from collections.abc import Sequence

from benchmark.base.errors import UserError
from benchmark.base.seeds import hash64

HELD_OUT = 256
PART = 500


def divide(keys: Sequence[str], held_out: int = HELD_OUT) -> dict[str, list[str]]:
    """Return the keys of every part, test and validation first: disjoint, in an order that no size changes.

    A tenth of the keys goes to test and as many to validation: at most `held_out`, and of a small set up to 8.

    Raises:
        UserError: Fewer than three keys.
    """
    if len(keys) < 3:
        raise UserError(f"{len(keys)} images are too few; a dataset needs at least 3: one each for train, val and test")
    order = sorted(keys, key=lambda key: (hash64("order", key), key))
    share = held_out_share(len(keys), held_out)
    cuts = {"test": order[:share], "val": order[share : 2 * share], "train": order[2 * share :]}
    return {
        f"{split}-{start // PART:06d}": rows[start : start + PART]
        for split, rows in cuts.items()
        for start in range(0, len(rows), PART)
    }


def held_out_share(count: int, held_out: int = HELD_OUT) -> int:
    """Return how many of `count` samples go to test, and to validation: a tenth, or a quarter where that is below 8."""
    return min(held_out, max(count // 10, min(8, count // 4), 1))
