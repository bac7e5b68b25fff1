"""Functions of score rules on random numbers of every size, against mpmath and against their own machine code.

Each case draws a function, a dtype and an instruction set; its errors must stay below the bounds of docs/functions.md,
and its code must give the definition's bits. 500 cases are a million arguments.
"""

import numpy as np

from clearhead.definition.elementary import Functions
from clearhead.machine.target import native_isas
from clearhead.testing import check_same_bits, using_isa
from tests.rules import compiled
from tests.rules.exact import BOUNDS, arguments, worst


def case(seed):
    """A function's name, a dtype, and an instruction set."""
    rng = np.random.default_rng(seed)
    return str(rng.choice(list(BOUNDS))), [np.float32, np.float64][rng.integers(2)], str(rng.choice(native_isas()))


def check(seed):
    """One function on two thousand arguments."""
    name, dtype, isa = case(seed)
    given = arguments(name, dtype, 2000, seed)
    with using_isa(isa), np.errstate(all="ignore"):
        wanted = np.sqrt(*given) if name == "sqrt" else getattr(Functions, name)(*given)
        check_same_bits(compiled.run(name, *given), wanted)
    error, where = worst(name, *given)
    bound = BOUNDS[name][np.dtype(dtype).name]
    assert error <= bound, f"{error:.3f} units in the last place at {where}, more than {bound}"


def describe(seed):
    """What a case was."""
    name, dtype, isa = case(seed)
    return f"{name} of {dtype.__name__} on {isa}"
