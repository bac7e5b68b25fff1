"""Views that outlive what they look at: random interleavings of use and change, against copies that nobody changes.

Each case is a program of some dozens of steps on a few caches, arrays and functions: append, reorder, fork, save, load
and forget; attend, and look later at the weights, log-sum-exps, summaries, maps and gradients of any earlier call;
change arrays in place, and what functions read. A view over a cache must show what it showed; one over arrays too, or
say that they have changed; and a call must see everything as it is.
"""

import gc
import tempfile
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import numpy as np

from clearhead import InputError, KeyValueCache, attend, attention, bias, causal, dense, full, weights, where, window

HEADS, KEY_HEADS, DIM, VALUE_DIM, ITEMS, PAGE = 4, 2, 16, 8, 20, 128
SHARED = HEADS // KEY_HEADS
FACTOR, SHIFTS = 1.0, np.zeros(7)  # what the function reads by name; each case begins with these


@dataclass(frozen=True)
class Sequence:
    """What one sequence of a cache was given, as copies, and the first key that it still has."""

    keys: np.ndarray
    values: np.ndarray
    first: int = 0

    def appended(self, k, v, kept):
        """The same with more; before it, whole pages that lie before a window of `kept` keys have gone."""
        passed = 0 if kept is None else max(0, self.keys.shape[1] - kept + 1) // PAGE * PAGE
        both = (np.concatenate(pair, 1) for pair in ((self.keys, k), (self.values, v)))
        return Sequence(*both, max(self.first, passed))  # type: ignore[call-arg]


@dataclass(frozen=True)
class View:
    """An earlier call, what its weights and log-sum-exps are, and copies of the arrays that it reads in place."""

    weights: object  # gives them
    known: tuple | None
    held: tuple = ()
    gradients: tuple | None = None

    @property
    def changed(self):
        """Whether any array is another than it was."""
        return not all(np.array_equal(now, then) for now, then in self.held)


def softmax(scores):
    """Weights and log-sum-exps; who sees nothing has no weights."""
    top = scores.max(-1, keepdims=True, initial=-np.inf)
    top = np.where(np.isfinite(top), top, 0)
    sums = np.exp(scores - top).sum(-1, keepdims=True)
    with np.errstate(divide="ignore"):
        return np.exp(scores - top) / np.maximum(sums, 1e-300), (top + np.log(sums))[..., 0]


def spread(x):
    """What key heads hold, for each query head."""
    return np.repeat(x, SHARED, -3)


def products(q, k):
    """Scores of queries and keys."""
    return q @ spread(k).swapaxes(-1, -2) * DIM**-0.5


def close(found, wanted, what, tolerance=1e-9):
    """Equal but for rounding."""
    found = np.asarray(found)
    assert found.shape == wanted.shape, f"{what} of shape {found.shape}, not {wanted.shape}"
    same = np.isclose(found, wanted, rtol=tolerance, atol=tolerance, equal_nan=True)
    assert same.all(), (
        f"{what}: {(~same).sum()} of {same.size} differ, {found[~same][0]} in place of {wanted[~same][0]}"
    )


class Program:
    """Random steps, and what is known of everything."""

    def __init__(self, seed):
        global FACTOR, SHIFTS
        FACTOR, SHIFTS = 1.0, np.zeros(7)
        self.rng, self.log = np.random.default_rng(seed), []
        self.caches = [self.new_cache() for _ in range(2)]
        self.views = []
        self.arrays = [
            self.random(HEADS if n == 0 else KEY_HEADS, ITEMS, VALUE_DIM if n == 2 else DIM) for n in range(3)
        ]
        self.table, self.seen = self.random(HEADS, ITEMS, ITEMS), self.rng.random((ITEMS, ITEMS)) < 0.8
        self.seen |= np.eye(ITEMS, dtype=bool)
        self.mask, self.bias = dense(self.seen), bias(self.table)
        self.settings = settings = SimpleNamespace(factor=1.0, inner={"shift": 0.5})
        table = self.table

        def rule(score, batch, head, query, key):
            shift = settings.inner["shift"] * table[head, 0, key % ITEMS]
            return score * FACTOR * settings.factor + SHIFTS[key % 7] + shift

        self.rule = rule

    def random(self, *shape):
        """Normal numbers."""
        return self.rng.standard_normal(shape)

    def pick(self, options):
        """One of several."""
        return options[int(self.rng.integers(len(options)))]

    # Caches

    def new_cache(self):
        """A cache of two sequences, with a window or without, what it was given, and the window."""
        kept = self.pick([None, None, 130, 200])
        none = Sequence(np.zeros((KEY_HEADS, 0, DIM)), np.zeros((KEY_HEADS, 0, VALUE_DIM)))
        return KeyValueCache(window=kept), [none, none], kept

    def append(self):
        """More keys, as many for all sequences or not."""
        cache, mirror, kept = self.pick(self.caches)
        n = self.pick([1, 1, 2, 30, 90, 128, 140])
        lengths = [n] * len(mirror)
        match int(self.rng.integers(6)):
            case 0:
                lengths = [int(x) for x in self.rng.integers(0, n + 1, len(mirror))]
            case 1:  # so that all are of one length again
                most = max(s.keys.shape[1] for s in mirror)
                lengths = [most - s.keys.shape[1] for s in mirror]
                n = max(lengths)
        k, v = self.random(len(mirror), KEY_HEADS, n, DIM), self.random(len(mirror), KEY_HEADS, n, VALUE_DIM)
        cache.append(k, v, lengths=lengths)
        for i, count in enumerate(lengths):
            mirror[i] = mirror[i].appended(k[i, :, :count], v[i, :, :count], kept)

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
        behind = where(lambda batch, head, query, key: key <= query)  # how far it reaches, a cache does not know
        mask, left, right = self.pick(
            [(causal(), None, 0), (full(), None, None), (window(20), 20, 0)]
            if kept is None
            else [(behind, None, 0), (window(kept - 1), kept - 1, 0), (window(20), 20, 0)]
        )
        done, known = attend(q, cache, mask=mask), []
        for i, sequence in enumerate(mirror):
            n, m = q.shape[-2], sequence.keys.shape[1]
            apart = np.arange(m) - (np.arange(n)[:, None] + m - n)
            seen = np.broadcast_to(np.arange(m) >= sequence.first, (n, m))
            seen = seen & (left is None or apart >= -left) & (right is None or apart <= right)
            known.append(softmax(np.where(seen, products(q[i], sequence.keys), -np.inf)))
            close(done.output[i], known[i][0] @ spread(sequence.values), "outputs over a cache")
            close(done.lse[i], known[i][1], "log-sum-exps over a cache")
        alike = len({(s.keys.shape[1], s.first) for s in mirror}) == 1
        known = tuple(np.stack(x) for x in zip(*known, strict=True)) if alike else None
        self.views.append(View(lambda: done.weights, known))
        if alike:
            found = weights(q, cache, mask=mask)
            self.views.append(View(lambda: found, known))

    # Arrays and functions

    def over_arrays(self):
        """Attention over the arrays as they are, with the rules as they are."""
        (q, k, v), rules = self.arrays, {"mask": self.mask, "score": [self.rule, self.bias]}
        key, inner = np.arange(ITEMS), self.settings.inner
        shift = SHIFTS[key % 7] + inner["shift"] * self.table[:, 0, key][:, None]
        scores = products(q, k) * FACTOR * self.settings.factor + shift + self.table
        known = softmax(np.where(self.seen, scores, -np.inf))
        done = attend(q, k, v, **rules)
        close(done.output, known[0] @ spread(v), "outputs")
        close(done.lse, known[1], "log-sum-exps")
        close(attention(q, k, v, **rules), done.output, "outputs again")
        held = tuple((x, x.copy()) for x in (*self.arrays, self.table, self.seen, SHIFTS))
        d_out = self.random(*done.output.shape)
        asked = lambda: done.backward(d_out, rules=False)  # noqa: E731
        self.views.append(View(lambda: done.weights, known, held, (asked, asked())))

    def change_array(self):
        """An array in place: all of it, or one number."""
        x = self.pick([*self.arrays, self.table])
        if self.rng.random() < 0.5:
            x *= self.pick([0.5, 1.5])
        else:
            x[tuple(int(self.rng.integers(n)) for n in x.shape)] += 1

    def change_seen(self):
        """What a table of truth says; every query goes on seeing itself."""
        i, j = self.rng.integers(0, ITEMS, 2)
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
        view = self.pick(self.views)
        if view.known is None:
            self.look_at_none(view)
            return
        wanted, lse = view.known
        row, column = (int(self.rng.integers(max(1, n))) for n in wanted.shape[-2:])
        looks = [
            (np.asarray, wanted), (lambda w: w.row(row), wanted[..., row, :]),
            (lambda w: w[..., row : row + 1, :], wanted[..., row : row + 1, :]),
            (lambda w: w.block(slice(0, row + 1), slice(None)), wanted[..., : row + 1, :]),
            (lambda w: np.asarray(w[-1]), wanted[-1]),
        ]  # fmt: skip
        if not view.changed:  # a part of a row does not tell
            looks += [
                (lambda w: w.lse, lse), (lambda w: w[..., column : column + 1], wanted[..., column : column + 1]),
                (lambda w: w[..., row, column - 1 : column], wanted[..., row, column - 1 : column]),
                (lambda w: w.summary("received_sum").received_sum, wanted.sum(-2)),
                (lambda w: w.summary("received_max").received_max, wanted.max(-2)),
                (lambda w: w.map(size=10**6), wanted),
            ]  # fmt: skip
        ask, numbers = self.pick(looks)
        try:
            found = ask(view.weights())
        except InputError as error:
            assert view.changed, f"refused, though nothing changed: {error}"
            assert "changed since" in str(error), str(error)
            return
        close(found, numbers, f"weights that were looked at later, {'' if view.changed else 'un'}changed")

    def look_at_none(self, view):
        """At weights of sequences that are not alike, which have none together."""
        try:
            view.weights()
        except InputError as error:
            assert "reorder" in str(error), str(error)
            return
        raise AssertionError("weights of sequences that are not alike")

    def gradients(self):
        """Of earlier calls whose arrays are as they were."""
        for view in self.views:
            if view.gradients is not None and not view.changed:
                asked, wanted = view.gradients
                found = asked()
                for name in "qkv":
                    close(getattr(found, name), getattr(wanted, name), "gradients that were asked for later")

    def step(self):
        """One of all of these."""
        action = self.pick([
            self.append, self.append, self.append, self.reorder, self.fork, self.saved, self.forget, self.over_cache,
            self.over_cache, self.over_arrays, self.change_array, self.change_seen, self.change_names,
            self.change_names, self.look, self.look, self.look, self.look, self.gradients,
        ])  # fmt: skip
        self.log.append(action.__name__)
        action()


def check(seed: int) -> None:
    """One program."""
    program = Program(seed)
    for _ in range(int(program.rng.integers(10, 80))):
        program.step()


def describe(seed: int) -> str:
    """A program's steps, up to the one that fails."""
    program = Program(seed)
    try:
        for _ in range(int(program.rng.integers(10, 80))):
            program.step()
    except Exception as error:
        program.log.append(type(error).__name__)
    return ", ".join(program.log)
