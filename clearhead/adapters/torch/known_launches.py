"""Launches by the layouts of tensors, run at their addresses: no arrays are made of them on the way.

A small call costs more in conversions and checks than in its kernel. What was prepared once, `direct` and `host` find
here, in the engine's own cache of launches, beside those of arrays.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from clearhead.engine.execute import (
    COUNTERS_FIELD,
    EMPTY,
    KEY_FIELD,
    LSE_FIELD,
    OUTPUT_FIELD,
    QUERY_FIELD,
    VALUE_FIELD,
    WORKSPACE_FIELD,
)
from clearhead.engine.launch import Launch
from clearhead.machine.address import address
from clearhead.machine.threads import run_kernel

Layouts = tuple[Any, ...]


def layouts_of(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> Layouts:
    """What a launch depends on besides rules; raises RuntimeError for nested tensors."""
    return (
        query.shape, query.stride(), query.dtype, key.shape, key.stride(), key.dtype,
        value.shape, value.stride(), value.dtype,
    )  # fmt: skip


def run_at(
    launch: Launch, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, output: int, lse: int, held: Any
) -> None:
    """`engine.execute.execute` without sinks and pages, to the addresses of output and log-sum-exp (0: not wanted)."""
    table = launch.table_type.from_buffer_copy(launch.template)
    table[QUERY_FIELD], table[KEY_FIELD], table[VALUE_FIELD] = query.data_ptr(), key.data_ptr(), value.data_ptr()
    table[OUTPUT_FIELD], table[LSE_FIELD] = output, lse
    workspace, counters = EMPTY, EMPTY
    if launch.counters:
        workspace, counters = np.empty(launch.workspace, np.uint8), np.zeros(launch.counters, np.int64)
        table[WORKSPACE_FIELD], table[COUNTERS_FIELD] = address(workspace), address(counters)
    count = 1 if launch.most_threads == 1 else min(launch.most_threads, torch.get_num_threads())
    tensors = query, key, value, held, workspace, counters, launch.held
    run_kernel(launch.entry, table, launch.scratch_size, count, launch.isa, tensors)  # type: ignore[arg-type]  # kept if not None
