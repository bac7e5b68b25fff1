"""The instruction set that kernels are compiled for.

Chooses the target from the processor and CLEARHEAD_ISA. Narrower targets give the same bits, only slower.
`kernels.abi.tiles` chooses tile sizes.
"""

import functools
import platform
from dataclasses import dataclass

from clearhead import settings
from clearhead.errors import MachineError
from clearhead.machine.loading import llvm

# Processor features that each target requires.
NEEDS = {
    "avx512": ("avx512f", "avx512dq", "avx512bw", "avx512vl", "avx2", "fma"),
    "avx2": ("avx2", "fma"),
    "neon": ("neon",),
    "generic": (),
}


@dataclass(frozen=True)
class Target:
    """Everything about a processor that changes the generated code."""

    isa: str
    triple: str
    cpu: str
    features: str
    vector_bits: int
    registers: int


# Targets of other systems, whose code is written and looked at on any machine.
AARCH64 = Target("neon", "aarch64-unknown-linux-gnu", "generic", "+neon", 128, 32)
MACOS_ARM = Target("neon", "arm64-apple-macosx11.0.0", "apple-m1", "", 128, 32)
WINDOWS_ARM = Target("neon", "aarch64-pc-windows-msvc", "generic", "+neon", 128, 32)
WINDOWS = {
    "avx512": Target("avx512", "x86_64-pc-windows-msvc", "x86-64-v4", "", 512, 32),
    "avx2": Target("avx2", "x86_64-pc-windows-msvc", "x86-64-v3", "", 256, 16),
    "generic": Target("generic", "x86_64-pc-windows-msvc", "x86-64", "", 128, 16),
}


def native_isas() -> tuple[str, ...]:
    """The instruction sets this processor can run, widest first.

    >>> native_isas()[-1]
    'generic'
    """
    features = host_features()
    return tuple(isa for isa, needs in NEEDS.items() if all(features.get(need, False) for need in needs))


@functools.cache
def host_features() -> dict[str, bool]:
    """The processor features that LLVM detects, plus NEON on AArch64, which always has it."""
    features = dict(llvm().get_host_cpu_features())
    if platform.machine().lower() in ("aarch64", "arm64"):
        features["neon"] = True
    return features


def target() -> Target:
    """The current target: the best for this processor, or the one that CLEARHEAD_ISA names.

    Raises MachineError if the name is unknown or the processor lacks it.
    """
    return target_for(settings.ISA.read().lower())


@functools.cache
def target_for(isa: str) -> Target:
    """The target of a name; the empty name means the best."""
    available = native_isas()
    if isa and isa not in available:
        raise MachineError(f"CLEARHEAD_ISA={isa} cannot run on this processor: use one of {', '.join(available)}.")
    triple = llvm().get_process_triple()
    match isa or available[0]:
        case "avx512":
            return Target("avx512", triple, llvm().get_host_cpu_name(), flat(host_features()), 512, 32)
        case "avx2":  # with the processor's name, LLVM spills sums of scores (Zen 3) and is not faster
            return Target("avx2", triple, "x86-64-v3", "", 256, 16)
        case "neon":
            return Target("neon", triple, llvm().get_host_cpu_name(), flat(host_features()), 128, 32)
        case _:
            cpu = "x86-64" if "x86_64" in triple or "AMD64" in triple else "generic"
            return Target("generic", triple, cpu, "", 128, 16)


def flat(features: dict[str, bool]) -> str:
    """Features in LLVM's syntax, in a fixed order."""
    return ",".join(("+" if on else "-") + name for name, on in sorted(features.items()))
