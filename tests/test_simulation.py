"""The simulation of many machines: its counts against brute force, its bytes and times against what must hold."""

import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import simulation
from simulation import Assumptions, backward, forward, outcome

ROOT = Path(__file__).parents[1]
GIVEN = Assumptions(rate=100.0, heads=4, key_heads=2, dim=64, value_dim=32, unit=512)


@pytest.mark.parametrize("tokens", [1, 2047, 2048, 5000])
@pytest.mark.parametrize("machines", [1, 2, 3, 7])
@pytest.mark.parametrize("unit", [64, 100, 2048])
def test_pairs_are_those_of_every_row_counted_one_by_one(tokens, machines, unit):
    zigzag = [*range(machines), *reversed(range(machines))]
    owners = np.array([zigzag[row // unit % len(zigzag)] for row in range(tokens)])
    assert owners.tolist() == [simulation.owner_of(row, machines, unit) for row in range(tokens)]
    rows = np.arange(tokens)
    keys, queries = [], []
    for first in range(0, tokens, simulation.SEGMENT):
        last = min(first + simulation.SEGMENT, tokens)
        seen = np.clip(rows + 1 - first, 0, last - first)  # of the segment's keys, by each query
        seeing = np.clip(last - np.maximum(rows, first), 0, None)  # of the segment's queries, each key
        keys.append(np.bincount(owners, seen, machines))
        queries.append(np.bincount(owners, seeing, machines))
    for travels, wanted in (("keys", keys), ("queries", queries)):
        got = np.concatenate(list(simulation.pairs_by_segment(tokens, machines, unit, travels)))
        np.testing.assert_array_equal(got, wanted)
        assert got.sum() == simulation.pair_count(tokens)


def test_bytes_are_all_keys_and_values_but_a_machines_own():
    tokens, machines = 8192, 4
    token = 2 * (64 + 32) * 4
    assert outcome(forward(GIVEN), tokens, machines, [10], GIVEN).received == (tokens - tokens // machines) * token
    query = 4 * ((64 + 32) * 4 + 2 * 4)
    both = outcome(backward(GIVEN), tokens, machines, [10], GIVEN)
    assert both.received == (tokens - tokens // machines) * (token + query)
    halves = replace(GIVEN, itemsize=2)
    assert outcome(forward(halves), tokens, machines, [10], halves).received * 2 == tokens * 3 // 4 * token


@pytest.mark.parametrize(
    ("way", "relay"), [("stream", "direct"), ("stream", "chain"), ("gather", "direct"), ("gather", "chain")]
)
@pytest.mark.parametrize("work", [forward, backward])
def test_nothing_is_faster_than_its_parts_and_a_faster_link_never_slower(work, way, relay):
    given, tokens, links = replace(GIVEN, relay=relay), 50_000, [1, 10, 100, 1e6]
    alone = outcome(work(given), tokens, 1, links, given, way)
    assert len(set(alone.seconds)) == 1
    least = 1 if work is forward else 2.5 / 3.5
    assert alone.efficiency == pytest.approx([least] * 4)
    assert alone.received == 0
    for machines in (2, 3, 8, 24):
        found = outcome(work(given), tokens, machines, links, given, way)
        assert found.seconds == sorted(found.seconds, reverse=True)
        assert 1 <= found.balance < 1.6
        computing = alone.seconds[0] / machines
        assert all(seconds > computing * (1 - 1e-9) for seconds in found.seconds)
        assert all(
            seconds > found.received / (link * 1e9 / 8) for seconds, link in zip(found.seconds, links, strict=True)
        )
        assert max(found.efficiency) < least


def test_with_an_endless_link_and_no_latency_only_the_work_counts():
    given = replace(GIVEN, latency=0.0, unit=64, ahead=100)
    for way in ("stream", "gather"):
        found = outcome(forward(given), 50_000, 4, [1e9], given, way)
        assert found.seconds[0] * 4 * 1e11 == pytest.approx(found.balance * given.pair * 50_000 * 50_001 / 2, rel=1e-3)


def test_an_owner_that_sends_to_all_is_a_bottleneck_that_a_chain_is_not():
    times = {
        relay: [outcome(forward(given), 200_000, n, [1], given).seconds[0] for n in (2, 8, 24)]
        for relay in ("direct", "chain")
        for given in [replace(GIVEN, relay=relay, unit=2048, rate=1000.0)]
    }
    assert times["direct"][0] == pytest.approx(times["chain"][0], rel=0.01)
    assert times["direct"][2] > 2 * times["chain"][2]


def test_room_for_more_segments_never_costs_time_and_costs_its_bytes():
    seconds, memory = [], []
    for ahead in (0, 1, 2, 8):
        given = replace(GIVEN, ahead=ahead)
        found = outcome(forward(given), 50_000, 5, [2], given)
        seconds.append(found.seconds[0])
        memory.append(found.memory)
    assert seconds == sorted(seconds, reverse=True)
    assert seconds[0] > 1.01 * seconds[-1]
    assert np.diff(memory).tolist() == [2048 * GIVEN.key_bytes * more for more in (1, 1, 6)]


def printed(words: str) -> str:
    """What the command prints."""
    command = [sys.executable, ROOT / "scripts" / "simulate", *words.split()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_command_prints_a_row_for_each_number_of_machines():
    words = "--tokens 10000 --machines 1 2 5 --links 10 100 --rate 200 --heads 2 --key-heads 1 --dim 64 --unit 64"
    rows = [line.split(" | ") for line in printed(words).splitlines() if line.startswith("| ") and "mean" not in line]
    assert [row[0] for row in rows] == ["| 1", "| 2", "| 5"] * 2
    given = Assumptions(rate=200, heads=2, key_heads=1, dim=64, value_dim=64, unit=64)
    assert f"({outcome(forward(given), 10_000, 5, [10, 100], given).efficiency[1]:.2f})" in rows[2][-1]


def test_the_documentation_quotes_what_the_command_prints():
    section = (ROOT / "docs" / "scale.md").read_text().partition("## On paper")[2]
    tables = re.findall(r"(?:^\| \d+ \| .* GB \| .*\n)+", section, re.M)
    direct, chain, long = map(str.splitlines, tables)
    now = printed("--tokens 1000000").splitlines()
    assert len(direct) == 6
    assert set(direct) <= set(now)
    assert len(chain) == 4
    assert set(chain) <= set(printed("--tokens 1000000 --relay chain --unit 64 --machines 16 64 256 1024").splitlines())
    assert set(long[:2]) <= set(printed("--tokens 100000000 --machines 1 16").splitlines())
