"""What a freshly installed clearhead must do, in a second: explain, write and read weights, one kernel's bits.

Run by the Python that it is installed for, in any folder: python scripts/smoke.py [VERSION]
"""

import subprocess
import sys
import time

import numpy as np

began = time.process_time()
import clearhead  # noqa: E402

imported = 1e3 * (time.process_time() - began)

from clearhead.definition import canonical  # noqa: E402
from clearhead.model import load  # noqa: E402

for wanted in sys.argv[1:]:
    if clearhead.__version__ != wanted:
        sys.exit(f"clearhead {clearhead.__version__} is installed, not {wanted}")
x = np.random.default_rng(0).standard_normal((2, 150, 16)).astype(np.float32)
done = clearhead.attend(x, x, x)
y, lse = canonical.attention(x, x, x)
if (done.output.tobytes(), done.lse.tobytes()) != (y.tobytes(), lse.tobytes()):
    sys.exit("the kernel's bits are not the definition's")
if abs(done.weights.row(149).sum(axis=-1) - 1).max() > 1e-5:
    sys.exit("weights do not sum to 1")
if not load().generate("The whale", 5):
    sys.exit("the small model says nothing")
explain = [sys.executable, "-m", "clearhead", "explain", "the cat sat on the mat"]
explained = subprocess.run(explain, check=True, capture_output=True, text=True).stdout  # noqa: S603
if "cat" not in explained:
    sys.exit("explain does not explain")
print(f"clearhead {clearhead.__version__}, Python {sys.version.split()[0]}: right; imported in {imported:.0f} ms")
