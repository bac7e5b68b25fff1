"""Masks joined by &, | and ~, for any lengths, against an evaluation pair by pair.

Each case draws a formula of masks, heads and lengths, sizes that fit and sizes that do not, and says itself, in plain
Python, which pairs are seen or that the formula has no meaning for these lengths. clearhead must say the same: by
`visible`, and in one case of four by the outputs of attention, of its weights, and of attention over a cache.
"""

import numpy as np

from clearhead import (
    InputError,
    KeyValueCache,
    attend,
    attention,
    blocks,
    causal,
    dense,
    dilated,
    documents,
    full,
    prefix,
    where,
    window,
)  # fmt: skip
from clearhead.machine.target import native_isas
from clearhead.rules.masks import visible
from clearhead.testing import using_isa

KINDS = ["causal", "full", "window", "dilated", "prefix", "documents", "packed", "blocks", "dense", "where"]
LENGTHS = [0, 1, 2, 3, 4, 5, 7, 16, 17, 33]
LONG = [63, 64, 65, 127, 128, 129, 130, 200, 257, 300]


class Meaningless(Exception):  # noqa: N818
    """A formula that says nothing for such lengths."""


class Case:
    """One formula, as nested tuples, and what it is asked for."""

    def __init__(self, seed):
        self.rng = rng = np.random.default_rng(seed)
        self.lengths = LENGTHS if seed % 4 else LONG
        self.batches, self.heads = (
            (self.pick([1, 1, 2]), self.pick([1, 2, 3])) if seed % 4 else (1, self.pick([1, 1, 2]))
        )
        self.m = self.pick(self.lengths)
        self.n = self.m if rng.random() < 0.5 else self.pick(self.lengths)
        self.align = self.pick([None, "start", "end"])
        self.fitting = rng.random() < 0.8  # whether sizes are meant to fit
        self.tree = self.formula(int(rng.integers(0, 4)))

    def pick(self, options):
        """One of several."""
        return options[int(self.rng.integers(len(options)))]

    def size(self, right):
        """A size, now and then another one."""
        return right if self.fitting or self.rng.random() < 0.7 else max(0, right + int(self.rng.integers(-3, 4)))

    def formula(self, depth):
        """A formula of masks."""
        if depth == 0:
            return self.atom()
        op = self.pick(["and", "and", "or", "or", "not"])
        return (op, self.formula(depth - 1)) if op == "not" else (op, self.formula(depth - 1), self.formula(depth - 1))

    def table(self, rows, columns):
        """Booleans, with heads and batches before, or for all."""
        shape = [self.pick([1, rows]), self.pick([1, columns])] if self.rng.random() < 0.3 else [rows, columns]
        lead = [self.pick([1, self.size(self.heads)]), self.pick([1, self.size(self.batches)])]
        shape = lead[: int(self.rng.integers(3))][::-1] + shape
        table = self.rng.random(shape) < self.pick([0.1, 0.5, 0.9])
        table.flags.writeable = self.rng.random() < 0.7
        return table

    def parts(self, total):
        """Lengths that sum to a total."""
        cuts = np.sort(self.rng.integers(0, total + 1, int(self.rng.integers(0, 4))))
        return [int(x) for x in np.diff([0, *cuts, total])]

    def atom(self):
        """One mask, as a tuple of its name and numbers."""
        align = self.align if self.rng.random() < 0.95 else self.pick([None, "start", "end"])
        match self.pick(KINDS):
            case "causal":
                return "causal", align
            case "full":
                return ("full",)
            case "window":
                sides = [self.pick([None, 0, 1, 3, 20, 130, 2**40, 2**70]) for _ in range(2)]
                return "window", *sides, align
            case "dilated":
                return "dilated", self.pick([1, 2, 3, 5, 64, 100, 2**31, 2**70]), align
            case "prefix":
                return "prefix", self.pick([0, 1, 3, 100, 129, 2**31, 2**70])
            case "documents":
                return "documents", self.parts(self.size(self.m)), None
            case "packed":
                keys = self.parts(self.size(self.m))
                queries = self.parts(self.size(self.n))
                queries = (queries + [0] * len(keys))[: len(keys)]
                queries[-1:] = [max(0, self.n - sum(queries[:-1]))] if queries else []
                return "documents", keys, queries
            case "blocks":
                size = self.pick([1, 2, 5, 16, 128, 2**40])
                rows, columns = (self.size(-(-x // size)) for x in (max(self.n, self.m), self.m))
                return "blocks", self.table(rows, columns), size
            case "dense":
                return "dense", self.table(self.size(self.n), self.size(self.m))
        factors = [int(x) for x in self.rng.integers(-3, 4, 4)]
        return "where", factors, int(self.rng.integers(2, 6))


def made(tree):
    """The formula as clearhead's masks."""
    match tree:
        case "and", a, b:
            return made(a) & made(b)
        case "or", a, b:
            return made(a) | made(b)
        case "not", a:
            return ~made(a)
        case "causal", align:
            return causal(align=align)
        case ("full",):
            return full()
        case "window", left, right, align:
            return window(left, right, align=align)
        case "dilated", step, align:
            return dilated(step, align=align)
        case "prefix", length:
            return prefix(length)
        case "documents", keys, queries:
            return documents(keys, queries=queries)
        case "blocks", table, size:
            return blocks(table, size)
        case "dense", table:
            return dense(table)
        case "where", (a, b, c, d), modulus:
            return where(lambda batch, head, query, key: (a * batch + b * head + c * query + d * key) % modulus != 0)
    raise AssertionError(tree)


def atoms(tree):
    """All masks of a formula."""
    return [x for part in tree[1:] for x in atoms(part)] if tree[0] in ("and", "or", "not") else [tree]


def factors(tree):
    """The formulas that all must hold."""
    return factors(tree[1]) + factors(tree[2]) if tree[0] == "and" else [tree]


def shift(n, m, words):
    """What turns a query's index into its position."""
    if words and words == {None} and n != m:
        raise Meaningless("no alignment")
    return m - n if "end" in words else 0


def reads_position(x):
    """Whether a mask without an alignment of its own depends on where a query stands."""
    return x[0] == "blocks" or (x[0] == "where" and x[1][2] != 0)


def seen(case, end=False):
    """Which pairs a formula lets see each other, (batches, heads, n, m)."""
    tree, n, m = case.tree, case.n, case.m
    words = {x[-1] for x in atoms(tree) if x[0] in ("causal", "window", "dilated")}
    if end:  # over a cache, the queries are the last ones, unless a mask says otherwise
        words = {word or "end" for word in words or {"end"}}
    if len(words - {None}) > 1:
        raise Meaningless("two alignments")
    packed = [x for x in factors(tree) if x[0] == "documents"]
    if len(packed) > 1:
        raise Meaningless("packed twice")
    own = np.full(n, -1), np.full(m, -1)  # documents
    position = np.arange(n)
    if packed:
        keys, queries = packed[0][1], packed[0][2] or packed[0][1]
        if (sum(queries), sum(keys)) != (n, m):
            raise Meaningless("documents of other lengths")
        for number, (a, b) in enumerate(zip(queries, keys, strict=True)):
            rows, columns = (slice(sum(x[:number]), sum(x[: number + 1])) for x in (queries, keys))
            own[0][rows] = own[1][columns] = number
            if a:
                position[rows] = columns.start + shift(a, b, words) + np.arange(a)
    else:
        position = position + shift(n, m, words)
    aligned = bool(words - {None})
    apart = any(a not in (0, b) for a, b in zip(queries, keys, strict=True)) if packed else n not in (0, m)
    if apart and not aligned and any(reads_position(x) for x in atoms(tree)):
        raise Meaningless("no place of the queries")
    for x in atoms(tree):
        if not any(x is y for y in packed):
            check_fits(x, case, position, aligned)
    found = np.zeros((case.batches, case.heads, n, m), bool)
    for b, h, i, j in np.ndindex(found.shape):
        together = own[0][i] == own[1][j]
        found[b, h, i, j] = together and holds(tree, b, h, i, int(position[i]), j, packed)
    return found


def check_fits(x, case, position, aligned):
    """Whether a mask has an answer for each pair."""
    first, last = (int(position.min()), int(position.max())) if len(position) else (0, -1)
    match x:
        case "documents", keys, queries:
            if queries is not None or sum(keys) != case.m or (case.n != case.m and not aligned):
                raise Meaningless("documents of other lengths in a formula")
            if first < 0 or last >= case.m:
                raise Meaningless("queries outside of documents")
        case "blocks", table, size:
            *lead, rows, columns = table.shape
            if first < 0 or last >= rows * size or case.m > columns * size or not fits(lead, case):
                raise Meaningless("blocks of another size")
        case "dense", table:
            *lead, rows, columns = table.shape
            if rows not in (1, case.n) or columns not in (1, case.m) or not fits(lead, case):
                raise Meaningless("a table of another size")


def fits(lead, case):
    """Whether a table's heads and batches are those of the case, or for all."""
    return all(n in (1, size) for n, size in zip(lead[::-1], (case.heads, case.batches), strict=False))


def holds(tree, b, h, i, p, j, packed):
    """Whether one pair is seen: batch b, head h, query of index i at position p, key j."""
    match tree:
        case "and", x, y:
            return holds(x, b, h, i, p, j, packed) and holds(y, b, h, i, p, j, packed)
        case "or", x, y:
            return holds(x, b, h, i, p, j, packed) or holds(y, b, h, i, p, j, packed)
        case "not", x:
            return not holds(x, b, h, i, p, j, packed)
        case "causal", _:
            return j <= p
        case ("full",):
            return True
        case "window", left, right, _:
            return (left is None or j >= p - left) and (right is None or j <= p + right)
        case "dilated", step, _:
            return j in range(p, -1, -step)
        case "prefix", length:
            return j < length
        case "documents", keys, _:
            if any(tree is y for y in packed):
                return True  # as its spans say
            ids = [number for number, length in enumerate(keys) for _ in range(length)]
            return ids[p] == ids[j]
        case "blocks", table, size:
            return bool(at(table, b, h, p // size, j // size))
        case "dense", table:
            return bool(at(table, b, h, i, j))
        case "where", (w, x, y, z), modulus:
            return (w * b + x * h + y * p + z * j) % modulus != 0
    raise AssertionError(tree)


def at(table, *places):
    """An element; axes of size 1 stand for all."""
    return table[tuple(place if n > 1 else 0 for place, n in zip(places[4 - table.ndim :], table.shape, strict=True))]


def output(q, k, v, found):
    """Attention over the pairs that are seen, in numpy; a query that sees nothing gets 0."""
    scores = np.where(found, q @ k.swapaxes(-1, -2), -np.inf)
    top = scores.max(-1, keepdims=True, initial=-np.inf)
    weights = np.exp(scores - np.where(np.isfinite(top), top, 0))
    weights /= np.maximum(weights.sum(-1, keepdims=True), 1e-300)
    return weights @ v, weights


def refused(function):
    """Whether clearhead finds no meaning either."""
    try:
        function()
    except InputError:
        return True
    return False


def check(seed):
    """One formula."""
    case = Case(seed)
    lead = (case.batches, case.heads)
    arrays = [case.rng.standard_normal((*lead, x, 4)) for x in (case.n, case.m, case.m)]
    try:
        found = seen(case)
    except Meaningless as why:
        assert refused(lambda: visible(made(case.tree), case.n, case.m, lead=lead)), f"seen, though {why}"
        assert refused(lambda: attention(*arrays, mask=made(case.tree))), f"attended to, though {why}"
        return
    mask = made(case.tree)
    table = np.broadcast_to(visible(mask, case.n, case.m, lead=lead), found.shape)
    assert np.array_equal(table, found), f"{(table != found).sum()} of {found.size} pairs differ"
    if seed % 4 and seed % 7:
        return
    isas = native_isas()
    with using_isa(isas[int(case.rng.integers(len(isas)))]):
        wanted, weights = output(*arrays, found)  # type: ignore[call-arg]
        done = attend(*arrays, mask=mask, scale=1.0)
        np.testing.assert_allclose(done.output, wanted, atol=1e-9)
        np.testing.assert_allclose(np.asarray(done.weights), weights, atol=1e-9)
        if case.m and not any(x[0] == "documents" for x in factors(case.tree)):
            check_cache(case, mask, arrays)


def check_cache(case, mask, arrays):
    """The same keys in a cache, where the queries are the last items."""
    cache = KeyValueCache()
    for start in range(0, case.m, 50):
        cache.append(*(x[:, :, start : start + 50] for x in arrays[1:]))
    try:
        wanted, _ = output(*arrays, seen(case, end=True))  # type: ignore[call-arg]
    except Meaningless as why:
        assert refused(lambda: attention(arrays[0], cache, mask=mask)), f"attended to over a cache, though {why}"
        return
    np.testing.assert_allclose(attention(arrays[0], cache, mask=mask, scale=1.0), wanted, atol=1e-9)


def describe(seed):
    """The formula and its lengths."""
    case = Case(seed)
    return f"{case.n} queries, {case.m} keys, {case.batches} × {case.heads} heads: {case.tree}"
