"""Functions of score rules have the definition's bits in machine code, on every instruction set."""

import re

import llvmlite.binding as llvm
import numpy as np
import pytest

from clearhead.definition.elementary import Functions
from clearhead.kernels.ir import math
from clearhead.machine.compile import machine_for
from clearhead.machine.target import AARCH64, native_isas, target_for
from clearhead.testing import check_same_bits, using_isa
from tests.rules import compiled
from tests.rules.exact import OF_TWO, angles_near_quarter_turns, arguments

DTYPES = [np.float32, np.float64]
SPECIAL = [0, 1, 2, 0.5, 3, 2.5, 1e30, 1e-30, 5e-324, 1e-44, 1e300, 2.0**52 + 1, 2.0**53, np.inf]


def inputs(name, dtype):
    """Numbers of every size, special ones, and what is not a number."""
    special = np.array([*SPECIAL, np.nan], np.float64).astype(dtype)
    special = np.concatenate([special, -special])
    if name in OF_TWO:
        first, second = (x.ravel() for x in np.meshgrid(special, special))
    else:
        first = np.concatenate([special, angles_near_quarter_turns(dtype)[::9]])
    given = (first, second) if name in OF_TWO else (first,)
    return [np.concatenate(both) for both in zip(given, arguments(name, dtype, 2000, seed=1), strict=True)]


@pytest.mark.filterwarnings("ignore:overflow")
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", math.FUNCTION_EMITTERS)
def test_every_instruction_set_has_the_bits_of_the_definition(name, dtype):
    given = inputs(name, dtype)
    with np.errstate(all="ignore"):
        wanted = np.sqrt(*given) if name == "sqrt" else getattr(Functions, name)(*given)
    for isa in native_isas():
        with using_isa(isa):
            check_same_bits(compiled.run(name, *given), wanted)


@pytest.mark.parametrize("isa", ["avx512", "avx2", "neon"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_no_function_calls_a_library(dtype, isa):
    if isa != "neon" and isa not in native_isas():
        pytest.skip(f"this processor has no {isa}")
    place = AARCH64 if isa == "neon" else target_for(isa)
    compiled.initialise(place.triple)
    for name in math.FUNCTION_EMITTERS:
        parsed = llvm.parse_assembly(compiled.module(name, dtype, place, 1 + (name in OF_TWO)))
        parsed.triple = place.triple
        assert not re.findall(r"\b(?:callq?|bl)\s+\S+", machine_for(place).emit_assembly(parsed)), name
