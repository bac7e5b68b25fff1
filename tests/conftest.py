"""What all tests share: a cache of kernels, a core for each process, a trace if machine code crashes, a browser."""

import faulthandler
import gc
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest

BROWSERS = (
    "chromium-headless-shell",  # the fastest
    "chromium",
    "chromium-browser",
    "google-chrome",
    "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
    r"C:\Program Files\Google\Chrome\Application\chrome.exe",
)
KERNELS = Path(__file__).parents[1] / ".pytest_cache" / "kernels"


def kept_kernels() -> Path:
    """Where kernels of these sources are kept from one run of the tests to the next; those of other sources go."""
    from clearhead.machine import fingerprint  # brings numpy, which reads the environment below

    digest, _ = fingerprint.sources(fingerprint.PACKAGE)
    own = KERNELS / digest[:16]
    own.mkdir(mode=0o700, parents=True, exist_ok=True)
    for other in KERNELS.iterdir():
        if other != own:
            shutil.rmtree(other, ignore_errors=True)
    return own


faulthandler.enable()
os.environ["OPENBLAS_NUM_THREADS"] = "1"  # numpy's threads spin while they wait, and each core has a process of tests:
os.environ["OMP_WAIT_POLICY"] = "passive"  # a matrix product would take three times the processor time, or ten
os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "1"  # of its own kernels, which take most of the time of its tests
if "PYTEST_XDIST_WORKER" not in os.environ:  # workers inherit the first process's cache
    os.environ["CLEARHEAD_CACHE_DIR"] = str(kept_kernels())
for name in ("CLEARHEAD_ISA", "CLEARHEAD_THREADS", "CLEARHEAD_DEBUG", "CLEARHEAD_CACHE"):
    os.environ.pop(name, None)

hypothesis.settings.register_profile("tests", max_examples=60, deadline=None, derandomize=True)
hypothesis.settings.register_profile("quick", max_examples=15, deadline=None, derandomize=True)
hypothesis.settings.register_profile("long", max_examples=2000, deadline=None, print_blob=True)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "tests"))


def pytest_collection_finish() -> None:
    """Leave what the frameworks made out of later garbage collections: half a million objects to walk each time."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000)


def chromium() -> str:
    """Chromium's path, as scripts/browser installs it."""
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    assert found, "no Chromium here: run scripts/browser"
    return found


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """One for all tests, because playwright runs once in a process."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=chromium(), args=["--no-sandbox"])
        yield launched
        launched.close()
