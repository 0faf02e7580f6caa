"""Named, counter-based random streams: the same (seed, purpose, index) gives the same draws everywhere.

NumPy keeps the output of its bit generators stable but not that of ``Generator`` methods (NEP 19), so
every distribution used here is derived from raw Philox words by arithmetic of our own.
"""

import hashlib

import numpy as np
from numpy.typing import NDArray

SEED_NAMES = ("subset", "init", "order", "noise", "eval")


class Stream:
    """Draws belonging to one (seed, purpose, index); consecutive calls continue the stream.

    Args:
        seed: Any non-negative integer.
        purpose: What the draws are for, as in ``"noise"``; different purposes are independent.
        index: Position within the purpose, as a sample or step number.
    """

    def __init__(self, seed: int, purpose: str, index: int = 0) -> None:
        digest = hashlib.sha256(f"{seed}\0{purpose}".encode()).digest()
        key = np.frombuffer(digest[:16], dtype="<u8")
        self._bits = np.random.Philox(key=key, counter=np.array([0, 0, index, 0], dtype=np.uint64))

    def raw(self, n: int) -> NDArray[np.uint64]:
        """Return n raw 64-bit words."""
        words: NDArray[np.uint64] = self._bits.random_raw(n)
        return words

    def uniform(self, n: int) -> NDArray[np.float64]:
        """Return n draws from [0, 1)."""
        return (self.raw(n) >> np.uint64(11)).astype(np.float64) * 2.0**-53

    def between(self, low: float, high: float) -> float:
        """Return one draw from [low, high)."""
        return low + (high - low) * float(self.uniform(1)[0])

    def choice(self, n: int) -> int:
        """Return one integer from 0 to n - 1."""
        return int(self.raw(1)[0] % np.uint64(n))

    def normal(self, shape: tuple[int, ...]) -> NDArray[np.float32]:
        """Return standard normal draws (Box-Muller) as float32 of the given shape."""
        n = int(np.prod(shape))
        half = (n + 1) // 2
        radius = np.sqrt(-2.0 * np.log1p(-self.uniform(half)))
        angle = 2.0 * np.pi * self.uniform(half)
        pair = np.concatenate([radius * np.cos(angle), radius * np.sin(angle)])
        return pair[:n].astype(np.float32).reshape(shape)

    def permutation(self, n: int) -> NDArray[np.int64]:
        """Return a permutation of 0 to n - 1: the stable argsort of n raw words."""
        return np.argsort(self.raw(n), kind="stable").astype(np.int64)


def hash64(salt: str, key: str) -> int:
    """Return the first 8 bytes of sha256(salt, key): a fixed place in [0, 2**64) for a key."""
    return int.from_bytes(hashlib.sha256(f"{salt}\0{key}".encode()).digest()[:8], "big")
