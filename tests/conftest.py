"""What every test shares: one kernel cache of its own for the session, and a readable trace if machine code crashes."""

import atexit
import faulthandler
import gc
import os
import shutil
import tempfile

import hypothesis

faulthandler.enable()
if "PYTEST_XDIST_WORKER" not in os.environ:  # workers inherit the first process's cache
    CACHE = tempfile.mkdtemp(prefix="clearhead-tests-")
    atexit.register(shutil.rmtree, CACHE, ignore_errors=True)
    os.environ["CLEARHEAD_CACHE_DIR"] = CACHE
for name in ("CLEARHEAD_ISA", "CLEARHEAD_THREADS", "CLEARHEAD_DEBUG", "CLEARHEAD_CACHE"):
    os.environ.pop(name, None)

hypothesis.settings.register_profile("tests", max_examples=60, deadline=None, derandomize=True)
hypothesis.settings.register_profile("long", max_examples=2000, deadline=None, print_blob=True)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "tests"))


def pytest_collection_finish() -> None:
    """Leave what the frameworks made out of later garbage collections: half a million objects to walk each time."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000)
