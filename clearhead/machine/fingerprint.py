"""A fingerprint of everything besides a spec that determines machine code: the imported sources and the tools.

It covers every source file of the package, so no module that writes kernels or fills their tables can be forgotten. If
a file changed after the import, this process does not run it; then there is no fingerprint and no disk cache.
"""

import functools
import hashlib
import os
import sys
import time
from pathlib import Path

import numpy as np

from clearhead.machine.loading import llvm_version

PACKAGE = Path(__file__).parents[1]
TICK = 0.1  # seconds: file times lag behind the clock, and other modules were imported before this one
IMPORTED = time.time() - TICK


@functools.cache
def fingerprint() -> str | None:
    """The fingerprint of this process, computed once; None if its sources are gone or changed."""
    return as_imported()


def as_imported() -> str | None:
    """The fingerprint, or None unless the sources on disk are those that this process imported."""
    try:
        digest, changed = sources(PACKAGE)
    except OSError:  # an upgrade is replacing them
        return None
    return f"{digest} {tools()}" if changed < IMPORTED else None


def sources(package: Path) -> tuple[str, float]:
    """A digest of a package's source files, and the time of their last change, ∞ without files."""
    digest, changed = hashlib.sha256(), []
    folders = os.walk(package)  # pathlib takes twice as long, and a warm start waits for this
    for path in sorted(os.path.join(folder, name) for folder, _, names in folders for name in names):
        if path.endswith(".py"):
            with open(path, "rb", buffering=0) as file:
                status, text = os.fstat(file.fileno()), file.read()
            digest.update(f"{path[len(str(package)) :]} {len(text)}\n".encode() + text)
            changed.append(max(status.st_mtime, status.st_ctime))
    return digest.hexdigest(), max(changed, default=float("inf"))


def tools() -> str:
    """The versions of Python, numpy, llvmlite and LLVM."""
    return f"{sys.implementation.cache_tag} numpy {np.__version__} {llvm_version()}"
