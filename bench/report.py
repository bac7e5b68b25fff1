"""The report in Markdown, for the terminal and for docs/benchmarks.md: what is lost or missed stands first."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.groups import GROUPS
from bench.result import OWN, Report, Row, Verdict
from bench.workload import AHEAD

FIRST = ("prefill", "backward", "weights")  # the groups of the first table
INTRODUCTION = Path(__file__).with_name("introduction.md")
PURPOSE = (
    "For those who must decide whether clearhead is fast enough, and who want to know where it is not: every workload "
    "beside every library that computes the same, on one machine, with what is slower or missed first. Times differ "
    "from processor to processor, so take them on your own, too."
)
EMPTY = "–"


def write(report: Report, file: Path) -> None:
    """Write the page; its numbers as JSON beside it, its pictures in `pictures`."""
    from bench import plots

    pictures = plots.draw(report, file.parent / "pictures")
    file.with_suffix(".json").write_text(report.as_json(), encoding="utf-8")
    shown = "\n".join(f"![{title}](pictures/{picture.name})\n" for title, picture in pictures.items())
    page = (
        f"# Benchmarks\n\n{PURPOSE}\n\n{described(report)}\n\n{text(report)}\n## Pictures\n\n{shown}\n{introduction()}"
    )
    file.write_text(page, encoding="utf-8")


def introduction() -> str:
    """How numbers are taken, and how to take them again: the part of the page that no run changes."""
    return INTRODUCTION.read_text(encoding="utf-8")


def described(report: Report) -> str:
    """Where, when and with what."""
    facts = report.machine
    versions = ", ".join(f"{name} {version}" for name, version in facts["versions"].items())
    return (
        f"Written by `python -m bench --write docs/benchmarks.md` on {facts['date']} from commit {facts['commit']}, "
        f"in {facts['minutes']} minutes{in_parts(facts)}: {facts['processor']} ({facts['vectors']}), "
        f"{facts['cores']} cores, {facts['system']}. {versions}. "
        f"Load of the machine (processes that want a core): {facts['load']} before, "
        f"{facts['load after']} after. All numbers: [benchmarks.json](benchmarks.json)."
    )


def in_parts(facts: Mapping[str, Any]) -> str:
    """That several runs were joined, where they were."""
    return f", {facts['parts']} runs joined" if "parts" in facts else ""


def text(report: Report) -> str:
    """All tables."""
    parts = [
        f"## Prefill, gradients and weights beside the best peer\n\nPromised: {AHEAD} times as fast as the best peer. "
        "What is below it stands first, with its cause.\n",
        ahead_table([row for row in report.rows if row.group in FIRST and row.best_peer]),
    ]
    lost = [row for row in report.rows if row.lost and row.group not in FIRST]
    if lost:
        parts += ["## Where else a peer is faster\n", lost_table(lost)]
    judged = [(row, verdict) for row in report.rows for verdict in row.verdicts]
    if judged:
        parts += ["## Promises\n", promise_table(judged)]
    if report.failed:
        parts += ["## Failed\n", table(("what", "why"), report.failed.items())]
    groups = list(dict.fromkeys(row.group for row in report.rows))
    unmeasured = [f"`{name}`" for name in GROUPS if name not in groups]
    parts += ["## All numbers\n"]
    if unmeasured:
        parts += [f"Not measured this time: {', '.join(unmeasured)}.\n"]
    for name in groups:
        parts += [group_section(name, sorted((r for r in report.rows if r.group == name), key=standing))]
    left = {(who, why): None for row in report.rows for who, why in row.left_out.items()}
    if left:
        parts += ["## Left out\n", table(("peer", "why"), left)]
    return "\n".join(parts)


def standing(row: Row) -> tuple[bool, bool, float]:
    """The order of rows: those lost to a peer, then those that miss a promise, then the rest; the closest first."""
    return not row.lost, not row.missed, advantage(row) or float("inf")


def ahead_table(rows: Iterable[Row]) -> str:
    """Every workload beside its best peer; below the promise first."""
    ordered = sorted(rows, key=advantage)
    below = [row for row in ordered if advantage(row) < AHEAD]
    lines = []
    for row in ordered:
        peer = row.best_peer or ""
        low, _, high = row.entries[peer].advantage
        ratio = f"{advantage(row):.2f}"
        lines.append(
            (
                named(row),
                rate(row),
                share(row.of_peak),
                peer,
                f"**{ratio}**" if row in below else ratio,
                f"{low:.2f} to {high:.2f}",
                why(row, peer, AHEAD) if row in below else "",
            )
        )
    head = ("workload", OWN, "of peak", "best peer", "its time by clearhead's", "quartiles of rounds", "cause")
    return f"Below {AHEAD}: {len(below)} of {len(lines)}.\n\n" + table(head, lines)


def named(row: Row) -> str:
    """A row's name with its group."""
    return f"{row.group}: {row.name}"


def advantage(row: Row) -> float:
    """The best peer's time by clearhead's; 0 where there is no peer."""
    return row.advantage(row.best_peer) or 0.0


def why(row: Row, peer: str, bound: float) -> str:
    """The cause of a row that lags behind: what is known of it, and what the peak leaves room for beside a peer."""
    told = [row.cause] if row.cause else []
    ratio = row.advantage(peer) if peer in row.entries else None
    if row.of_peak and ratio:
        share = row.of_peak / ratio
        told.append(
            f"{peer} is at {share:.2f} of the peak, so that {bound:g} times as fast would be {bound * share:.2f}"
        )
    return "; ".join(told) or "not known"


def peer_of(row: Row, verdict: Verdict) -> str:
    """The peer that a promise compares with, if it is a promise of time beside one."""
    whose = verdict.what.removesuffix(f"'s time by {OWN}'s")
    return (row.best_peer or "") if whose == "the best peer" else whose


def lost_table(rows: Iterable[Row]) -> str:
    """Rows in which a peer is faster."""
    lines = [
        (named(row), rate(row), row.best_peer or "", f"**{advantage(row):.2f}**", row.cause or "not known")
        for row in sorted(rows, key=standing)
    ]
    return table(("workload", OWN, "faster peer", "its time by clearhead's", "cause"), lines)


def promise_table(judged: Sequence[tuple[Row, Verdict]]) -> str:
    """All promises, missed ones first."""
    missed = sum(not verdict.kept for _, verdict in judged)
    lines = [
        (
            "" if verdict.kept else "**missed**",
            named(row),
            verdict.what,
            f"{'≤' if verdict.at_most else '≥'} {verdict.bound:g} {verdict.unit}",
            f"{verdict.measured:.3g}",
            "" if verdict.kept else why(row, peer_of(row, verdict), verdict.bound),
        )
        for row, verdict in sorted(judged, key=lambda one: one[1].kept)
    ]
    head = ("", "workload", "what", "promised", "measured", "cause")
    return f"Missed: {missed} of {len(lines)}.\n\n" + table(head, lines)


def group_section(name: str, rows: Sequence[Row]) -> str:
    """One group: each workload in a row, each other contender's time by clearhead's in a column."""
    taken = sum(row.taken for row in rows)
    parts = [f"### {GROUPS[name].title} (`{name}`)\n\nMeasured in {taken:.0f} s.\n"]
    raced, readings = [row for row in rows if row.entries], [row for row in rows if row.figures]
    if raced:
        parts.append(raced_table(raced))
        if any(entry.memory is not None for row in raced for entry in row.entries.values()):
            parts.append(memory_table(raced))
    if readings:
        lines = [(r.name, figure, f"{value:.3g} {r.unit}") for r in readings for figure, value in r.figures.items()]
        parts.append(table(("what", "", "measured"), lines))
    return "\n".join(parts)


def raced_table(rows: Sequence[Row]) -> str:
    """Times of calls: bold where a peer is faster."""
    others = list(dict.fromkeys(name for row in rows for name in row.entries if name != row.own))
    lines = []
    for row in rows:
        cells = [row.name, duration(row.entries[row.own or ""].seconds), rate(row), share(row.of_peak)]
        for name in others:
            ratio = row.ratio(name, row.own or "")
            lost = ratio is not None and ratio < 1 and row.entries[name].role == "peer"
            cells.append(EMPTY if ratio is None else f"**{ratio:.2f}**" if lost else f"{ratio:.2f}")
        torch = row.error_ratio("PyTorch SDPA", "mean")
        lines.append((*cells, EMPTY if torch is None else f"{torch:.2f}"))
    head = ("workload", OWN, "rate", "of peak", *(f"{name} ÷" for name in others), "mean error ÷ PyTorch's")
    return "Each other column: that contender's time divided by clearhead's.\n\n" + table(head, lines)


def memory_table(rows: Sequence[Row]) -> str:
    """The most memory of a call."""
    rows = [row for row in rows if any(entry.memory is not None for entry in row.entries.values())]
    names = list(dict.fromkeys(name for row in rows for name in row.entries))
    found = [
        (row.name, *(mebibytes(row.entries[name].memory) if name in row.entries else EMPTY for name in names))
        for row in rows
    ]
    return "Peak memory of a call beside its operands, its result included, MiB:\n\n" + table(
        ("workload", *names), found
    )


def table(head: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """A table in Markdown."""
    rows = [head, ["---"] * len(head), *lines]
    return "\n".join(f"| {' | '.join(cell.replace('|', '/') for cell in row)} |" for row in rows) + "\n"


def rate(row: Row) -> str:
    """clearhead's rate, of operations or, where reading is what counts, of bytes."""
    if row.own is None or not (row.operations or row.bytes):
        return EMPTY
    seconds = row.entries[row.own].seconds
    if row.group == "decode" or not row.operations:
        return f"{row.bytes / seconds / 1e9:.1f} GB/s"
    return f"{row.operations / seconds / 1e9:.1f} GF/s"


def share(of_peak: float | None) -> str:
    """A share of the peak."""
    return EMPTY if of_peak is None else f"{of_peak:.2f}"


def duration(seconds: float) -> str:
    """A time in the unit that suits it."""
    for unit, size in (("s", 1.0), ("ms", 1e-3)):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{1e6 * seconds:.3g} µs"


def mebibytes(memory: float | None) -> str:
    """MiB."""
    return EMPTY if memory is None else f"{max(memory, 0):.1f}"
