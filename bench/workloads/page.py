"""The page: first paint, a frame of a drag, a change with twelve items; a long text read in the browser."""

import os
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from bench.result import ROOT
from bench.workload import Reading, at_most

STATIC = ROOT / "clearhead/view/static"
TWELVE = ";".join(f"{j % 5 - 2},{j % 3 - 1}" for j in range(12))
PATIENCE = 300  # seconds
FRAMES = """async () => {
  const tip = document.querySelector('[data-tip="5"]').getBoundingClientRect(), times = [];
  const at = (type, x, y) => new PointerEvent(type, { bubbles: true, clientX: x, clientY: y, pointerId: 1 });
  const x = tip.left + tip.width / 2, y = tip.top + tip.height / 2;
  document.querySelector('[data-tip="5"]').dispatchEvent(at('pointerdown', x, y));
  for (let k = 0; k < 60; k++) {
    const start = performance.now();
    document.dispatchEvent(at('pointermove', x + k, y - k / 2));
    document.body.getBoundingClientRect();
    times.push(performance.now() - start);
  }
  document.dispatchEvent(at('pointerup', x, y));
  return times;
}"""
CHANGES = """async () => {
  const times = [];
  for (let k = 0; k < 40; k++) {
    const cells = document.querySelectorAll('.tri .c'), start = performance.now();
    cells[(7 * k) % cells.length].click();
    document.body.getBoundingClientRect();
    times.push(performance.now() - start);
  }
  return times;
}"""
PAINT = "() => performance.getEntriesByType('paint').find(one => one.name === 'first-contentful-paint').startTime"
BACK = """async () => {
  const chip = () => document.querySelector('.chip').textContent, before = chip(), start = performance.now();
  document.querySelector('.text').dispatchEvent(new KeyboardEvent('keydown', { key: 'ArrowLeft', bubbles: true }));
  while (chip() === before) await new Promise(requestAnimationFrame);
  await new Promise(requestAnimationFrame);
  return performance.now() - start;
}"""
DRAWN = "/pixel|square/.test(document.querySelector('.words .status')?.textContent ?? '')"


def workloads(*, quick: bool) -> Iterator[Reading]:
    """Learn, then Read over 32,768 tokens (not in a quick run: they need a browser)."""
    if quick:
        return
    yield Reading(
        "Learn, medians in the browser", learn, "ms",
        (at_most("first paint", 1000, "ms"), at_most("a frame of a drag", 16, "ms"),
         at_most("a change of twelve items", 50, "ms")),
    )  # fmt: skip
    yield Reading(
        "JavaScript", lambda: {"by hand": sum(file.stat().st_size for file in STATIC.glob("*.js")) / 1000}, "kB",
        (at_most("by hand", 60, "kB"),),
    )  # fmt: skip
    yield Reading(
        "Read, 32,768 tokens", lambda: read(32768, rows=20), "ms", (at_most("first paint", 1000, "ms"),),
        "the page waits for the model's weights to be described before it paints",
    )  # fmt: skip


@contextmanager
def served(*module: str) -> Iterator[str]:
    """A page's address, while it is served."""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-u", "-m", *module]
    server = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, env=environment)  # noqa: S603
    try:
        assert server.stdout is not None
        found = re.search(r"http://\S+", server.stdout.readline())
        assert found
        yield found[0]
    finally:
        server.terminate()
        server.wait(10)


@contextmanager
def browser() -> Iterator[Any]:
    """A page of Chromium."""
    from playwright.sync_api import sync_playwright

    from tests.conftest import chromium

    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=chromium(), args=["--no-sandbox"])
        yield opened.new_page(viewport={"width": 1280, "height": 800})
        opened.close()


def learn() -> dict[str, float]:
    """Medians of what the Learn screen takes."""
    with served("clearhead", "view", "--no-browser") as address, browser() as page:
        paints = []
        for _ in range(7):
            page.goto("about:blank")
            page.goto(f"{address}#vectors={TWELVE}&step=0&told=true")
            page.locator(".tri").wait_for()
            paints.append(page.evaluate(PAINT))
        found = {"first paint": paints, "a frame of a drag": page.evaluate(FRAMES)}
        found["a change of twelve items"] = page.evaluate(CHANGES)
    return {name: statistics.median(times) for name, times in found.items()}


def read(items: int, *, rows: int) -> dict[str, float]:
    """Open a made-up text, see the whole triangle, and move through rows by the keyboard."""
    python: dict[str, list[float]] = {}

    def received(response: Any) -> None:
        if told := re.search(rb'"ms":([\d.]+)', response.body()[:200_000]):
            python.setdefault(response.url.split("?")[0].rsplit("/", 1)[-1], []).append(float(told[1]))

    with served("tests.view.needle", str(items)) as address, browser() as page:
        page.on("response", received)
        page.goto(address)
        page.locator(".mass li").first.wait_for()
        paint = page.evaluate(PAINT)
        until(page, DRAWN)
        page.locator(".text").first.focus()
        walls = [page.evaluate(BACK) for _ in range(rows)]
    return {
        "first paint": paint,
        "another row, in the browser": statistics.median(walls),
        "another row, Python": statistics.median(python["line"]),
        "the whole triangle, Python": sum(python.get("tile", [])),
    }


def until(page: Any, script: str) -> None:
    """Wait until a script says true."""
    end = time.perf_counter() + PATIENCE
    while not page.evaluate(script):
        if time.perf_counter() > end:
            raise TimeoutError(script)
        time.sleep(0.01)
