"""Code for systems that are not at hand: written on this one, and read for what it calls, saves and calculates."""

import re
from dataclasses import replace

import ir_kernels
import pytest

from clearhead.machine.compile import assembly, emit
from clearhead.machine.target import AARCH64, MACOS_ARM, WINDOWS, WINDOWS_ARM

SYSTEMS = {
    "macOS ARM": (MACOS_ARM, AARCH64),
    "Windows ARM": (WINDOWS_ARM, AARCH64),
    **{f"Windows {isa}": (target, ir_kernels.TARGETS[isa]) for isa, target in WINDOWS.items()},
}
KERNELS = {
    "forward": lambda isa: ir_kernels.forward(isa, "f32", "causal"),
    "forward of a rule": lambda isa: ir_kernels.forward(isa, "f32", "several"),
    "backward": lambda isa: ir_kernels.backward(isa, "f64", "softcap"),
    "decode": lambda isa: ir_kernels.cached(isa, "f32", "causal", 1, int8=True),
    "row sweep": lambda isa: ir_kernels.row(ir_kernels.forward(isa, "f32", "softcap")),
    "sweep": lambda isa: ir_kernels.sweep(isa, "f32", "window", ("received_sum", "received_max")),
}
MAGIC = {"macOS ARM": "cffaedfe0c000001", "Windows ARM": "64aa"} | {f"Windows {isa}": "6486" for isa in WINDOWS}
FROM_C = {"generic": {"fma", "fmaf"}}  # one rounding, where no instruction gives it
MULTIPLY_ADDS = r"\b(?:vfn?m(?:add|sub)\w+|fml[as]|fn?m(?:add|sub))\b|\bcallq?\s+_?fmaf?\b"


def spec_on(system, kernel):
    target, _ = SYSTEMS[system]
    return replace(KERNELS[kernel](target.isa), target=target)


CHECKED = [
    *(("macOS ARM", kernel) for kernel in KERNELS),
    *(("Windows avx2", kernel) for kernel in ("forward of a rule", "backward", "decode")),
    ("Windows avx512", "forward of a rule"),
    ("Windows generic", "forward"),
    ("Windows ARM", "decode"),
]


@pytest.fixture(scope="module", params=CHECKED, ids=" | ".join)
def code(request):
    """A system, a kernel of it, and its assembly."""
    system, kernel = request.param
    return system, kernel, assembly(spec_on(system, kernel))


def bodies(text: str) -> dict[str, str]:
    """The functions of a listing by name; Apple's and Windows' assemblers each mark them in a way of their own."""
    starts = [m for m in re.finditer(r"(?m)^(\w+):", text) if not re.match(r"L?BB|ltmp|Ltmp|Lloh|l_?CPI|__", m[1])]
    ends = [m.start() for m in starts[1:]] + [len(text)]
    return {m[1].removeprefix("_"): text[m.end() : end] for m, end in zip(starts, ends, strict=True)}


def called(text: str) -> set[str]:
    """The functions that some code calls or jumps to."""
    found = re.findall(r"(?m)^\s+(?:callq?|jmp|bl|b)\s+([A-Za-z_]\w*)", text)
    return {name.removeprefix("_") for name in found if not re.match(r"\.?L?BB", name)}


def test_nothing_outside_is_called(code):
    system, _, text = code
    isa = SYSTEMS[system][0].isa
    assert called(text) - set(bodies(text)) <= FROM_C.get(isa, set())
    assert "chkstk" not in text, "a frame larger than a page"


def test_what_the_system_keeps_for_itself_is_left_alone(code):
    system, kernel, text = code
    entry = bodies(text)[spec_on(system, kernel).kernel]
    if "ARM" in system:
        assert not re.search(r"\b[xw]18\b", text)
        saved = r"(?m)\b[sf]tp\s+d{n}, |\bstp\s+d\d+, d{n}|\bstr\s+d{n}, "
        used = {int(n) for n in re.findall(r"\b[vdq](\d+)\b", entry)} & set(range(8, 16))
        missing = [n for n in used if not re.search(saved.format(n=n), entry)]
    else:
        first = re.search(r"%[re]cx", entry)
        assert first, "its first argument comes in rcx"
        assert not re.search(r"mov\w*\s+\S*%[re][ds]i", entry[: first.start()]), "System V's arguments are read"
        used = {int(n) for n in re.findall(r"%[xyz]mm(\d+)", entry)} & set(range(6, 16))
        missing = [n for n in used if not re.search(rf"movap[sd]\s+%xmm{n}, -?\d*\(%r[sb]p\)", entry)]
    assert not missing, "registers that belong to the caller"


def test_the_arithmetic_is_that_of_the_system_where_tests_run(code):
    system, kernel, text = code
    own = assembly(replace(spec_on(system, kernel), target=SYSTEMS[system][1]))
    here, there = (len(re.findall(MULTIPLY_ADDS, x)) for x in (own, text))
    assert abs(there - here) <= here / 500, "more than a block that LLVM wrote twice to save a jump"


@pytest.mark.parametrize("system", SYSTEMS)
def test_object_code_is_of_the_systems_format(system):
    assert emit(spec_on(system, "forward")).hex().startswith(MAGIC[system])
