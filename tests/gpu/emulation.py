"""A GPU's kernel on this processor: each thread of a group is a greenlet, and they take turns at barriers."""

import ctypes
import itertools
import random
from collections import Counter
from collections.abc import Sequence
from typing import Any

import greenlet  # type: ignore[import-untyped]
import llvmlite.binding as llvm
import numpy as np

from clearhead.machine.compile import initialise

ORDERS = ("ascending", "descending", "random")
waiting_copies: dict[Any, list[tuple[int, int]]] = {}  # of threads
asked: Counter[Any] = Counter()  # how often each thread of the group has voted
votes: Counter[int] = Counter()  # what came of each vote
AT_ONCE = {
    "declare void @host_copy(ptr, ptr)": "define void @host_copy(ptr %source, ptr %target) {\n"
    "  %four = load <4 x i32>, ptr %source, align 16\n  store <4 x i32> %four, ptr %target, align 16\n  ret void\n}",
    "declare void @host_arrived()": "define void @host_arrived() {\n  ret void\n}",
}


@ctypes.CFUNCTYPE(None)
def host_barrier() -> None:
    """Let the other threads come as far."""
    greenlet.getcurrent().parent.switch(True)


@ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int)
def host_vote(own: int) -> int:
    """What holds in any thread, once the others have come as far."""
    thread = greenlet.getcurrent()
    asked[thread] += 1
    number = asked[thread]
    votes[number] |= own
    thread.parent.switch(True)
    return votes[number]


@ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p)
def host_copy(source: int, target: int) -> None:
    """A copy in the background that is there only when it is waited for."""
    waiting_copies.setdefault(greenlet.getcurrent(), []).append((target, source))


@ctypes.CFUNCTYPE(None)
def host_arrived() -> None:
    """Wait for this thread's copies."""
    for target, source in waiting_copies.pop(greenlet.getcurrent(), ()):
        ctypes.memmove(target, source, 16)


HOST = {"host_barrier": host_barrier, "host_vote": host_vote}
LATE = HOST | {"host_copy": host_copy, "host_arrived": host_arrived}
library_names = itertools.count()


class Emulated:
    """A kernel of the host: IR of a function of `kinds`, then the thread's and the group's number and the memory.

    Copies in the background are there at once, or only when they are waited for (`late`): both must do.
    """

    def __init__(
        self, ir: str, name: str, kinds: Sequence[Any], threads: int, shared_bytes: int, *, late: bool = False
    ) -> None:
        for declared, defined in () if late else AT_ONCE.items():
            ir = str(llvm.parse_assembly(ir))  # as LLVM writes it, whoever wrote it before
            assert declared in ir
            ir = ir.replace(declared, defined)
        initialise(llvm.get_process_triple())
        module = llvm.parse_assembly(ir)
        module.triple = llvm.get_process_triple()
        module.verify()
        features = ",".join(("+" if on else "-") + x for x, on in sorted(llvm.get_host_cpu_features().items()))
        machine = llvm.Target.from_triple(module.triple).create_target_machine(
            cpu=llvm.get_host_cpu_name(), features=features, opt=2, reloc="pic", codemodel="small"
        )
        passes = llvm.create_new_module_pass_manager()
        passes.add_sroa_pass()  # registers in place of variables; without it, LLVM sees no product next to its sum
        passes.add_instruction_combine_pass()
        passes.run(module, llvm.create_pass_builder(machine, llvm.create_pipeline_tuning_options()))
        builder = llvm.JITLibraryBuilder().add_object_img(machine.emit_object(module)).export_symbol(name)
        for symbol, function in (LATE if late else HOST).items():
            builder = builder.import_symbol(symbol, ctypes.cast(function, ctypes.c_void_p).value)
        self.compiler = llvm.create_lljit_compiler(machine, use_jit_link=True)  # as `machine.compile.link` does
        self.library = builder.add_current_process().link(self.compiler, f"emulated{next(library_names)}")
        signature = [*kinds, ctypes.c_int, ctypes.c_int, ctypes.c_void_p]
        self.call = ctypes.CFUNCTYPE(None, *signature)(self.library[name])
        self.threads, self.shared_bytes = threads, shared_bytes

    def launch(self, groups: int, arguments: Sequence[Any], order: str = "ascending") -> None:
        """Run all groups, one after the other; their memory is filled with not-a-number before."""
        room = np.empty(self.shared_bytes // 4 + 32, np.float32)
        place = room.ctypes.data + -room.ctypes.data % 64
        chance = random.Random(0)  # noqa: S311
        for group in range(groups):
            room[:] = np.nan
            asked.clear()
            votes.clear()
            running = [
                greenlet.greenlet(lambda n=n, group=group: self.call(*arguments, n, group, place))
                for n in range(self.threads)
            ]
            while running:
                turns = list(running)
                if order == "descending":
                    turns.reverse()
                elif order == "random":
                    chance.shuffle(turns)
                waiting = {thread for thread in turns if thread.switch()}
                if waiting and len(waiting) != len(running):
                    raise RuntimeError("some threads returned while others wait at a barrier")
                running = [thread for thread in running if thread in waiting]
