"""Run by test_link.py in a process of its own: link a kernel where free addresses lie far apart.

Everything between the libraries is filled, 8 GiB below them too, but for one hole of a few pages: whatever part of an
object is put there, what does not fit must go further away than code can reach its constants.
"""

import ctypes
import os

import numpy as np

from clearhead import causal, kernel_for, problem
from clearhead.machine.compile import link, stored_object

PAGE, REGION, FAILED = 4096, 8 << 30, ctypes.c_void_p(-1).value
PRIVATE, FIXED, ANONYMOUS, NO_RESERVE = 0x02, 0x10, 0x20, 0x4000
libc = ctypes.CDLL(None)
libc.mmap.restype = ctypes.c_void_p
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]


def reserve(size: int) -> int:
    """Addresses that nobody else gets."""
    place = libc.mmap(None, size, 0, PRIVATE | ANONYMOUS | NO_RESERVE, -1, 0)
    assert place not in (None, FAILED)
    return place


def main() -> None:
    """Link the plain kernel into every size of hole."""
    x = np.zeros((4, 8), np.float32)
    spec = kernel_for(problem(x, x, x, mask=causal())).spec
    code, kernels = stored_object(spec), []
    region = reserve(REGION)
    for pages in (4096, 256, 64, 16, 4, 1):
        while reserve(pages * PAGE) > region:
            pass
    for pages in range(1, 60):
        hole = region + REGION - pages * PAGE
        libc.munmap(hole, pages * PAGE)
        kernels.append(link(spec, code))
        again = libc.mmap(hole, pages * PAGE, 0, PRIVATE | ANONYMOUS | NO_RESERVE | FIXED, -1, 0)
        assert again == hole
    print("linked", len(kernels), flush=True)
    os._exit(0)  # the kernels' memory is gone: nothing may be tidied up


if __name__ == "__main__":
    main()
