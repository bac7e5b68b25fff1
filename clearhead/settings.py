"""All environment variables that clearhead reads, in one table that the docs print.

Responsible for names, defaults and descriptions; the code that uses a value decides what it does.
"""

import os
from dataclasses import dataclass


@dataclass(frozen=True)
class Setting:
    """One environment variable: its name, default and description."""

    name: str
    default: str
    meaning: str

    def read(self) -> str:
        """The current text of the variable, or the default."""
        return os.environ.get(self.name, self.default).strip()


THREADS = Setting("CLEARHEAD_THREADS", "0", "threads a call may use; 0 means every core the process may run on")
ISA = Setting(
    "CLEARHEAD_ISA",
    "",
    "narrow the instruction set: avx512, avx2, neon or generic; empty means the best here",
)
CACHE_DIR = Setting(
    "CLEARHEAD_CACHE_DIR", "", "where compiled kernels are kept; empty means the user's cache directory"
)
CACHE = Setting("CLEARHEAD_CACHE", "1", "0 neither reads nor writes compiled kernels on disk")
DEBUG = Setting(
    "CLEARHEAD_DEBUG",
    "0",
    "1 kernel chosen, 2 timings, 3 kernel spec and problem, 4 LLVM IR, 5 assembly, to standard error",
)
MEMORY = Setting("CLEARHEAD_MEMORY", "1024", "MiB that one array of weights may take; larger ones are refused")

ALL = (THREADS, ISA, CACHE_DIR, CACHE, MEMORY, DEBUG)


def table() -> str:
    """All settings as a Markdown table.

    >>> print(table().splitlines()[2].split("|")[1].strip())
    `CLEARHEAD_THREADS`
    """
    rows = ["| variable | default | meaning |", "|---|---|---|"]
    rows += [f"| `{s.name}` | `{s.default or 'empty'}` | {s.meaning} |" for s in ALL]
    return "\n".join(rows)
