"""A stretch of keys, checked: where it begins among all keys, where queries stand, and the launch that adds it to sums.

Responsible for every error of a stretch that does not depend on what came before it.
"""

from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from clearhead.arrays import Array, ceil_div, is_integer
from clearhead.cache.key_value import KeyValueCache
from clearhead.definition.canonical import SEGMENT
from clearhead.engine.carried import Sums, add_keys, keys_of, no_sums
from clearhead.engine.execute import check_cache
from clearhead.engine.inputs import Operands, Rules
from clearhead.engine.kept import rules_over
from clearhead.engine.launch import Launch
from clearhead.engine.launch_cache import launch_for
from clearhead.engine.problem import as_array, packed_documents
from clearhead.errors import InputError
from clearhead.machine.unbroken import late
from clearhead.pieces.origin import Origin
from clearhead.rules.current import current_rules
from clearhead.rules.document_masks import Documents
from clearhead.rules.mask_kinds import Causal, Dense, Mask, Window, checked_mask, conjunction
from clearhead.rules.placement import placed_at, split_documents
from clearhead.rules.scores import Bias, Score, ScoreLike, as_rules
from clearhead.rules.spans import FARTHEST

GIVE = "call partial(q, k, v, mask=…), or partial(q, cache, mask=…)"


class Call(NamedTuple):
    """What all stretches of a partial sum share: queries and rules."""

    q: Array
    rules: Rules
    threads: int | None
    origin: Origin

    @classmethod
    def of(cls, q: npt.ArrayLike, mask: Mask, score: ScoreLike, scale: float | None, threads: int | None) -> "Call":
        """Check the rules and trace functions once, for all stretches alike."""
        check_threads(threads)
        rules = Rules(checked_mask(mask), as_rules(current_rules(score)), None, scale)
        check_placed(rules)
        array = as_array(q, "q", GIVE)
        return cls(array, rules, threads, Origin.of(array, rules))


def check_threads(threads: Any) -> None:
    """Raise InputError for anything but a number of threads, or None."""
    if threads is not None and (not is_integer(threads) or threads < 1):
        raise InputError(f"threads={threads!r} is not a number of threads: use 1, 2, 3 … or None for the default.")


def check_first_key(first_key: Any) -> int:
    """Where keys begin among all; raises InputError for anything else."""
    if not is_integer(first_key) or not 0 <= first_key < FARTHEST:
        raise InputError(
            f"first_key={first_key!r} is not the number of a key: use 0, {SEGMENT}, {2 * SEGMENT} …, below 2⁴⁰."
        )
    return int(first_key)


def check_placed(rules: Rules) -> None:
    """Raise InputError if it matters where the queries stand and the mask does not say so by at=…."""
    mask, scores = rules.mask, as_rules(rules.score)
    aligned = [x for x in mask.parts() if isinstance(x, Causal | Window) and x.align is not None]
    if aligned:
        raise InputError(
            f"{aligned[0]!r} aligns queries with all keys, of which a partial sum sees a stretch: write at=p instead, "
            "the first query's position among all keys."
        )
    if placed_at(mask) is not None:
        return
    rules_of_pairs: list[Mask | Score] = [*mask.parts(), *scores]
    if any(
        isinstance(x, Causal | Window | Documents | Dense | Bias) or "query" in x.formula.expression.leaves
        for x in rules_of_pairs
    ):
        raise InputError(
            f"{mask!r} does not say where these queries stand among all keys, which it or a score rule reads: give "
            "their first one's position, as in causal(at=0) or full(at=0)."
        )


class Stretch(NamedTuple):
    """A stretch of keys, ready to be added to sums."""

    call: Call
    operands: Operands
    rules: Rules
    launch: Launch
    first_key: int
    stop: int
    segments: int  # how many segments of its document a query meets here at most

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of o."""
        return self.launch.output_shape

    def after(self, before: Sums | None, into: Sums | None = None) -> Sums:
        """The sums before these keys, if any, and theirs; raises TraceError if a rule has no value for a pair.

        `into` may be overwritten for the result; `before` itself may be given.
        """
        if self.stop == self.first_key:
            return no_sums(self.shape, self.launch.lse_dtype) if before is None else before
        sums = add_keys(self.launch, self.operands, self.first_key, before, self.call.threads, into)
        self.check_rules(sums)
        return sums

    def check_rules(self, sums: Sums) -> None:
        """Raise TraceError if a row is NaN because a rule divides by 0 or reads outside its arrays."""
        problem = self.launch.doubtful
        if problem is not None:
            lost = np.isnan(sums.l)
            late("clearhead.engine.diagnosis").raise_rule_fault(problem, lost, self.call.q, keys_of(self.operands))

    def part(self, start: int, stop: int) -> "Stretch":
        """The keys from `start` to `stop`, which are among these, as a stretch of their own."""
        begin, end = start - self.first_key, stop - self.first_key
        q, k, v, pages = self.operands
        if pages is None:
            return prepared(self.call, Operands(q, k[..., begin:end, :], v[..., begin:end, :]), self.rules, start)
        # A cache's pages keep their places: those before `start` count as gone.
        key, value, first = pages.key[..., :end, :], pages.value[..., :end, :], max(pages.first_key, begin)
        pages = replace(pages, key=key, value=value, first_key=first)
        return prepared(self.call, Operands(q, key, value, pages), self.rules, self.first_key)._replace(segments=1)


def stretch_of(call: Call, k: npt.ArrayLike | KeyValueCache, v: npt.ArrayLike | None, first_key: int) -> Stretch:
    """Check a stretch of keys that begins at `first_key`."""
    first_key = check_first_key(first_key)
    operands, rules = operands_of(call, k, v, first_key)
    return prepared(call, operands, rules, first_key)


def operands_of(
    call: Call, k: npt.ArrayLike | KeyValueCache, v: npt.ArrayLike | None, first_key: int
) -> tuple[Operands, Rules]:
    """Arrays or a cache's pages, and the rules over them."""
    if not isinstance(k, KeyValueCache):
        return Operands(call.q, as_array(k, "k", GIVE), as_array(v, "v", GIVE)), call.rules
    if v is not None:
        raise InputError("a cache holds the values too: call partial(q, cache, mask=…) without v.")
    check_cache(call.q, k, call.rules)
    if not k.alike:
        raise InputError(f"the sequences of {k!r} have different lengths: ask each one alone, of a cache of its own.")
    pages = k.paged(slice(None))
    if pages.first_key and first_key:
        raise InputError(
            f"{k!r} has let its first {pages.first_key} keys go and counts its own from 0: give first_key=0, at which "
            f"its keys keep their places, and not {first_key}."
        )
    if pages.kept is not None:
        raise InputError(f"{k!r} has let keys go in between, and its segments with them: a partial sum needs all keys.")
    if any(isinstance(x, Documents) for x in conjunction(call.rules.mask)):
        raise packed_documents(call.rules.mask)
    return Operands(call.q, pages.key, pages.value, pages), rules_over(pages, call.rules, call.q.shape)


def prepared(call: Call, operands: Operands, rules: Rules, first_key: int) -> Stretch:
    """A stretch with its launch."""
    launch = launch_for(operands, rules, None, unrounded=True, stretch=first_key)
    queries, count = call.q.shape[-2], operands.k.shape[-2]
    stop = first_key + count
    segments = count_segments(rules.mask, queries, first_key, stop)
    return Stretch(call, operands, rules, launch, first_key, stop, segments)


def count_segments(mask: Mask, queries: int, first_key: int, stop: int) -> int:
    """How many segments of its document a query meets at most from one key to another.

    Raises InputError if a document's segment is cut: sums of a part of it are not those of the scalar program.
    """
    if not any(isinstance(x, Documents) for x in conjunction(mask)):
        documents = [(0, stop)]
    else:
        documents = [(span.first_key, span.keys) for span in split_documents(mask, queries, stop)[0]]
    most = 0
    for start, count in documents:
        begin, end = max(0, first_key - start), count
        if begin >= end:
            continue
        if begin % SEGMENT:
            own = f", and the document here begins at {start}" if len(documents) > 1 or start else ""
            raise InputError(
                f"a stretch of keys begins at key {first_key}, within a segment: keys are cut at multiples of "
                f"{SEGMENT} of their document{own}."
            )
        most = max(most, ceil_div(end - begin, SEGMENT))
    return most
