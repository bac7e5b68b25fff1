"""Score rules and masks of a call for a GPU's kernels: which code they are, and what each launch hands over of them.

Arrays that they read stay where they are if they are in the card's memory; others are copied there.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from clearhead.arrays import Array
from clearhead.engine.launch import array_parameters, bits
from clearhead.engine.problem import Problem
from clearhead.gpu.card_array import Elsewhere
from clearhead.gpu.driver import Card, Memory
from clearhead.kernels.abi.variant import PLAIN_VARIANT, Variant
from clearhead.once import cached_property
from clearhead.rules.expression import Formula

MOST_ENTRIES = 256  # of 8 bytes: a kernel's parameters have 4 KiB


@dataclass(frozen=True, eq=False)
class CardRules:
    """The rules of a problem beyond its band, or none."""

    variant: Variant = PLAIN_VARIANT
    siblings: int = 1  # heads of a batch
    shift: int = 0  # a query's position is its row plus this
    constants: tuple[float, ...] = ()
    arrays: tuple[Array, ...] = ()
    formulas: tuple[Formula | None, Formula | None] = (None, None)  # of mask and score

    @property
    def given(self) -> bool:
        """Whether there are any."""
        return self.variant != PLAIN_VARIANT

    @cached_property
    def constant_bits(self) -> tuple[int, ...]:
        """The constants as kernels get them."""
        return tuple(map(bits, self.constants))

    @cached_property
    def arrays_here(self) -> list[Array]:
        """The arrays that are not in the card's memory."""
        return [array for array in self.arrays if not isinstance(array, Elsewhere)]

    def place(self, number: int, row: int) -> tuple[int, ...]:
        """What kernels with rules are told of a launch: its first head's number among all, and its first query's."""
        return (number, self.siblings, row, self.shift) if self.given else ()

    def entries(self, card: Card) -> tuple[tuple[int, ...], list[Memory]]:
        """The constants and arrays as kernels get them, and the copies that were made for them."""
        numbers, copies = [*self.constant_bits], []
        for array in self.arrays:
            if isinstance(array, Elsewhere):
                numbers += array_parameters(array.ctypes.data, array.shape, array.strides)
            else:
                dense = distinct(array)
                copies.append(Memory.of(card, dense))
                strides = [0 if size == 1 else step for size, step in zip(dense.shape, dense.strides, strict=True)]
                numbers += array_parameters(copies[-1].address.value or 0, array.shape, tuple(strides))
        return tuple(numbers), copies


NO_RULES = CardRules()


def card_rules(problem: Problem) -> CardRules:
    """The rules of a problem."""
    score, mask, constants, arrays = problem.rules.expressions
    if score is None and mask is None:
        return NO_RULES
    variant = Variant(
        score=score,
        mask=mask,
        arrays=tuple((array.dtype.name, array.ndim) for array in arrays),
        long=problem.rules.long,
    )
    siblings, shift = problem.lead[-1] if problem.lead else 1, first_position(problem)
    return CardRules(variant, siblings, shift, constants, arrays, (problem.rules.mask, problem.rules.score))


def first_position(problem: Problem) -> int:
    """Where the first query stands among the keys."""
    return next((span.offset for span in problem.rules.spans), 0)


def distinct(array: Array) -> Array:
    """An array's numbers without those that a stride of 0 repeats, densely."""
    return np.asarray(array[tuple(slice(0, 1) if step == 0 else slice(None) for step in array.strides)], order="C")


def limits_of_rules(problem: Problem) -> str | None:
    """Why a GPU's kernel cannot have a problem's rules, or None."""
    if problem.rules.packed:
        return "the documents are packed"
    if problem.rules.doubtful:
        return (
            "a rule might read outside an array, divide by 0 or make a whole number of too large a float, which is "
            "found on the CPU alone (np.clip keeps an index inside, np.maximum a divisor above 0)"
        )
    if card_rules(problem).variant.entries > MOST_ENTRIES:
        return f"its rules have more than {MOST_ENTRIES} constants and axes of arrays"
    for array in problem.rules.expressions[3]:
        if isinstance(array, Elsewhere) and not array.flags.aligned:
            return f"an array of its rules, of shape {array.shape}, is not aligned to its {array.itemsize} bytes"
    return None
