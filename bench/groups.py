"""The groups of workloads, each measured in a process of its own, so that none changes another's caches or threads."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from bench.workload import Reading, Workload
from bench.workloads import (
    backward,
    calls,
    decode,
    dtypes,
    lengths,
    models,
    page,
    pieces,
    prefill,
    ranks,
    rules,
    start,
    threads,
    weights,
)


@dataclass(frozen=True)
class Group:
    """Workloads of one kind: what a heading says of them, the process's environment, and the cores that they need."""

    title: str
    workloads: Callable[..., Iterator[Workload | Reading]]
    seconds: float = 2.0  # of each workload's rounds
    cores: int = 1
    environment: Mapping[str, str] = field(default_factory=dict)


NARROW = {"CLEARHEAD_ISA": "avx2", "ATEN_CPU_CAPABILITY": "avx2", "MKL_ENABLE_INSTRUCTIONS": "AVX2"}
GROUPS = {
    "prefill": Group("Causal attention of a whole prompt", prefill.workloads),
    "avx2": Group("The same kept to 256-bit vectors", prefill.on_avx2, environment=NARROW),
    "backward": Group("Gradients, forward and backward together", backward.workloads),
    "weights": Group("Weights, without their matrix", weights.workloads),
    "rules": Group("Score rules and masks, per visible pair", rules.workloads),
    "decode": Group("One query over many keys, from memory", decode.workloads),
    "dtypes": Group("Operands of 16 bits", dtypes.workloads),
    "models": Group("Whole models", models.workloads),
    "calls": Group("Small calls", calls.workloads, seconds=1.0),
    "start": Group("Starts, and memory", start.workloads),
    "lengths": Group("One head at growing lengths", lengths.workloads),
    "threads": Group("Two threads", threads.workloads, cores=2),
    "pieces": Group("Sums and gradients in pieces", pieces.workloads),
    "ranks": Group("Two processes on one sequence", ranks.workloads, cores=2),
    "page": Group("The page", page.workloads, cores=2),
}
QUICK = ("prefill", "backward", "weights", "rules", "decode", "dtypes", "calls", "pieces")  # in one process
