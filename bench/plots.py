"""Pictures of a report: the roofline, growing lengths, and ratios to the best peer. Equal numbers give equal files."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bench.result import OWN, Report, Row

OURS, THEIRS, GREY = "#0b6e8f", "#c4622d", "#8a8a8a"
MARKS = {"prefill": "o", "backward": "s", "dtypes": "^", "decode": "D", "weights": "v"}


def draw(report: Report, folder: Path) -> dict[str, Path]:
    """Draw what the report has rows for; the pictures by their titles."""
    import matplotlib as mpl

    mpl.use("Agg")
    folder.mkdir(exist_ok=True, parents=True)
    style = {
        "figure.facecolor": "white", "axes.facecolor": "white", "svg.hashsalt": OWN, "font.size": 10,
        "axes.spines.top": False, "axes.spines.right": False,
    }  # fmt: skip
    drawn = {}
    with mpl.rc_context(style):
        for name, title, picture in (
            ("ratios", "The best peer's time divided by clearhead's", ratios),
            ("roofline", "Rates beside what the processor and its memory allow", roofline),
            ("lengths", "Time and memory of one head at growing lengths", lengths),
        ):
            figure = picture(report)
            if figure is None:
                continue
            drawn[title] = folder / f"benchmarks-{name}.svg"
            figure.savefig(drawn[title], metadata={"Date": None}, bbox_inches="tight")
    return drawn


def figure_of(width: float, height: float, columns: int = 1) -> tuple[Any, Any]:
    """A figure that no window shows."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots(1, columns)


def ratios(report: Report) -> Any:
    """A bar for each workload, the least first; the line is where both are equally fast."""
    rows = [row for row in report.rows if row.best_peer and row.group not in ("lengths", "threads")]
    if not rows:
        return None
    rows.sort(key=lambda row: row.advantage(row.best_peer) or 0, reverse=True)
    figure, axes = figure_of(9, 0.24 * len(rows) + 1)
    values = [row.advantage(row.best_peer) or 0 for row in rows]
    axes.barh(range(len(rows)), values, color=[OURS if value >= 1 else THEIRS for value in values], height=0.7)
    axes.axvline(1, color="black", linewidth=1)
    axes.axvline(1.5, color=GREY, linewidth=1, linestyle=":")
    axes.set_xscale("log")
    ticks = [tick for tick in (0.2, 0.5, 1, 1.5, 2, 3, 5, 10, 20, 50) if min(values) / 1.5 <= tick <= 1.5 * max(values)]
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.minorticks_off()
    axes.set_yticks(range(len(rows)), [f"{row.group}: {row.name}" for row in rows], fontsize=7)
    for at, (row, value) in enumerate(zip(rows, values, strict=True)):
        told = f"{value:.2f}  {row.best_peer}"
        axes.text(max(value, 1.0) * 1.04, at, told, va="center", fontsize=6.5, color="#333333")
    axes.set_ylim(-0.7, len(rows) - 0.3)
    axes.set_xlim(right=4 * max(values))
    axes.set_xlabel("the best peer's time divided by clearhead's (line: equal; dots: 1.5)")
    return figure


def roofline(report: Report) -> Any:
    """Operations for each byte against the rate, clearhead filled and the best peer hollow."""
    rows = [row for row in report.rows if row.group in MARKS and row.operations and row.bytes and row.own]
    memory = [row.bytes / row.entries["memory"].seconds / 1e9 for row in report.rows if "memory" in row.entries]
    if not rows or not memory:
        return None
    peak, reading = max(row.peak for row in rows if "float64" not in row.name), max(memory)
    figure, axes = figure_of(8, 5)
    intensities = [row.operations / row.bytes for row in rows]
    left, right = min(intensities) / 2, max(intensities) * 2
    edge = peak / reading
    axes.plot([left, edge, right], [left * reading, peak, peak], color="black", linewidth=1.5)
    axes.text(edge, 1.12 * peak, f"float32 multiply-adds: {peak:.0f} GF/s", fontsize=8)
    axes.text(left * 1.3, left * reading * 0.93, f"reading: {reading:.0f} GB/s", fontsize=8)
    for group, mark in MARKS.items():
        some = [(x, row) for x, row in zip(intensities, rows, strict=True) if row.group == group]
        if not some:
            continue
        axes.plot(
            [x for x, _ in some],
            [speed(row, row.own) for _, row in some],
            mark,
            color=OURS,
            label=f"{group}, clearhead",
        )
        beside = [(x, row) for x, row in some if row.best_peer]
        if beside:
            axes.plot(
                [x for x, _ in beside], [speed(row, row.best_peer) for _, row in beside],
                mark, color=THEIRS, fillstyle="none", label=f"{group}, best peer",
            )  # fmt: skip
    axes.set(xscale="log", yscale="log", xlabel="operations for each byte of operands and results", ylabel="GF/s")
    axes.legend(fontsize=7, frameon=False, loc="lower right")
    return figure


def speed(row: Row, name: str | None) -> float:
    """A contender's rate."""
    return row.operations / row.entries[name or ""].seconds / 1e9


def lengths(report: Report) -> Any:
    """Time and memory over the length, with slopes of n² and n to compare with."""
    rows = {
        int(found[1]): row
        for row in report.rows
        if row.group == "lengths" and (found := re.match(r"forward of (\d+)", row.name))
    }
    if len(rows) < 2:
        return None
    figure, (time, memory) = figure_of(10, 4.2, 2)
    names = list(dict.fromkeys(name for row in rows.values() for name in row.entries))
    lines = {name: (n, mark) for n, (name, mark) in enumerate(zip(names, "os^Dv", strict=False))}
    for name, (n, mark) in lines.items():
        color = OURS if name == OWN else ("#c4622d", "#7a4fa3", "#5a8f29")[(n - 1) % 3]
        plot(time, {x: row.entries[name].seconds for x, row in rows.items() if name in row.entries}, mark, color, name)
        used = {x: row.entries[name].memory for x, row in rows.items() if name in row.entries}
        plot(memory, {x: y for x, y in used.items() if y is not None and y > 0}, mark, color, name)
    slope(time, 2, "n²")
    slope(memory, 1, "n")
    time.set(xlabel="items n", ylabel="seconds of one core", title="Time")
    memory.set(xlabel="items n", ylabel="MiB beside the operands", title="Peak memory")
    time.legend(fontsize=8, frameon=False)
    return figure


def plot(axes: Any, points: Mapping[int, float | None], mark: str, color: str, name: str) -> None:
    """One contender's line, if it has points."""
    if not points:
        return
    axes.plot(list(points), list(points.values()), f"{mark}-", color=color, label=name, markersize=4, linewidth=1.2)
    axes.set(xscale="log", yscale="log")


def slope(axes: Any, power: int, name: str) -> None:
    """A dotted line of this slope, below the lowest line."""
    lines = [line for line in axes.get_lines() if len(line.get_xdata()) > 1]
    if not lines:
        return
    lowest = min(lines, key=lambda line: min(line.get_ydata()))
    x = [float(min(lowest.get_xdata())), float(max(lowest.get_xdata()))]
    start = min(lowest.get_ydata()) / 2
    axes.plot(x, [start, start * (x[1] / x[0]) ** power], ":", color=GREY)
    axes.text(x[1], start * (x[1] / x[0]) ** power, f" {name}", color=GREY, va="center")
