"""`clearhead doctor`: describes this machine and how clearhead uses it, and checks that its numbers are right.

Responsible for the facts and checks in a diagnosis, which is data first, then text. It changes only the kernel cache.
"""

import os
import platform
import sys
import time
import warnings
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

import clearhead
from clearhead import settings
from clearhead.definition import canonical
from clearhead.errors import MachineError, reason
from clearhead.kernels.abi.tiles import ELEMENTS, tile_for
from clearhead.machine import loading, store
from clearhead.machine.compile import KernelSpec, emit, link, machine_for, stored_object
from clearhead.machine.loading import llvm, llvm_version
from clearhead.machine.peak import Peak
from clearhead.machine.systems import tried
from clearhead.machine.target import native_isas, target
from clearhead.machine.threads import allowed
from clearhead.rules.mask_kinds import Mask
from clearhead.rules.masks import causal, full, where, window
from clearhead.testing import check_definition, check_hidden, check_same_bits, using_isa

if TYPE_CHECKING:
    from clearhead.gpu.driver import Card

DEFINITION = "definition"  # what computes where nothing can be compiled
CPU_CACHES = Path("/sys/devices/system/cpu/cpu0/cache")


@dataclass(frozen=True)
class KernelCheck:
    """One kind of kernel compared with the definition, or a GPU's with the CPU's; `fault` is empty if it passed."""

    isa: str
    dtype: str
    fault: str


@dataclass(frozen=True)
class Diagnosis:
    """Everything that a bug report needs."""

    facts: dict[str, str]
    settings: dict[str, str]
    peaks: dict[str, float]  # GF/s of fused multiply-adds on one thread
    checks: tuple[KernelCheck, ...]
    warnings: tuple[str, ...]

    @property
    def healthy(self) -> bool:
        """Whether every kernel agrees with the definition."""
        return not any(check.fault for check in self.checks)

    def __str__(self) -> str:
        width = max(map(len, [*self.facts, *self.settings]))
        lines = [f"{name:<{width}}  {value}" for name, value in self.facts.items()]
        lines += ["", "settings in force"]
        lines += [f"{name:<{width}}  {value}" for name, value in self.settings.items()]
        lines += ["", "fused multiply-adds, one thread"] if self.peaks else []
        lines += [f"{dtype:<{width}}  {rate:.0f} GF/s" for dtype, rate in self.peaks.items()]
        lines += ["", "self-check against the definition, bit by bit"]
        lines += [f"{f'{c.isa} {c.dtype}':<{width}}  {c.fault or 'pass'}" for c in self.checks]
        lines += [f"\nwarning: {warning}" for warning in self.warnings]
        lines += ["", "healthy" if self.healthy else "NOT healthy: please report all of the above"]
        return "\n".join(lines)


def examine() -> Diagnosis:
    """Look at the machine, the settings and the cache, and check every kernel this processor can run."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        compiles = not loading.fault()
        checks = tuple(check_kernels(isa, dtype) for isa in engines() for dtype in ELEMENTS)
        cards, card_checks = gpus() if compiles else ({"GPU": "not used without llvmlite"}, [])
        facts = {**versions(), **processor(), **cards, **(kernel_cache() if compiles else {})}
    rates = {dtype: Peak(dtype) for dtype in ELEMENTS} if compiles else {}
    return Diagnosis(
        facts=facts,
        settings={s.name: s.read() or "(empty)" for s in settings.ALL},
        peaks={dtype: max(rate.measure() for _ in range(20)) for dtype, rate in rates.items()},
        checks=(*checks, *card_checks),
        warnings=tuple(dict.fromkeys(str(warning.message) for warning in caught)),
    )


def versions() -> dict[str, str]:
    """The versions of everything that affects the numbers."""
    return {
        "clearhead": clearhead.__version__,
        "Python": f"{platform.python_version()} ({platform.python_implementation()})",
        "numpy": np.__version__,
        "llvmlite": f"none: {loading.fault()}" if loading.fault() else llvm_version().removeprefix("llvmlite "),
        "system": f"{platform.system()} {platform.release()}, {platform.machine()}",
        "tried there": tried(),
    }


def engines() -> tuple[str, ...]:
    """What can compute attention here: instruction sets, or the definition."""
    return (DEFINITION,) if loading.fault() else native_isas()


def processor() -> dict[str, str]:
    """The processor, and the instruction set and threads in use."""
    if loading.fault():
        return {"processor": processor_name(), "instruction set": f"none: the {DEFINITION} computes, on short inputs"}
    isa = target()
    return {
        "processor": f"{processor_name()}, to LLVM {llvm().get_host_cpu_name()}",
        "caches": cache_sizes() or "unknown",
        "instruction set": f"{isa.isa}, of {', '.join(native_isas())}",
        "vectors": f"{isa.vector_bits} bits, {isa.registers} registers",
        "threads": f"{allowed()} of {os.cpu_count()} processors",
    }


def processor_name() -> str:
    """The processor's model name, where the system reports one."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or "unknown"


def cache_sizes() -> str:
    """The levels and sizes of one core's data caches."""
    sizes = []
    for index in sorted(CPU_CACHES.glob("index*")):
        try:
            level, kind, size = (
                (index / name).read_text(encoding="utf-8").strip() for name in ("level", "type", "size")
            )
        except OSError:
            continue
        if kind != "Instruction":
            sizes.append(f"L{level} {size.replace('K', ' KiB').replace('M', ' MiB')}")
    return ", ".join(sizes)


def gpus() -> tuple[dict[str, str], list[KernelCheck]]:
    """The NVIDIA GPUs, and whether each gives the CPU's bits; an old one, or none, is no fault."""
    from clearhead.gpu.driver import driver as find_driver
    from clearhead.gpu.launch import check_card
    from clearhead.gpu.programs import KINDS
    from clearhead.gpu.tile import DIMS

    try:
        driver = find_driver()
        count = driver.count()
    except MachineError as error:
        return {"GPU": f"none, for {str(error).partition(':')[0]}"}, []
    if not count:
        return {"GPU": "none"}, []
    facts, checks = {}, []
    for index in range(count):
        name = "GPU" if count == 1 else f"GPU {index}"
        try:
            card = driver.card(index)
            facts[name] = str(card)
            check_card(card)
        except MachineError as error:
            facts[name] = f"{facts.get(name, f'card {index}')}, not used: {reason(error)}"
            continue
        checks += [check_gpu(name, card, kind, dim) for kind in KINDS for dim in DIMS]
    return facts | gpu_evidence(), checks


def gpu_evidence() -> dict[str, str]:
    """Which kernels for GPUs a card has confirmed before, and which were only emulated."""
    from clearhead.gpu.programs import CARDS_WITH_RULES, KINDS

    seen = [f"{kind.title} ({kind.cards})" for kind in KINDS.values() if kind.cards]
    emulated = [kind.title for kind in KINDS.values() if not kind.cards]
    (seen if CARDS_WITH_RULES else emulated).append("score rules and masks beyond windows")
    return {"GPU bits": f"confirmed: {', '.join(seen)}; only in emulation: {', '.join(emulated) or 'none'}"}


def check_gpu(name: str, card: "Card", kind: str, dim: int) -> KernelCheck:
    """Compare a card's kernel of one kind and dim with the CPU's, now."""
    from clearhead.gpu.confirmed import differences
    from clearhead.gpu.launch import kernel_of, tile_of
    from clearhead.gpu.programs import Program

    fault = ""
    try:
        program = Program(kind, tile_of(card, dim))
        kernel = kernel_of(card, program)
        try:
            different = differences(kernel, program)
        finally:
            kernel.unload()
        fault = f"FAIL: {different} numbers differ from the CPU's" if different else ""
    except MachineError as error:
        fault = f"FAIL: {reason(error)}"
    return KernelCheck(f"{name} {kind} {dim}", "float32", fault)


def kernel_cache() -> dict[str, str]:
    """The kernel cache's directory, and the time to compile a kernel and to load it from the cache."""
    folder, state, directory = store.usable(), "not used", "none"
    try:
        directory = str(store.directory())
        if folder is not None:
            sizes = [entry.stat().st_size for entry in folder.iterdir() if entry.is_file()]
            state = f"{len(sizes)} entries, {sum(sizes) / 1024:.0f} KiB, private"
    except OSError as error:
        state = f"cannot be read: {error.strerror}"
    isa = target()
    spec = KernelSpec("forward", tile_for(ELEMENTS["float32"], isa.vector_bits, isa.registers), isa)
    machine_for(isa)
    start = time.perf_counter()
    emit(spec)
    compiled = time.perf_counter()
    link(spec, stored_object(spec))
    loaded = time.perf_counter()
    return {
        "kernel cache": f"{directory} ({state})",
        "a kernel": f"{1e3 * (compiled - start):.0f} ms to compile, {1e3 * (loaded - compiled):.1f} ms to load again",
    }


def check_kernels(isa: str, dtype: str) -> KernelCheck:
    """Check the kernels of one instruction set on problems that use every part: forward, decode, fused rules."""
    problems: tuple[tuple[int, int, int, Mask], ...] = (
        (1, 1, 1, causal()),
        (70, 70, 20, causal()),
        (9, 300, 17, causal(align="end")),
        (3, 300, 16, window(150, align="end")),
        (50, 70, 8, window(None, None, align="end") & where(lambda batch, head, query, key: (query + key) % 3 > head)),
        (33, 140, 5, full()),
    )
    rng = np.random.default_rng(0)
    try:
        with nullcontext() if isa == DEFINITION else using_isa(isa):
            for queries, keys, dim, mask in problems:
                q, k, v = (rng.standard_normal((2, n, dim)).astype(dtype) for n in (queries, keys, keys))
                check_same_bits(clearhead.attention(q, k, v, mask=mask), canonical.attention(q, k, v, mask=mask)[0])
                check_definition(clearhead.attention, q, k, v, mask=mask)
            check_hidden(clearhead.attention, q[:, :9], k[:, :9], v[:, :9], mask=causal())
    except Exception as error:  # any exception is part of the diagnosis
        return KernelCheck(isa, dtype, f"FAIL: {type(error).__name__}: {error}")
    return KernelCheck(isa, dtype, "")


def as_json(diagnosis: Diagnosis) -> str:
    """The diagnosis as JSON."""
    import json
    from dataclasses import asdict

    return json.dumps({**asdict(diagnosis), "healthy": diagnosis.healthy, "executable": sys.executable}, indent=2)
