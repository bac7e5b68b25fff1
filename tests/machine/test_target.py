"""Targets: the one in force, narrower ones, and the code made for each."""

import re

import numpy as np
import pytest

from clearhead import MachineError, self_attention
from clearhead.kernels.abi.tiles import F32, F64, tile_for
from clearhead.machine.compile import KernelSpec, assembly, emit
from clearhead.machine.target import AARCH64, NEEDS, native_isas, target, target_for
from clearhead.testing import check_same_bits, using_isa

ELEMENTS = {"f32": F32, "f64": F64}


def code_for(place, element):
    return assembly(KernelSpec("forward", tile_for(element, place.vector_bits, place.registers), place))


def functions(text: str) -> dict[str, str]:
    """The body of each function of an assembly listing."""
    found = {}
    for match in re.finditer(r"^(\w+):.*?^\.Lfunc_end", text, re.MULTILINE | re.DOTALL):
        found[match.group(1)] = match.group(0)
    return found


def loops(body: str) -> list[str]:
    """The innermost loops of a function: from a label to the jump back to it, with no label between."""
    return [
        match.group(0)
        for match in re.finditer(r"^(\.LBB\w+):(?:(?!^\.LBB).)*?\bj\w+\s+\1$", body, re.MULTILINE | re.DOTALL)
    ]


def needs(isa):
    return pytest.mark.skipif(isa not in native_isas(), reason=f"this processor has no {isa}")


def test_the_best_is_in_force_unless_another_is_named(monkeypatch):
    assert target().isa == native_isas()[0]
    monkeypatch.setenv("CLEARHEAD_ISA", "Generic")
    assert target().isa == "generic"


@pytest.mark.parametrize("name", ["sse9", "avx-512", "neon" if "neon" not in native_isas() else "avx2"])
def test_what_the_processor_lacks_is_refused_with_what_it_has(monkeypatch, name):
    monkeypatch.setenv("CLEARHEAD_ISA", name)
    with pytest.raises(MachineError, match=f"CLEARHEAD_ISA={name}.*generic"):
        target()


def test_every_native_target_gives_the_same_bits():
    for dtype in (np.float32, np.float64):
        x = np.random.default_rng(0).standard_normal((3, 150, 40)).astype(dtype)
        wanted = self_attention(x)
        for isa in native_isas():
            with using_isa(isa):
                check_same_bits(self_attention(x), wanted, isa)


def test_a_target_is_known_by_all_that_changes_code():
    targets = {target_for(isa) for isa in native_isas()}
    assert len(targets) == len(native_isas())
    assert set(native_isas()) <= set(NEEDS)


@needs("avx512")
@pytest.mark.parametrize("element", ELEMENTS)
def test_avx512_uses_whole_vectors_and_spills_none_in_the_sums(element):
    parts = functions(code_for(target_for("avx512"), ELEMENTS[element]))
    suffix = "ps" if element == "f32" else "pd"
    for name, body in parts.items():
        if name.startswith(("score_", "values_")):
            inner = [loop for loop in loops(body) if "vfmadd" in loop]
            assert inner, name
            for loop in inner:
                assert re.search(rf"vfmadd231{suffix}.*%zmm", loop), name
                assert not re.search(r"vmov\w+\s+%zmm\d+, [-\w]*\(%rsp", loop), f"{name} spills"


@needs("avx2")
@pytest.mark.parametrize("element", ELEMENTS)
def test_avx2_uses_its_own_registers_and_spills_none_in_the_widest_sums(element):
    text = code_for(target_for("avx2"), ELEMENTS[element])
    assert "%zmm" not in text
    assert re.search(r"vfmadd231p[sd].*%ymm", text)
    parts = functions(text)
    for name in ("score_3", "values_2"):
        inner = [loop for loop in loops(parts[name]) if "vfmadd" in loop]
        assert inner, name
        for loop in inner:
            assert not re.search(r"vmov\w+\s+%ymm\d+, [-\w]*\(%rsp", loop), f"{name} spills"


def test_generic_needs_no_vector_unit_of_any_kind():
    if "x86" in target().triple:
        text = code_for(target_for("generic"), F32)
        assert "%ymm" not in text
        assert "%zmm" not in text
        assert "vfmadd" not in text
        assert re.search(r"call\w*\s+fmaf", text)  # the rounding of a fused multiply-add, from the C library


@pytest.mark.parametrize(("element", "shape"), [("f32", "4s"), ("f64", "2d")])
def test_aarch64_is_compiled_on_any_machine(element, shape):
    text = code_for(AARCH64, ELEMENTS[element])
    parts = functions(text)
    assert "forward" in parts
    for name in ("score_4", "values_2"):
        assert re.search(rf"fmla\s+v\d+\.{shape}, v\d+\.{shape}, v\d+\.", parts[name]), name
    assert not re.search(r"\bbl\s+(fmaf?|expf?|logf?)\b", text)
    assert "%" not in re.sub(r"(?m)^\s*[./].*$|@\w+|//.*$", "", text)


def test_aarch64_object_code_is_what_it_says():
    code = emit(KernelSpec("forward", tile_for(F32, AARCH64.vector_bits, AARCH64.registers), AARCH64))
    assert code[:4] == b"\x7fELF"
    assert int.from_bytes(code[18:20], "little") == 183  # EM_AARCH64
