"""Watches without a model: arrays as a recorder hands them over, with the outputs that attention gives for them."""

import numpy as np

import clearhead
from clearhead.watched.lineage import Continuation
from clearhead.watched.records import Pass, Record
from clearhead.watched.run import Run
from clearhead.watched.seen import Watch
from clearhead.watched.visible import visible_band


def record(batch=2, scale=0.5, cap=None, left=None, sink=None, dtype="float32") -> Record:
    """A prompt of 5 tokens and one token more, 4 heads over 2 key heads."""
    rng = np.random.default_rng(0)
    q, k, v = (rng.standard_normal((batch, heads, 6, 4)).astype(np.float32) for heads in (4, 2, 2))
    mask = clearhead.causal() if left is None else clearhead.window(left)
    score = () if cap is None else clearhead.softcap(cap)
    output = clearhead.attention(q, k, v, mask=mask, score=score, scale=scale, sink=sink)
    made = Record(heads=(0, 1, 2, 3), key_heads=(0, 0, 1, 1), count=4, dtype=dtype, scale=scale, cap=cap, sink=sink)
    kept = Continuation(np.arange(batch), (slice(0, 5),) * batch, 5)
    for start, stop, continues, rows in ((0, 5, None, (0, 4)), (5, 6, kept, (0,))):
        count = stop - start
        visible = visible_band(count, stop, stop - count, left, 0)
        ids = np.arange(batch * 6).reshape(batch, 6)[:, start:stop]
        own = output[:, :, [start + row for row in rows]]
        one = Pass(batch, count, stop, count, continues, visible, None, ids, rows, own)
        made.add(one, {"query": q[:, :, start:stop], "key": k[:, :, start:stop], "value": v[:, :, start:stop]}, None)
    return made


def watch(*runs: dict[int, Record]) -> Watch:
    """A watch of runs, each with the layers of a decoder."""
    seen = Watch(1 << 20)
    seen.runs += [Run({("decoder", number): own for number, own in run.items()}) for run in runs]
    return seen
