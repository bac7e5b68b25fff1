"""What decides machine code besides a kernel's spec: the package's sources as they were imported, and its tools.

Decides by construction what a cache key covers: every source file of the package, whichever it is, so that no module
that writes kernels, or fills the tables they read, can be forgotten. Files that changed after the import are not what
this process runs: then there is no fingerprint, and the disk cache is left alone.
"""

import functools
import hashlib
import os
import sys
import time
from pathlib import Path

import llvmlite
import llvmlite.binding as llvm
import numpy as np

PACKAGE = Path(__file__).parents[1]
TICK = 0.1  # seconds: a file's time may lag behind the clock, and this module is not the first to be imported
IMPORTED = time.time() - TICK


@functools.cache
def fingerprint() -> str | None:
    """The fingerprint of this process, looked up once; None if its sources are gone or changed."""
    return as_imported()


def as_imported() -> str | None:
    """The fingerprint, if the sources on disk are still those that this process imported."""
    try:
        found, changed = sources(PACKAGE)
    except OSError:  # an upgrade takes them away at this moment
        return None
    return f"{found} {tools()}" if changed < IMPORTED else None


def sources(package: Path) -> tuple[str, float]:
    """A digest of a package's source files, and when the last of them changed; for ever, if there are none."""
    digest, changed = hashlib.sha256(), []
    folders = os.walk(package)  # a warm start waits for this: pathlib takes twice the time
    for path in sorted(os.path.join(folder, name) for folder, _, names in folders for name in names):
        if path.endswith(".py"):
            with open(path, "rb", buffering=0) as file:
                status, text = os.fstat(file.fileno()), file.read()
            digest.update(f"{path[len(str(package)) :]} {len(text)}\n".encode() + text)
            changed.append(max(status.st_mtime, status.st_ctime))
    return digest.hexdigest(), max(changed, default=float("inf"))


def tools() -> str:
    """The versions of what the sources are run and compiled with."""
    compiler = ".".join(map(str, llvm.llvm_version_info))
    return f"{sys.implementation.cache_tag} numpy {np.__version__} llvmlite {llvmlite.__version__} LLVM {compiler}"
