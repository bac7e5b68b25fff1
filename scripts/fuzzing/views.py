"""Views that outlive what they look at: random interleavings of use and change, against copies that nobody changes.

Each case is a program of some dozens of steps on a few caches, arrays and functions: append, reorder, fork, save, load
and forget; attend, and look again later at the weights, log-sum-exps, pictures and gradients of any earlier call;
change arrays in place, and what functions read. A view must show what it showed, or say that it has changed; a call must
see everything as it is.
"""

import gc
import tempfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np

from clearhead import InputError, KeyValueCache, attend, attention, bias, causal, dense, window

HEADS, KEY_HEADS, DIM, VALUE_DIM = 4, 2, 16, 8
NAMES = {"factor": 1.0, "shifts": np.zeros(7)}
FACTOR, SHIFTS = 1.0, np.zeros(7)


class Sequence:
    """What one sequence of a cache holds, as copies."""

    def __init__(self):
        self.keys, self.values = np.zeros((KEY_HEADS, 0, DIM)), np.zeros((KEY_HEADS, 0, VALUE_DIM))

    def appended(self, k, v):
        """The same with more."""
        more = Sequence()
        more.keys, more.values = np.concatenate([self.keys, k], 1), np.concatenate([self.values, v], 1)
        return more


def softmax(scores):
    """Weights and log-sum-exps; what is −∞ has none."""
    top = scores.max(-1, keepdims=True, initial=-np.inf)
    top = np.where(np.isfinite(top), top, 0)
    sums = np.exp(scores - top).sum(-1, keepdims=True)
    with np.errstate(divide="ignore"):
        return np.exp(scores - top) / np.maximum(sums, 1e-300), (top + np.log(sums))[..., 0]


class Program:
    """Random steps, and what is known of everything."""

    def __init__(self, seed):
        self.rng = np.random.default_rng(seed)
        self.log = []
        self.caches = [self.new_cache() for _ in range(2)]
        self.views = []
        self.arrays = [self.random(HEADS if n == 0 else KEY_HEADS, 20, VALUE_DIM if n == 2 else DIM) for n in range(3)]
        self.table, self.seen = self.random(HEADS, 20, 20), self.rng.random((20, 20)) < 0.8
        self.seen |= np.eye(20, dtype=bool)
        self.mask, self.bias = dense(self.seen), bias(self.table)
        self.settings = SimpleNamespace(factor=1.0, inner={"shift": 0.5})

    def random(self, *shape):
        """Normal numbers."""
        return self.rng.standard_normal(shape)

    def pick(self, options):
        """One of several."""
        return options[int(self.rng.integers(len(options)))]

    def new_cache(self):
        """A cache of two sequences, with a window or without, and its mirror."""
        kept = self.pick([None, None, 130, 200])
        return KeyValueCache(window=kept), [Sequence(), Sequence()], kept

    # Caches

    def append(self):
        """More keys, as many for all sequences or not."""
        cache, mirror, _ = self.pick(self.caches)
        n, even = self.pick([1, 1, 2, 30, 90, 128, 140]), self.rng.random() < 0.8
        lengths = [n] * len(mirror) if even else [int(x) for x in self.rng.integers(0, n + 1, len(mirror))]
        k, v = self.random(len(mirror), KEY_HEADS, n, DIM), self.random(len(mirror), KEY_HEADS, n, VALUE_DIM)
        cache.append(k, v, lengths=lengths)
        mirror[:] = [s.appended(k[i, :, :x], v[i, :, :x]) for i, (s, x) in enumerate(zip(mirror, lengths, strict=True))]

    def reorder(self):
        """Beams."""
        cache, mirror, _ = self.pick(self.caches)
        if cache.layout is not None:
            order = [int(x) for x in self.rng.integers(0, len(mirror), int(self.rng.integers(1, 4)))]
            cache.reorder(order)
            mirror[:] = [mirror[i] for i in order]

    def fork(self):
        """Another cache that goes on from one."""
        cache, mirror, kept = self.pick(self.caches)
        if len(self.caches) < 5 and cache.layout is not None:
            self.caches.append((cache.fork(), list(mirror), kept))

    def saved(self):
        """A cache from a file, in place of one."""
        place = int(self.rng.integers(len(self.caches)))
        cache, mirror, kept = self.caches[place]
        if cache.layout is not None:
            with tempfile.TemporaryDirectory(prefix="clearhead-fuzz-") as folder:
                cache.save(Path(folder) / "cache.safetensors")
                self.caches[place] = KeyValueCache.load(Path(folder) / "cache.safetensors"), mirror, kept

    def forget(self):
        """Let a cache, or a view, go."""
        if len(self.caches) > 1 and self.rng.random() < 0.3:
            self.caches.pop(int(self.rng.integers(len(self.caches))))
        if self.views and self.rng.random() < 0.5:
            self.views.pop(int(self.rng.integers(len(self.views))))
        if self.rng.random() < 0.1:
            gc.collect()

    def over_cache(self):
        """Attention over a cache: the output now, and its weights later."""
        cache, mirror, kept = self.pick(self.caches)
        if cache.layout is None:
            return
        q = self.random(len(mirror), HEADS, self.pick([1, 1, 2, 6]), DIM)
        done = attend(q, cache, mask=causal() if kept is None else window(kept - 1))
        weights, sums = [], []
        for i, sequence in enumerate(mirror):
            n, m = q.shape[-2], sequence.keys.shape[1]
            position = np.arange(n)[:, None] + m - n
            seen = np.arange(m) <= position
            if kept is not None:
                seen &= np.arange(m) >= position - (kept - 1)
            seen &= np.arange(m) >= cache.first_key(i)
            scores = q[i] @ np.repeat(sequence.keys, HEADS // KEY_HEADS, 0).swapaxes(-1, -2) * DIM**-0.5
            a, lse = softmax(np.where(seen, scores, -np.inf))
            close(done.output[i], a @ np.repeat(sequence.values, HEADS // KEY_HEADS, 0), "outputs over a cache")
            weights.append(a)
            sums.append(lse)
        even = len({s.keys.shape[1] for s in mirror}) == 1
        self.views.append((done, (np.stack(weights), np.stack(sums)) if even else None, self.now(), None))

    # Arrays and functions

    def now(self):
        """Copies of all arrays."""
        return [x.copy() for x in (*self.arrays, self.table, self.seen)]

    def rule(self):
        """A function that reads names, attributes, a dict and an array."""
        settings, table = self.settings, self.table

        def function(score, batch, head, query, key):
            return (
                score * FACTOR * settings.factor + SHIFTS[key % 7] + settings.inner["shift"] * table[head, 0, key % 20]
            )

        self.function = getattr(self, "function", function)
        return self.function

    def ruled(self, q, k):
        """Scores after rule and bias, and what is seen, as all is now."""
        scores = q @ np.repeat(k, HEADS // KEY_HEADS, 0).swapaxes(-1, -2) * DIM**-0.5
        key = np.arange(20)
        shift = self.settings.inner["shift"] * self.table[:, 0, key][:, None]
        scores = scores * FACTOR * self.settings.factor + SHIFTS[key % 7] + shift + self.table
        return np.where(self.seen, scores, -np.inf)

    def over_arrays(self):
        """Attention over the arrays as they are, with the rules as they are."""
        q, k, v = self.arrays
        done = attend(q, k, v, mask=self.mask, score=[self.rule(), self.bias])
        a, lse = softmax(self.ruled(q, k))
        close(done.output, a @ np.repeat(v, HEADS // KEY_HEADS, 0), "outputs")
        close(attention(q, k, v, mask=self.mask, score=[self.rule(), self.bias]), done.output, "outputs again")
        d_out = self.random(*done.output.shape)
        self.views.append((done, (a, lse), self.now(), (d_out, done.backward(d_out, rules=False))))

    def change_array(self):
        """An array in place: all of it, or one number."""
        x = self.pick([*self.arrays, self.table])
        if self.rng.random() < 0.5:
            x *= self.pick([0.5, 1.5])
        else:
            x[tuple(int(self.rng.integers(n)) for n in x.shape)] += 1

    def change_seen(self):
        """What a table of truth says; every query goes on seeing itself."""
        i, j = self.rng.integers(0, 20, 2)
        if i != j:
            self.seen[i, j] ^= True

    def change_names(self):
        """What the function reads, but for the table."""
        global FACTOR, SHIFTS
        match int(self.rng.integers(5)):
            case 0:
                FACTOR = float(self.rng.uniform(0.5, 2))
            case 1:
                SHIFTS = self.random(7)
            case 2:
                SHIFTS[int(self.rng.integers(7))] += 1
            case 3:
                self.settings.factor = float(self.rng.uniform(0.5, 2))
            case _:
                self.settings.inner["shift"] = float(self.rng.uniform(-1, 1))

    # Looking

    def look(self):
        """At any earlier call's weights, from any side."""
        if not self.views:
            return
        done, known, then, gradients = self.pick(self.views)
        if known is None:
            assert refused(lambda: done.weights), "weights of sequences of different lengths"
            return
        weights, lse = known
        changed = gradients is not None and (self.changed(then) or SHIFTS is not done.__dict__.get("shifts", SHIFTS))
        row = int(self.rng.integers(weights.shape[-2]))
        looks = [
            (lambda w: np.asarray(w), weights), (lambda w: w.row(row), weights[..., row, :]),
            (lambda w: w[..., row : row + 1, :], weights[..., row : row + 1, :]),
            (lambda w: w.block(slice(0, row + 1), slice(None)), weights[..., : row + 1, :]),
        ]  # fmt: skip
        if not changed:
            looks += [
                (lambda w: w.lse, lse),
                (lambda w: w[..., 0], weights[..., 0]),
                (lambda w: w.row(row), weights[..., row, :]),
            ]
            looks.append((lambda w: w.summary("received_sum").received_sum, weights.sum(-2)))
        ask, wanted = self.pick(looks)
        try:
            found = ask(done.weights)
        except InputError as error:
            assert changed and "changed since" in str(error), f"refused, though nothing changed: {error}"
            return
        if changed and not np.allclose(found, wanted, atol=1e-7):
            sums = np.abs(found[..., -1:, :].sum(-1) - 1).max() if found.ndim > 1 else abs(found.sum() - 1)
            assert sums < 1e-6, f"rows that sum to {1 + sums} were shown"
            return
        close(found, wanted, "weights that were looked at later")

    def changed(self, then):
        """Whether any array is another than it was."""
        return not all(np.array_equal(a, b) for a, b in zip(self.now(), then, strict=True))

    def gradients(self):
        """Of an earlier call, whose arrays are as they were."""
        for done, _, then, gradients in self.views:
            if gradients is not None and not self.changed(then):
                d_out, wanted = gradients
                if self.settings_then == self.settings_now():
                    found = done.backward(d_out, rules=False)
                    for name in "qkv":
                        close(getattr(found, name), getattr(wanted, name), "gradients that were asked for later")

    settings_then = None

    def settings_now(self):
        """What functions read in place."""
        return SHIFTS.tobytes()

    def step(self):
        """One of all of these."""
        action = self.pick([
            self.append, self.append, self.append, self.reorder, self.fork, self.saved, self.forget, self.over_cache,
            self.over_cache, self.over_arrays, self.change_array, self.change_seen, self.change_names, self.change_names,
            self.look, self.look, self.look, self.look, self.gradients,
        ])  # fmt: skip
        self.log.append(action.__name__)
        action()
