"""The benchmark: wrong answers are caught before they are timed, and what is lost stands first. Never how fast."""

import json
from dataclasses import replace

import numpy as np
import pytest

from bench import __main__ as command
from bench import measure, own, plots, report
from bench.groups import GROUPS
from bench.hold import evict, held, taken
from bench.result import Report, Row, joined, machine
from bench.workload import Reading, Workload, ahead, as_exact_as, at_most, faster_than, share_of, takes
from clearhead.cli.bench import causal_exact, operands, operations
from clearhead.cli.race import Contender, race
from clearhead.errors import MachineError

SHAPE = (1, 2, 40, 8)
Q, K, V = operands(SHAPE)
RIGHT = causal_exact(Q, K, V)


def slow(wait: int = 3000):
    """The right answer, after some counting."""
    ours = own.forward(Q, K, V)

    def call():
        sum(range(wait))
        return ours.call()

    return Contender(call)


def workload(**changes) -> Workload:
    """Two contenders, the peer slower."""
    plain = Workload(
        "plain",
        lambda: RIGHT,
        {"clearhead": lambda: own.forward(Q, K, V)},
        {"slow": slow},
        operations=operations(SHAPE),
        promises=(ahead(), faster_than("slow", 1.1), faster_than("not there", 1.1)),
    )
    return replace(plain, **changes)


def test_a_peer_with_a_wrong_answer_is_left_out_and_named():
    def wrong():
        contender = own.forward(Q, K, V)
        return Contender(lambda: contender.call() + np.float32(0.01))

    def missing():
        raise ImportError("no such framework")

    def short():
        return Contender(lambda: own.forward(Q, K, V).call()[..., :-1, :])

    def lost():
        return Contender(lambda: np.full(SHAPE, np.nan))

    row = held(
        workload(peers={"wrong": wrong, "missing": missing, "short": short, "lost": lost, "slow": slow}), "rules", 0
    )
    assert set(row.entries) == {"clearhead", "slow"}
    assert set(row.left_out) == {"wrong", "missing", "short", "lost"}
    assert "off by 1.0e-02" in row.left_out["wrong"]
    assert "off by nan" in row.left_out["lost"]
    text = report.text(Report({}, (row,)))
    assert "| missing | ImportError: no such framework |" in text


def test_an_answer_of_clearheads_that_is_wrong_fails_the_run_and_not_the_others(monkeypatch, capsys):
    def wrong():
        return Contender(lambda: np.zeros(SHAPE))

    bad, good = workload(name="bad", ours={"clearhead": wrong}), workload(name="good")
    with pytest.raises(MachineError, match="not timed"):
        held(bad, "rules", 0)
    monkeypatch.setitem(GROUPS, "rules", replace(GROUPS["rules"], workloads=lambda quick: iter([bad, good])))
    saved: list[Report] = []
    found = measure.group("rules", measure.Choice(quick=True), saved.append)
    assert [len(one.rows) for one in saved] == [0, 1]
    assert [row.name for row in found.rows] == ["good"]
    assert list(found.failed) == ["rules: bad"]
    assert "rules: bad: FAILED" in capsys.readouterr().err
    assert "| rules: bad |" in report.text(found)


def test_what_is_lost_or_missed_stands_first():
    won = held(workload(name="won"), "prefill", 0)
    lost = held(workload(name="lost", ours={"clearhead": slow}, peers={"quick": lambda: own.forward(Q, K, V)},
                         promises=(ahead(),), cause="it counts to 3000"), "prefill", 0)  # fmt: skip
    elsewhere = replace(lost, group="calls", name="elsewhere")
    for rows in ((won, lost, elsewhere), (elsewhere, lost, won)):
        text = report.text(Report({}, rows))
        lines = [line for line in text.splitlines() if line.startswith("|")]
        assert lines[2].startswith("| prefill: lost |")
        assert "it counts to 3000" in lines[2]
        assert lines[3].startswith("| prefill: won |")
        assert text.index("Where else a peer is faster") < text.index("## Promises") < text.index("## All numbers")
        promises = text[text.index("## Promises") :]
        assert promises.index("**missed**") < promises.index("prefill: won")
        section = text[text.index("(`prefill`)") :]
        assert section.index("| lost |") < section.index("| won |")
        assert "Below 1.5: 1 of 2." in text


def test_promises_are_judged_by_what_was_measured():
    row = held(
        workload(
            references={"twice": slow}, operations_of={"twice": 2 * operations(SHAPE)},
            promises=(share_of("twice", 0.5), takes("twice", 0.9), *as_exact_as("slow"), at_most("x", 1.0, "s")),
        ), "rules", 0,
    )  # fmt: skip
    ours, twice = (row.entries[name].seconds for name in ("clearhead", "twice"))
    assert [verdict.measured for verdict in row.verdicts] == pytest.approx([twice / ours / 2, ours / twice, 1.0, 1.0])
    assert [verdict.kept for verdict in row.verdicts] == [twice / ours / 2 >= 0.5, ours / twice <= 0.9, True, True]
    reading = taken(Reading("sizes", lambda: {"x": 2.0}, "s", (at_most("x", 1.0, "s"),)), "start")
    assert [verdict.kept for verdict in reading.verdicts] == [False]


def test_a_report_is_kept_as_json_and_a_row_that_was_measured_again_stands_for_the_earlier_one():
    row = held(workload(), "prefill", 0)
    found = Report(machine(minutes=1.0), (row,), {"what": "why"})
    assert Report.from_json(found.as_json()) == found
    again = Report(found.machine, (replace(row, cause="again"), Row("start", "new")))
    assert [(row.name, row.cause) for row in joined([found, again]).rows] == [("plain", "again"), ("new", "")]


def test_the_page_is_written_with_its_numbers_and_light_pictures(tmp_path):
    pytest.importorskip("matplotlib")
    row = held(workload(bytes=4.0 * Q.nbytes), "prefill", 0)
    cached = replace(row, group="decode", entries=row.entries | {"memory": row.entries["slow"]})
    sizes = [replace(row, group="lengths", name=f"forward of {n} items") for n in (128, 256)]
    found = Report(machine(minutes=1.0) | {"load after": 0.0}, (row, cached, *sizes))
    report.write(found, tmp_path / "page.md")
    page = (tmp_path / "page.md").read_text()
    assert Report.from_json((tmp_path / "page.json").read_text()) == found
    drawn = sorted(file.name for file in (tmp_path / "pictures").iterdir())
    assert drawn == ["benchmarks-lengths.svg", "benchmarks-ratios.svg", "benchmarks-roofline.svg"]
    for name in drawn:
        picture = (tmp_path / "pictures" / name).read_bytes()
        assert f"(pictures/{name})" in page
        assert b"fill: #ffffff" in picture
        plots.draw(found, tmp_path / "pictures")
        assert (tmp_path / "pictures" / name).read_bytes() == picture


@pytest.mark.parametrize("group", ["weights", "rules", "decode", "pieces"])
def test_clearheads_answers_are_right_in_every_quick_workload(group):
    """Peers are left to `python -m bench --quick`: they take their time to start."""
    pytest.importorskip("torch")
    for one in GROUPS[group].workloads(quick=True):
        if isinstance(one, Workload):
            row = held(replace(one, peers={}, rounds=2, before=one.before and (lambda: None)), group, 0)
            assert row.own in one.ours


def test_cold_calls_run_once_in_a_turn_after_other_memory_was_read():
    order: list[str] = []
    calls = {name: (lambda name=name: order.append(name)) for name in "ab"}
    times = race(calls, 0.0, before=lambda: order.append("other"))
    assert len(times["a"].wall) == 3
    assert order[2:6] == ["other", "b", "other", "a"]
    assert order[6:10] == ["other", "a", "other", "b"]  # in alternating order
    evict()


def test_the_command_lists_groups_and_refuses_others(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["bench", "--list"])
    assert command.main() == 0
    assert capsys.readouterr().out.split("\n")[0].startswith("prefill")
    monkeypatch.setattr("sys.argv", ["bench", "prefil"])
    with pytest.raises(SystemExit, match="prefil is not a group"):
        command.main()


@pytest.mark.parametrize(
    ("options", "refusal"),
    [
        ("prefill --quick --json nowhere/x.json", "nowhere is not a folder"),
        ("prefill --quick --only nothing", "No workload of prefill has “nothing” in its name"),
        ("--from nowhere.json", "nowhere.json holds no numbers of this benchmark"),
    ],
)
def test_what_would_measure_in_vain_is_refused(monkeypatch, options, refusal):
    monkeypatch.setattr("sys.argv", ["bench", *options.split()])
    with pytest.raises(SystemExit, match=refusal):
        command.main()


def test_the_kept_numbers_and_the_page_agree():
    """docs/benchmarks.md is what its numbers give: written by the command, and by nobody's hand."""
    docs = command.Path(__file__).parents[1] / "docs"
    kept = Report.from_json((docs / "benchmarks.json").read_text(encoding="utf-8"))
    page = (docs / "benchmarks.md").read_text(encoding="utf-8")
    assert report.text(kept) in page
    assert report.introduction() in page
    assert json.loads((docs / "benchmarks.json").read_text(encoding="utf-8"))["machine"]["commit"] in page
