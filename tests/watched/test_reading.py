"""What a watch reads of a call, on any device: copies, marks by which keys are known again, masks, biases."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

torch = pytest.importorskip("torch")

from clearhead.adapters.torch import reading  # noqa: E402
from clearhead.adapters.torch.calls import AttentionCall, Visibility  # noqa: E402
from clearhead.adapters.torch.intercept import split_table  # noqa: E402
from clearhead.adapters.torch.remembered import forget, known  # noqa: E402
from clearhead.errors import InputError  # noqa: E402

MODULE = torch.nn.Identity()


def call_of(visibility=None, queries=3, keys=5, batch=2, heads=4, key_heads=2, **options):
    """A call with random operands."""
    q, k, v = (torch.randn(batch, h, n, 8) for h, n in ((heads, queries), (key_heads, keys), (key_heads, keys)))
    return AttentionCall(MODULE, q, k, v, 1.0, Visibility() if visibility is None else visibility, **options)


def tables_of(visible, batch, queries, keys):
    """All pairs, (batch, heads or 1, queries, keys)."""
    found = np.stack([visible.table(n, keys) for n in range(batch)])
    assert found.shape[2:] == (queries, keys)
    return found


def seen_of(call):
    """What a call's own rows say."""
    return call.visible_rows(torch.arange(call.query.shape[2])).numpy()


def check_visible(call):
    """The compact form has the pairs of the call, but for keys at the end that nobody sees."""
    visible, count = reading.visible_of(call)
    batch, keys = len(call.query), call.key.shape[2]
    expected = np.broadcast_to(seen_of(call), (batch, seen_of(call).shape[1], call.query.shape[2], keys))
    found = tables_of(visible, batch, call.query.shape[2], count)
    assert not expected[..., count:].any()
    assert np.array_equal(*np.broadcast_arrays(found, expected[..., :count]))
    return visible


# Copies


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.int64])
def test_a_copy_has_the_bits_and_is_its_own(dtype):
    x = (torch.randn(2, 3, 4, 5) * 9).to(dtype)[:, :, ::2, 1:]
    copied, before = reading.host_copy(x), x.clone()
    x.zero_()
    assert copied.shape == tuple(before.shape)
    assert copied.flags.c_contiguous
    assert copied.nbytes == before.numel() * before.element_size()
    assert np.array_equal(np.asarray(copied, np.float64), before.double().numpy())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_halves_are_widened_where_numbers_are_compared(dtype):
    x = torch.randn(5).to(dtype)
    copied = reading.host_copy(x, exact=True)
    assert copied.dtype == np.float32
    assert np.array_equal(copied, x.float().numpy())


# Marks


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
def test_marks_are_those_of_copies_and_no_others(dtype):
    key = torch.randn(3, 2, 40, 16).to(dtype)
    marks = reading.fingerprints(key)
    assert marks.shape == (3, 40)
    assert marks.dtype == np.int64
    assert len(set(marks.ravel().tolist())) == 120
    assert np.array_equal(reading.fingerprints(key.clone()), marks)
    assert np.array_equal(reading.fingerprints(key.transpose(1, 2).contiguous().transpose(1, 2)), marks)
    order = torch.tensor([5, 0, 7])
    assert np.array_equal(reading.fingerprints(key[[2, 0]][:, :, order]), marks[[2, 0]][:, order])


@pytest.mark.parametrize("dim", [1, 4, 7, 8, 64])
def test_a_sample_of_keys_does_not_change_with_them(dim):
    key = torch.randn(2, 3, 5, dim)
    sample = reading.sample(key)
    before = sample.clone()
    key.zero_()
    assert torch.equal(sample, before)


def test_marks_tell_heads_and_dims_apart():
    key = torch.randn(1, 2, 5, 16)
    marks = reading.fingerprints(key)
    assert not (reading.fingerprints(key.flip(1)) == marks).any()
    assert not (reading.fingerprints(key.flip(3)) == marks).any()
    assert not (reading.fingerprints(-key) == marks).any()


@pytest.mark.parametrize("dim", [1, 2, 3, 64])
def test_marks_of_any_size(dim):
    key = torch.randn(1, 1, 9, dim)
    assert len(set(reading.fingerprints(key).ravel().tolist())) == 9


# Masks


@given(st.sampled_from([None, "start", "end"]), st.integers(1, 7), st.integers(1, 7), st.data())
def test_bands(causal, queries, keys, data):
    left, right = (data.draw(st.none() | st.integers(0, 4)) for _ in range(2))
    check_visible(call_of(Visibility(causal=causal, left=left, right=right), queries, keys))


@given(st.integers(1, 6), st.integers(1, 9), st.sampled_from([1, 2]), st.sampled_from([1, 4]), st.integers(0, 99))
def test_random_tables(queries, keys, batch, heads, seed):
    rng = np.random.default_rng(seed)
    table = torch.tensor(rng.random((batch, heads, queries, keys)) < rng.choice([0.1, 0.5, 0.9]))
    check_visible(call_of(Visibility(table=table), queries, keys))


@given(st.integers(1, 6), st.integers(1, 9), st.data())
def test_intervals_need_no_bits(queries, keys, data):
    pads = torch.tensor([[data.draw(st.booleans()) for _ in range(keys)] for _ in range(2)])
    low = torch.tensor([[data.draw(st.integers(0, keys)) for _ in range(queries)] for _ in range(2)])
    high = torch.tensor([[data.draw(st.integers(0, keys)) for _ in range(queries)] for _ in range(2)])
    key = torch.arange(keys)
    table = (key >= low[..., None]) & (key < high[..., None]) & ~pads[:, None]
    visible = check_visible(call_of(Visibility(table=table[:, None]), queries, keys))
    assert visible.bits is None


@given(st.data())
def test_tokens_with_a_band(data):
    queries, keys = data.draw(st.integers(1, 6)), data.draw(st.integers(1, 9))
    tokens = torch.tensor([[data.draw(st.booleans()) for _ in range(keys)] for _ in range(2)])
    causal = data.draw(st.sampled_from([None, "end"]))
    check_visible(
        call_of(Visibility(causal=causal, left=data.draw(st.none() | st.integers(0, 3)), tokens=tokens), queries, keys)
    )


def test_rows_are_computed_some_at_a_time(monkeypatch):
    monkeypatch.setattr(reading, "PAIRS_AT_ONCE", 64)
    asked = []

    def rows(numbers):
        asked.append(len(numbers))
        seen = torch.arange(20) <= numbers[:, None]
        return (seen & ((torch.arange(20) + numbers[:, None]) % 3 != 0)).expand(2, 1, len(numbers), 20)

    visible, _ = reading.visible_of(call_of(Visibility(rows=rows), 20, 20))
    assert max(asked) == 1
    assert visible.bits.nbytes == 2 * 20 * 3
    check_visible(call_of(Visibility(rows=rows), 20, 20))


def test_room_in_a_cache_is_left_out():
    table = torch.zeros(2, 1, 3, 16, dtype=torch.bool)
    for i in range(3):
        table[:, :, i, : 5 + i] = True
    visible, count = reading.visible_of(call_of(Visibility(table=table), 3, 16))
    assert count == 7
    assert visible.tokens is None or visible.tokens.shape[1] == 7
    check_visible(call_of(Visibility(table=table), 3, 16))


def test_a_table_that_layers_share_is_read_once(monkeypatch):
    table, times = torch.ones(2, 1, 3, 5, dtype=torch.bool).tril(2), []
    right = reading.read_visible
    monkeypatch.setattr(reading, "read_visible", lambda call: (times.append(1), right(call))[1])
    first = [reading.visible_of(call_of(Visibility(table=table, source=table)))[0] for _ in range(3)]
    assert len(times) == 1
    assert first[0] is first[2]
    table[:, :, 0, 0] = False
    assert not check_visible(call_of(Visibility(table=table, source=table))).table(0, 5)[0, 0, 0]
    assert len(times) == 2


@torch.inference_mode()
def test_a_table_of_inference_mode_is_read_each_time():
    """There torch does not count changes."""
    table = torch.ones(2, 1, 3, 5, dtype=torch.bool)
    check_visible(call_of(Visibility(table=table, source=table)))
    table[:, :, 0, 0] = False
    check_visible(call_of(Visibility(table=table, source=table)))


def test_what_was_read_is_let_go():
    for _ in range(50):
        table = torch.ones(2, 1, 3, 5, dtype=torch.bool)
        check_visible(call_of(Visibility(table=table, source=table)))
    assert len(known) <= 16
    forget()
    assert not known


@given(st.integers(0, 99))
def test_masks_of_numbers_hide_and_add(seed):
    rng = np.random.default_rng(seed)
    lowest = [0.0, -np.inf, torch.finfo(torch.float32).min, -10000.0]
    mask = torch.tensor(rng.choice(lowest, (1, 1, 4, 5)), dtype=torch.float32)
    table, adds = split_table(mask)
    assert torch.equal(table, mask == 0)
    assert not adds
    mask[0, 0, 1, 1] = 1.5
    table, (added,) = split_table(mask)
    assert torch.equal(table, mask >= 0)
    assert torch.equal(added, mask.clamp_min(0))


# Biases, sinks


def test_biases_of_distances_are_one_number_for_each():
    numbers = torch.randn(1, 4, 5 + 7 - 1)
    table = numbers[:, :, torch.arange(7) - torch.arange(5)[:, None] + 4]
    added = reading.added_of(call_of(queries=5, keys=7, adds=(table,)), [3, 1], 7)
    assert added.by_distance
    assert np.array_equal(added.of(0), numbers[0, [3, 1]])
    sliced = reading.added_of(call_of(queries=5, keys=7, adds=(table,)), [0, 1, 2, 3], 6)
    assert np.array_equal(sliced.of(1), numbers[0, :, :10])


def test_other_biases_are_kept_pair_by_pair_and_summed():
    one, other = torch.randn(2, 1, 3, 5), torch.randn(1, 4, 1, 5)
    added = reading.added_of(call_of(adds=(one, other)), [2], 5)
    assert not added.by_distance
    assert np.array_equal(added.of(1), (one + other)[1, [2]].numpy())


def test_nothing_added_is_nothing_kept():
    assert reading.added_of(call_of(adds=(torch.zeros(1, 1, 3, 5),)), [0], 5) is None
    assert reading.added_of(call_of(), [0], 5) is None


def test_sinks_of_chosen_heads():
    sinks = torch.randn(4).bfloat16()
    assert np.array_equal(reading.sink_of(call_of(sink=sinks.reshape(1, 4, 1, 1)), (3, 0)), sinks[[3, 0]].float())
    assert reading.sink_of(call_of(), (0,)) is None


def test_what_holds_no_numbers_is_refused():
    x = torch.randn(1, 1, 2, 2, device="meta")
    call = AttentionCall(MODULE, x, x, x, 1.0, Visibility())
    with pytest.raises(InputError, match="Identity is traced, mapped or run without data"):
        reading.refuse_without_numbers(call)
