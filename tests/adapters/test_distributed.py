"""A sequence shared by 2, 3 and 4 processes has the bits of one process: outputs and gradients, in both ways."""

import os
import subprocess
import sys
import threading
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import clearhead.adapters.torch as ct  # noqa: E402
from clearhead import (  # noqa: E402
    InputError,
    KeyValueCache,
    attention,
    bias,
    causal,
    documents,
    full,
    prefix,
    softcap,
    where,
    window,
)
from clearhead.adapters.torch.distributed import Layout, shard, sharded_attention, sharded_decode, unshard  # noqa: E402
from clearhead.testing import using_isa  # noqa: E402
from tests.adapters.ranks import Ranks  # noqa: E402

SLOPES = np.array([0.1, 0.2], np.float32)
TABLE = np.random.default_rng(5).standard_normal((5000, 5000)).astype(np.float32)
PACKED = [2500, 2100, 900]


def tilted(score, batch, head, query, key):
    """A rule that reads every position as it is in the whole sequence."""
    return score * 0.5 - SLOPES[head] * abs(query - key) + (query + 2 * key) * 1e-4


def third(batch, head, query, key):
    return (query + key) % 3 != 0


# What a case adds to causal attention of 2 heads over 5500 items of 16 dims, in float32.
CASES: dict[str, dict[str, Any]] = {
    "causal": {},
    "grouped heads and a sink": {"heads": 4, "sink": True},
    "window": {"mask": window(700)},
    "window both ways": {"mask": window(300, 200), "order": "contiguous"},
    "documents": {"documents": PACKED, "mask": documents(PACKED) & causal()},
    "documents with a rule": {"documents": PACKED, "mask": documents(PACKED) & causal(), "score": tilted},
    "a rule": {"score": tilted},
    "a mask by a function": {"mask": causal() & where(third)},
    "all": {"mask": full(), "order": "contiguous"},
    "a prefix": {"mask": causal() | prefix(3000)},
    "a table": {"score": bias(TABLE), "length": 5000},
    "float64": {"dtype": "float64", "length": 4500},
    "bfloat16": {"dtype": "bfloat16", "length": 4500},
    "larger units": {"unit": 4096, "length": 6200},
}
EMPTY = {"length": 3000}  # of three ranks, one has nothing


class Case:
    """One call: its whole tensors, and its arguments."""

    def __init__(self, name: str) -> None:
        given = {"length": 5500, "heads": 2, "dtype": "float32", **(EMPTY if name == "empty" else CASES[name])}
        dtype, length, heads = getattr(torch, given["dtype"]), given["length"], given["heads"]
        made = torch.Generator().manual_seed(len(name))
        shapes = (heads, length, 16), (2, length, 16), (2, length, 24), (heads, length, 24)
        self.query, self.key, self.value, self.d_output = (torch.randn(x, generator=made).to(dtype) for x in shapes)
        self.sink = torch.randn(heads, generator=made) if "sink" in given else None
        self.rules = {name: given[name] for name in ("mask", "score") if name in given}
        self.layout = {name: given[name] for name in ("unit", "order", "documents") if name in given}
        self.length = length

    @property
    def operands(self) -> list[Any]:
        """Query, key, value."""
        return [self.query, self.key, self.value]


def attended(group: Any, name: str, **options: Any) -> list[Any]:
    """One rank's output and gradients, as arrays of bytes."""
    case = Case(name)
    layout = Layout(case.length, torch.distributed.get_world_size(group), **case.layout)
    mine = [shard(x, layout, group=group).requires_grad_() for x in case.operands]
    sink = None if case.sink is None else case.sink.requires_grad_()
    output = sharded_attention(*mine, layout, group=group, sink=sink, timeout=20, **case.rules, **options)
    wanted = mine if sink is None else [*mine, sink]
    gradients = torch.autograd.grad(output, wanted, shard(case.d_output, layout, group=group))
    return [x.detach().view(torch.uint8).numpy() if x.numel() else None for x in (output, *gradients)]


def alone(name: str) -> list[Any]:
    """The same in this process."""
    case = Case(name)
    operands = [x.requires_grad_() for x in case.operands]
    sink = None if case.sink is None else case.sink.requires_grad_()
    output = ct.attention(*operands, sink=sink, **case.rules)
    wanted = operands if sink is None else [*operands, sink]
    return [output.detach(), *torch.autograd.grad(output, wanted, case.d_output)]


@pytest.fixture(scope="module")
def workers(tmp_path_factory):
    ranks = Ranks(4, tmp_path_factory.mktemp("group"))
    yield ranks
    ranks.close()


@pytest.mark.parametrize("way", ["gather", "stream"])
@pytest.mark.parametrize(("name", "size"), [*((name, 2) for name in CASES), ("causal", 4), ("empty", 3),
    ("grouped heads and a sink", 3), ("documents", 3), ("window", 4)])  # fmt: skip
def test_ranks_have_the_bits_of_one_process(workers, name, size, way):
    wanted, case = alone(name), Case(name)
    layout = Layout(case.length, size, **case.layout)
    for rank, found in enumerate(workers.run(attended_in, name, way, "same", ranks=range(size))):
        assert not isinstance(found, Exception), found
        for whole, own in zip(wanted, found, strict=True):
            rows = whole if whole.dim() == 1 else shard(whole, layout, rank=rank)
            assert own is None or np.array_equal(rows.view(torch.uint8).numpy(), own)


def attended_in(group: Any, name: str, way: str, gradients: str) -> list[Any]:
    return attended(group, name, way=way, gradients=gradients)


@pytest.mark.parametrize("way", ["gather", "stream"])
@pytest.mark.parametrize("name", ["grouped heads and a sink", "window"])
def test_sums_over_ranks_are_the_same_gradients_but_for_rounding(workers, name, way):
    wanted, case = alone(name), Case(name)
    layout = Layout(case.length, 3, **case.layout)
    for rank, found in enumerate(workers.run(attended_in, name, way, "sum", ranks=range(3))):
        assert not isinstance(found, Exception), found
        for n, (whole, own) in enumerate(zip(wanted, found, strict=True)):
            rows = whole if whole.dim() == 1 else shard(whole, layout, rank=rank)
            exact = torch.from_numpy(own).view(whole.dtype)
            torch.testing.assert_close(exact, rows, rtol=0 if n == 0 else 1e-5, atol=0 if n == 0 else 1e-5)


def sent_bytes(group: Any, name: str, way: str, gradients: str) -> tuple[int, int]:
    """What a rank sends in a call and in its backward, but for the comparison of arguments."""
    counted = [0, 0]
    send, isend, phase = torch.distributed.isend, torch.distributed.isend, 0
    case = Case(name)
    layout = Layout(case.length, torch.distributed.get_world_size(group), **case.layout)

    def counting(tensor, *args, **options):
        counted[phase] += tensor.numel() * tensor.element_size() * (tensor.dtype is not torch.uint8)
        return isend(tensor, *args, **options)

    torch.distributed.isend = counting
    try:
        mine = [shard(x, layout, group=group).requires_grad_() for x in case.operands]
        output = sharded_attention(*mine, layout, group=group, way=way, gradients=gradients, **case.rules)
        phase = 1
        output.backward(shard(case.d_output, layout, group=group))
    finally:
        torch.distributed.isend = send
    return counted[0], counted[1]


@pytest.mark.parametrize("way", ["gather", "stream"])
def test_no_more_travels_than_the_formula_says(workers, way):
    """Full attention over 3 ranks: each key's dims to two others; then once more, and each query's, once."""
    size, case = 3, Case("all")
    keys = sum(x.shape[0] * x.shape[2] for x in (case.key, case.value)) * 4
    queries = case.query.shape[0] * (16 + 24 + 1 + 24) * 4
    layout = Layout(case.length, size, **case.layout)
    for rank, found in enumerate(workers.run(sent_bytes, "all", way, "same", ranks=range(size))):
        rows = layout.count(rank) * (size - 1)
        assert found == (rows * keys, rows * (keys + queries))


def test_keys_that_nobody_sees_do_not_travel(workers):
    """With a window of 700, only a segment's neighbour needs it; ranks 0 1 1: the last two are one stretch."""
    case = Case("window")
    keys = sum(x.shape[0] * x.shape[2] for x in (case.key, case.value)) * 4
    sent = [forward for forward, _ in workers.run(sent_bytes, "window", "stream", "same", ranks=range(2))]
    assert sent == [2048 * keys, 0]


def joined(group: Any, order: str) -> bool:
    x = torch.arange(2 * 5000 * 3).reshape(2, 5000, 3)
    layout = Layout(5000, torch.distributed.get_world_size(group), order=order)
    return torch.equal(unshard(shard(x, layout, group=group), layout, group=group), x)


@pytest.mark.parametrize("order", ["zigzag", "contiguous"])
def test_shards_are_joined_again(workers, order):
    assert workers.run(joined, order, ranks=range(4)) == [True] * 4


def broken(score, batch, head, query, key):
    raise ValueError("a bug of mine")


def different(group: Any, what: str) -> None:
    """A call whose rank 1 differs."""
    odd = torch.distributed.get_rank(group) == 1
    layout = Layout(4000, 3, order="contiguous" if odd and what == "layout" else "zigzag")
    x = shard(torch.ones(1, 4000, 16, dtype=torch.float64 if odd and what == "dtype" else None), layout, group=group)
    options: dict[str, Any] = {"scale": 0.5 if odd and what == "scale" else 1.0}
    if what == "rule":
        options["score"] = (lambda s, b, h, q, k: s + 2.0) if odd else (lambda s, b, h, q, k: s + 1.0)
    if what == "rows" and odd:
        x = x[:, 1:]
    if what == "gradients" and odd:
        x.requires_grad_()
    if what == "mask":
        options["mask"] = window(100) if odd else causal()
    if what == "numpy" and odd:
        x = x.numpy()
    if what == "own" and odd:
        options["score"] = broken
    if what == "function" and odd:
        unshard(x, layout, group=group, timeout=20)
    if what == "decode" and odd:
        sharded_decode(None, [], layout, group=group, timeout=20)
    with using_isa("generic") if odd and what == "instructions" else nullcontext():
        sharded_attention(x, x, x, layout, group=group, timeout=20, **options)


DIFFERENCES = {
    "layout": "differ in the layout: .*zigzag.* on ranks 0, 2; .*contiguous.* on rank 1",
    "dtype": "differ in the dtype: torch.float32 on ranks 0, 2; torch.float64 on rank 1",
    "scale": "differ in the scale: 1.0 on ranks 0, 2; 0.5 on rank 1",
    "rule": "differ in mask and score: .* on ranks 0, 2; .* on rank 1",
    "mask": r"differ in mask and score: mask=causal\(\) on ranks 0, 2; mask=window\(100, 0\) on rank 1",
    "function": "differ in the function: sharded_attention on ranks 0, 2; unshard on rank 1. Use",
    "decode": "differ in the function: sharded_attention on ranks 0, 2; sharded_decode on rank 1. Use",
    "instructions": r"differ in the instruction set \(CLEARHEAD_ISA\): .* on ranks 0, 2; generic on rank 1",
    "gradients": "differ in the need of gradients: False on ranks 0, 2; True on rank 1",
}


@pytest.mark.parametrize("what", DIFFERENCES)
def test_ranks_that_differ_are_all_told_what_differs_and_where(workers, what):
    errors = workers.run(different, what, ranks=range(3))
    assert all(type(x) is InputError for x in errors)
    assert len({str(x) for x in errors}) == 1
    with pytest.raises(InputError, match=DIFFERENCES[what]):
        raise errors[0]


@pytest.mark.parametrize(
    ("what", "why"),
    [
        ("rows", "by the layout this rank has"),
        ("numpy", "q is ndarray: give a tensor"),
        ("own", "a bug of mine"),
    ],
)
def test_a_rank_that_refuses_its_arguments_tells_the_others(workers, what, why):
    first, own, last = workers.run(different, what, ranks=range(3))
    assert why in str(own)
    assert str(first) == str(last) == f"rank 1 refused its arguments: {own}"
    assert workers.run(joined, "zigzag", ranks=range(3)) == [True] * 3  # the group can be used again


def differentiated(group: Any, what: str) -> Any:
    """Calls that are differentiated, or called, in an unusual way; whether they are right."""
    layout = Layout(4500, torch.distributed.get_world_size(group))
    made = torch.Generator().manual_seed(3)
    whole = [torch.randn(1, 4500, 16, generator=made).requires_grad_() for _ in range(2)]
    mine = [shard(x.detach(), layout, group=group).requires_grad_() for x in whole]

    def attend(x):
        return sharded_attention(x, x, x, layout, group=group, timeout=20)

    if what == "order":
        losses = [attend(x).sum() for x in mine]
        for loss in losses if torch.distributed.get_rank(group) == 0 else losses[::-1]:
            loss.backward()
    if what == "twice":
        x = mine[0]
        output = attend(x)
        (gradient,) = torch.autograd.grad(output.sum(), x, create_graph=True)
        (output.sum() + gradient.square().sum()).backward()
    if what == "vmap":
        torch.vmap(attend)(mine[0][None])
    if what == "forward mode":
        with torch.autograd.forward_ad.dual_level():
            attend(mine[0])
    if what == "batched gradients":
        output = attend(mine[0])
        torch.autograd.grad(output, mine[0], torch.ones(2, *output.shape), is_grads_batched=True)
    x, y = whole[0], mine[0]
    if what == "autocast":
        with torch.autocast("cpu", torch.bfloat16):
            return same_rows(ct.attention(x, x, x), attend(y), layout, group)
    doubled = x * 2
    wanted = ct.attention(doubled, doubled, doubled) + 1
    found = called(what, lambda x: attend(x * 2) + 1, y)
    wanted.square().sum().backward()
    found.square().sum().backward()
    return same_rows(wanted, found, layout, group) and same_rows(x.grad, y.grad, layout, group)


def called(what: str, function: Any, x: Any) -> Any:
    """A function's result by another way."""
    if what == "compile":
        return torch.compile(function, backend="eager")(x)
    return torch.utils.checkpoint.checkpoint(function, x, use_reentrant=what == "reentrant checkpoint")


def same_rows(whole: Any, own: Any, layout: Layout, group: Any) -> bool:
    return torch.equal(shard(whole.detach(), layout, group=group), own) and whole.dtype is own.dtype


@pytest.mark.parametrize("what", ["autocast", "checkpoint", "reentrant checkpoint", "compile"])
def test_it_works_as_attention_does_inside(workers, what):
    assert workers.run(differentiated, what, ranks=range(2)) == [True] * 2


MISTAKES = {
    "order": "differ in the function: the gradients of call .* on rank 0; the gradients of call .* on rank 1. Use",
    "twice": "sharded_attention has first derivatives only",
    "vmap": r"sharded_attention is inside torch\.vmap",
    "forward mode": r"sharded_attention is inside torch\.vmap, torch\.func, forward_ad",
    "batched gradients": r"the backward of sharded_attention is inside torch\.vmap",
}


@pytest.mark.parametrize("what", MISTAKES)
def test_gradients_that_would_be_wrong_are_refused_by_all_ranks(workers, what):
    for error in workers.run(differentiated, what, ranks=range(2)):
        with pytest.raises(InputError, match=MISTAKES[what]):
            raise error
    assert workers.run(joined, "zigzag", ranks=range(2)) == [True] * 2  # the group can be used again


def threaded(group: Any) -> list[str]:
    """What a second thread is told while a first one waits in a call on the same group."""
    layout, errors = Layout(4500, 2), []
    x = shard(torch.ones(1, 4500, 16), layout, group=group)
    if torch.distributed.get_rank(group) == 1:
        time.sleep(1.0)  # rank 0 waits meanwhile
        unshard(x, layout, group=group)
        return []
    first = threading.Thread(target=unshard, args=(x, layout), kwargs={"group": group})
    first.start()
    time.sleep(0.3)
    try:
        unshard(x, layout, group=group)
    except InputError as error:
        errors.append(str(error))
    first.join()
    return errors


def test_a_second_thread_on_a_group_is_refused(workers):
    told, nothing = workers.run(threaded, ranks=range(2))
    assert "another thread of this process is in a call on this group" in told[0]
    assert nothing == []


def threads_left(group: Any) -> int:
    """How many threads more there are after a call than before: one in the store at exit aborts the process."""
    before = threading.active_count()
    joined(group, "zigzag")
    return threading.active_count() - before


def test_no_thread_outlives_a_call(workers):
    assert workers.run(threads_left, ranks=range(2)) == [0, 0]


def decoded(group: Any, length: int, unit: int, source: int, mask: Any, dtype: str | None) -> Any:
    """The last three of some queries, asked by one rank of the others' caches."""
    rank, size = torch.distributed.get_rank(group), torch.distributed.get_world_size(group)
    layout = Layout(length, size, unit=unit)
    q, k, v, sink = decoding(length)
    caches = []
    for rows in layout.stretches(rank):
        caches.append(KeyValueCache(dtype=dtype))
        caches[-1].append(k[:, rows.start : rows.stop], v[:, rows.start : rows.stop])
    asked = torch.from_numpy(q) if rank == source else None
    sent: list[int] = []
    isend = torch.distributed.isend

    def counting(tensor, *args, **options):
        sent.extend([tensor.numel() * 4] * (tensor.dtype is not torch.uint8))
        return isend(tensor, *args, **options)

    torch.distributed.isend = counting
    try:
        rest = {"mask": mask, "score": softcap(5.0), "sink": torch.from_numpy(sink)}
        found = sharded_decode(asked, caches, layout, source=source, group=group, timeout=20, **rest)
    finally:
        torch.distributed.isend = isend
    return None if found is None else found.numpy(), sent


def decoding(length: int) -> list[Any]:
    rng = np.random.default_rng(length)
    shapes = (4, 3, 16), (2, length, 16), (2, length, 32), (4,)
    return [rng.standard_normal(shape).astype(np.float32) for shape in shapes]


@pytest.mark.parametrize("dtype", [None, "int8"])
@pytest.mark.parametrize("mask", [causal(), window(3000)])
@pytest.mark.parametrize("source", [0, 2])
def test_a_cache_that_ranks_share_answers_as_one_does(workers, mask, source, dtype):
    length = 9500  # segments of ranks 0 1 2 2 1, the last of 1308 keys
    q, k, v, sink = decoding(length)
    cache = KeyValueCache(dtype=dtype)
    cache.append(k, v)
    wanted = attention(q, cache, mask=mask, score=softcap(5.0), sink=sink)
    answers = workers.run(decoded, length, 2048, source, mask, dtype, ranks=range(3))
    for rank, (found, sent) in enumerate(answers):
        if rank == source:
            assert found.tobytes() == wanted.tobytes()
        else:
            segments = sum(
                x.stop > (0 if mask == causal() else length - 3003)
                for x in Layout(length, 3).segments
                if x.rank == rank
            )
            assert found is None
            assert sent == [4 * 3 * (32 + 2) * 4] * segments


def test_a_wrong_question_is_refused_by_all_ranks(workers):
    errors = workers.run(decoded, 9500, 2048, 7, causal(), None, ranks=range(3))
    assert {str(x) for x in errors} == {"source=7 is not a rank: use 0 to 2."}
    assert workers.run(joined, "zigzag", ranks=range(3)) == [True] * 3


def test_the_first_example_of_the_docs_runs(tmp_path):
    page = (Path(__file__).parents[2] / "docs/scale.md").read_text()
    section = page.partition("## Over processes: torch.distributed")[2]
    (tmp_path / "shared.py").write_text(section.partition("```python\n")[2].partition("```")[0])
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "shared.py"]
    done = subprocess.run(command, cwd=tmp_path, env=own_path(), capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    assert sorted(done.stdout.split("\n")) == ["", "rank 0, 2048 rows: True", "rank 1, 2952 rows: True"], done.stderr


def own_path() -> dict[str, str]:
    """The environment, with this checkout first."""
    return os.environ | {"PYTHONPATH": str(Path(__file__).parents[2]), "OMP_NUM_THREADS": "1"}


def test_what_cannot_be_shared_is_refused(workers):
    with pytest.raises(InputError, match=r"torch\.distributed is not initialized in this process"):
        shard(torch.zeros(4, 2), Layout(4, 2))
    for name, error in REFUSED.items():
        answers = workers.run(refused, name, ranks=range(2))
        assert all(error in str(x) for x in answers), (name, answers)


REFUSED = {
    "meta": "is on meta",
    "ranks": "the layout is for 3 ranks, but the group has 2",
    "align": "says where queries stand, which the layout does",
    "documents": "packs documents that the layout does not have",
    "no documents": "the layout has documents, which the mask causal() does not keep apart",
    "heads": "query heads a multiple of the key heads",
    "way": "way='ring'",
    "ahead": "ahead=0 is not a number of segments on their way",
    "timeout": "timeout=-1",
    "dtype": "three of one float dtype",
    "unshard": "unshard has no gradient",
    "group": "group='x' is not a group",
}


def refused(group: Any, name: str) -> None:
    """A call that every rank refuses."""
    layout = Layout(100, 3 if name == "ranks" else 2, documents=[60, 40] if name == "no documents" else None)
    x = shard(torch.zeros(2, 100, 4), layout, group=group, rank=torch.distributed.get_rank(group))
    options: dict[str, Any] = {"mask": causal()}
    options |= {"mask": causal(align="end")} if name == "align" else {}
    options |= {"mask": documents([60, 40]) & causal()} if name == "documents" else {}
    options |= {"way": "ring"} if name == "way" else {}
    options |= {"ahead": 0} if name == "ahead" else {}
    q = {"meta": x.to("meta"), "heads": x[:1], "dtype": x.double()}.get(name, x)
    if name == "unshard":
        unshard(x.requires_grad_(), layout, group=group)
    group = "x" if name == "group" else group
    sharded_attention(q, x, x, layout, group=group, timeout=-1 if name == "timeout" else 20, **options)
