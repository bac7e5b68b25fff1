"""Threefry-2x32: pseudorandom numbers that depend only on a key and a counter, in any order and on any thread.

Defines the algorithm once for every implementation of 32-bit words: numpy's, torch's and the kernels' vectors.
13 rounds are the fewest that pass BigCrush. Source: Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3",
section 3.3 and table 2.
"""

from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

ROUNDS = 13
ROTATIONS = (13, 15, 26, 6, 17, 29, 16, 24)
PARITY = 0x1BD11BDA
BITS = 30  # of a random number: it and the bound 2³⁰ are nonnegative as signed 32-bit integers


class Words(Protocol):
    """Arithmetic on 32-bit words; sums wrap around."""

    def word(self, number: int) -> Any:
        """A constant."""

    def add(self, a: Any, b: Any) -> Any:
        """a + b."""

    def xor(self, a: Any, b: Any) -> Any:
        """a ^ b."""

    def rotate(self, a: Any, by: int) -> Any:
        """Rotate bits to the left."""


def threefry(words: Words, key: tuple[Any, Any], counter: tuple[Any, Any], rounds: int = ROUNDS) -> tuple[Any, Any]:
    """Two random words from a key and a counter of two words each."""
    keys = (*key, words.xor(words.xor(key[0], key[1]), words.word(PARITY)))
    a, b = words.add(counter[0], keys[0]), words.add(counter[1], keys[1])
    for n in range(rounds):
        a = words.add(a, b)
        b = words.xor(words.rotate(b, ROTATIONS[n % 8]), a)
        if n % 4 == 3:
            step = n // 4 + 1
            a = words.add(a, keys[step % 3])
            b = words.add(words.add(b, keys[(step + 1) % 3]), words.word(step))
    return a, b


class Numpy:
    """Words as numpy's uint32."""

    @staticmethod
    def word(number: int) -> Any:
        """A constant."""
        return np.asarray(number, np.uint32)

    @staticmethod
    def add(a: Any, b: Any) -> Any:
        """a + b."""
        return np.add(a, b, dtype=np.uint32)

    @staticmethod
    def xor(a: Any, b: Any) -> Any:
        """a ^ b."""
        return np.bitwise_xor(a, b)

    @staticmethod
    def rotate(a: Any, by: int) -> Any:
        """Rotate bits to the left."""
        return np.left_shift(a, np.uint32(by)) | np.right_shift(a, np.uint32(32 - by))


def threefry_number(key0: Any, key1: Any, counter0: Any, counter1: Any) -> npt.NDArray[np.int64]:
    """A random number below 2³⁰; only the lowest 32 bits of key and counter count.

    >>> threefry_number(1, 2, np.arange(3), 0).tolist() == threefry_number(1, 2, np.arange(3) + 2**32, 0).tolist()
    True
    """
    k0, k1, c0, c1 = (np.asarray(x, np.int64).astype(np.uint32) for x in (key0, key1, counter0, counter1))
    result: npt.NDArray[np.int64] = (threefry(Numpy(), (k0, k1), (c0, c1))[0] >> np.uint32(32 - BITS)).astype(np.int64)
    return result
