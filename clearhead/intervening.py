"""`clearhead.intervene`: change a running model's attention, in clearhead's kernels and never by a matrix."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from clearhead.errors import InputError
from clearhead.interventions.edits import Ablate, Cut, Edit, Layer, PairEdit, Patch, Scale, Sink, Uniform
from clearhead.interventions.places import Places, positions
from clearhead.observing import observing
from clearhead.rules.masks import Mask, check_called, is_integer
from clearhead.rules.masks import where as where_mask
from clearhead.watched.run import usual_part


@contextmanager
def intervene(model: Any) -> Iterator[Intervention]:
    """Change a PyTorch model's attention while it runs inside the block, by edits that one makes on the way.

    An edit names a layer (a number, a list, or None for all of the model's usual part; `part="cross"` and the like for
    others) and heads (None: all); negative numbers count from the last, as in Python. Positions count a sequence's own
    tokens from 0, without padding; negative ones count back from the newest token of the pass, so that queries=[-1] is
    a prompt's last token and then each generated one.
    Heads without edits keep the model's output bit for bit; edited ones are computed by clearhead, on the processor,
    with gradients. Edits end with the block. Raises InputError for layers, heads and values that do not fit, and at
    the end of the block for edits that never changed anything.

        with clearhead.intervene(model) as change:
            change.cut(layer=5, heads=[3], keys=0)
            change.ablate(layer=6, heads=[1, 2])
            model(**tokens)
    """
    from clearhead.adapters.torch.attention_layers import known_layers
    from clearhead.adapters.torch.changing import Changing

    found = known_layers(model)
    layers = {layer.module: (layer.part, layer.number) for layer in found}
    change = Intervention(layers.values(), usual_part(layer.part for layer in found))
    with observing(model, Changing(layers, change.edits, change.reached)):
        yield change
    change.check_reached()


class Intervention:
    """The edits of one block: each method adds one, which holds from the next call of the model on."""

    def __init__(self, layers: Iterable[Layer], usual: str) -> None:
        self.layers, self.usual = tuple(layers), usual
        self.edits: list[Edit] = []
        self.met: dict[Edit, dict[str, set[int]]] = {}  # listed positions that occurred, of edits that changed a row

    def __repr__(self) -> str:
        return f"Intervention({', '.join(map(repr, self.edits))})"

    def ablate(
        self,
        layer: Any = None,
        heads: Any = None,
        *,
        to: Any = 0.0,
        queries: Any = None,
        sequence: int | None = None,
        part: str | None = None,
    ) -> Edit:
        """Ablate heads' outputs by 0, by their mean over the pass's tokens (`to="mean"`), or by given numbers.

        `to` may be an array or tensor (value dim,), (heads, value dim) or (heads, tokens, value dim), by position, in
        the order of `heads`, or all that with sequences before; axes of 1 stand for all.
        """
        output = checked_output(to)
        return self.add(Ablate, layer, heads, part, queries=queries, sequence=sequence, output=output)

    def scale(
        self,
        layer: Any = None,
        heads: Any = None,
        factor: Any = 1.0,
        *,
        queries: Any = None,
        keys: Any = None,
        where: Mask | Callable[..., Any] | None = None,
        renormalize: bool = False,
        sequence: int | None = None,
        part: str | None = None,
    ) -> Edit:
        """Multiply the weights of chosen pairs by a factor; rows sum to 1 again only with `renormalize`.

        `factor` is a number, or an array or tensor of them, (heads, queries, keys) by position with axes of 1 for all,
        in the order of `heads`; a loss has a gradient by a tensor's. `where` is as for `cut`.
        """
        factors = checked_factor(factor)
        pairs = {"queries": queries, "keys": keys, "where": where}
        return self.add(
            Scale, layer, heads, part, sequence=sequence, factor=factors, renormalize=bool(renormalize), **pairs
        )

    def cut(
        self,
        layer: Any = None,
        heads: Any = None,
        *,
        queries: Any = None,
        keys: Any = None,
        where: Mask | Callable[..., Any] | None = None,
        sequence: int | None = None,
        part: str | None = None,
    ) -> Edit:
        """Hide chosen pairs, as a mask does: the other weights of a row grow.

        `where` chooses among them: a clearhead mask, for the pairs that it shows, or a function of positions
        (query, key), as `lambda query, key: query - key > 8`.
        """
        pairs = {"queries": queries, "keys": keys, "where": where}
        return self.add(Cut, layer, heads, part, sequence=sequence, **pairs)

    def uniform(
        self,
        layer: Any = None,
        heads: Any = None,
        *,
        queries: Any = None,
        sequence: int | None = None,
        part: str | None = None,
    ) -> Edit:
        """Give all keys that a query sees the same weight; the model's own sink gets none."""
        return self.add(Uniform, layer, heads, part, queries=queries, sequence=sequence)

    def sink(
        self, layer: Any = None, heads: Any = None, value: float | None = None, *, part: str | None = None
    ) -> Edit:
        """Set the score of heads' sinks, whose exponential joins the softmax's denominator; None removes a sink."""
        number = None if value is None else checked_number(value, "value")
        return self.add(Sink, layer, heads, part, value=number)

    def patch(
        self,
        layer: Any = None,
        heads: Any = None,
        source: Any = None,
        *,
        pattern: bool = True,
        values: bool = False,
        queries: Any = None,
        sequence: int | None = None,
        part: str | None = None,
    ) -> Edit:
        """Use the weights of another run for this run's values; with `values`, its values too, or instead.

        `source` is what `clearhead.watch` saw of a run as long, one of its layers, or `clearhead.Weights` (queries,
        keys) or (heads, queries, keys) in the order of `heads`. Pattern and values together give a head the output that
        it had in that run. Of several patches of a query, the last counts.
        """
        if not (pattern or values):
            raise InputError("patch with pattern=False and values=False changes nothing: leave one of them True.")
        seen, name = checked_source(source)
        options = {"source": seen, "name": name, "pattern": bool(pattern), "values": bool(values)}
        return self.add(Patch, layer, heads, part, queries=queries, sequence=sequence, **options)

    def add(self, kind: Any, layer: Any, heads: Any, part: str | None, **options: Any) -> Edit:
        """Add an edit, after checking its arguments."""
        for name in ("queries", "keys"):
            if name in options:
                options[name] = positions(options[name], name)
        if "where" in options:
            options["where"] = checked_where(options["where"])
        sequence = options.get("sequence")
        if sequence is not None and (not is_integer(sequence) or sequence < 0):
            raise InputError(f"sequence={sequence!r} is not a number in the batch: give 0, 1, 2 … or None for all.")
        edit: Edit = kind(layers=self.chosen_layers(layer, part), heads=checked_heads(heads), **options)
        self.edits.append(edit)
        return edit

    def chosen_layers(self, layer: Any, part: str | None) -> tuple[Layer, ...]:
        """The layers that an edit names; raises InputError for those that the model has not."""
        chosen = self.usual if part is None else part
        numbers = sorted(number for own, number in self.layers if own == chosen)
        if not numbers:
            parts = ", ".join(repr(own) for own in dict.fromkeys(own for own, _ in self.layers))
            raise InputError(f"the model has no part {part!r}: choose from {parts}.")
        if layer is None:
            return tuple((chosen, number) for number in numbers)
        wanted = whole_numbers(layer, "layer")
        missing = [n for n in wanted if n not in numbers and n not in range(-len(numbers), 0)]
        if missing:
            from clearhead.adapters.torch.attention_layers import spans

            raise InputError(
                f"part {chosen!r} of the model has no layer {missing[0]}: choose from {spans(numbers)}, or -1 for the "
                "last of them, -2, and so on."
            )
        return tuple((chosen, number) for number in dict.fromkeys(n if n >= 0 else numbers[n] for n in wanted))

    def reached(self, edit: Edit, call: Any, places: Places) -> None:
        """Note that a layer of an edit was called, and check what only a call can show."""
        count, batch = call.query.shape[1], len(places.query)
        wrong = [head for head in edit.heads or () if not -count <= head < count]
        if wrong:
            raise InputError(
                f"{edit!r}: the layer has no head {wrong[0]}: choose from 0 to {count - 1}, or -1 for the last, -2, "
                "and so on."
            )
        if edit.sequence is not None and edit.sequence >= batch:
            raise InputError(f"{edit!r}: the batch has no sequence {edit.sequence}: choose from 0 to {batch - 1}.")
        if isinstance(edit, Scale):
            check_factors(edit, count, places)
        met = self.met.setdefault(edit, {"queries": set(), "keys": set()})
        met["queries"] |= edit.queries.met(places.query, places.query_count)
        if not edit.queries.everything and edit.queries.chosen(places.query, places.query_count).any():
            met["some queries"] = set()
        if isinstance(edit, PairEdit):
            met["keys"] |= edit.keys.met(places.key, places.key_count)
            if edit.keys.chosen(places.key, places.key_count).any():
                met["some keys"] = set()

    def check_reached(self) -> None:
        """Raise InputError for edits whose layers or positions no pass of the block had."""
        for edit in self.edits:
            met = self.met.get(edit)
            if met is None:
                raise InputError(f"{edit!r} was never reached: none of its layers was given a token inside the block.")
            for name in ("queries", "keys"):
                chosen = getattr(edit, name, None)
                if chosen is None or chosen.everything:
                    continue
                missing = [n for n in chosen.listed or () if n not in met[name]]
                if missing or f"some {name}" not in met:
                    what = f"position {missing[0]}" if missing else f"any of {name}={chosen!r}"
                    raise InputError(f"{edit!r} never met {what}: no pass of the model had such {name}.")


def whole_numbers(given: Any, name: str) -> tuple[int, ...]:
    """A number or some of them, without repetition."""
    items = (
        [given]
        if is_integer(given)
        else list(given)
        if isinstance(given, Iterable) and not isinstance(given, str)
        else []
    )
    if not items or not all(map(is_integer, items)):
        raise InputError(f"{name}={given!r} is not a number or a list of them: give {name}=5 or {name}=[0, 5].")
    return tuple(dict.fromkeys(int(n) for n in items))


def checked_heads(heads: Any) -> tuple[int, ...] | None:
    """Numbers of heads; None stands for all."""
    return None if heads is None else whole_numbers(heads, "heads")


def checked_where(given: Any) -> Mask | None:
    """A mask, or a function of (query, key) as one."""
    if given is None or isinstance(given, Mask):
        return given
    check_called(given, "where")
    if not callable(given):
        raise InputError(
            f"where={given!r} does not choose pairs: give a function of (query, key), or a clearhead mask."
        )
    return where_mask(lambda batch, head, query, key: given(query, key))


def checked_number(given: Any, name: str) -> float:
    """A finite number."""
    try:
        number = float(given)
    except (TypeError, ValueError):
        raise InputError(f"{name}={given!r} is not a number: give one.") from None
    if not np.isfinite(number):
        raise InputError(f"{name}={given!r} is not finite: give a finite number.")
    return number


def array_or_tensor(given: Any, name: str) -> Any:
    """Floats as an array, or a torch tensor as it is."""
    if hasattr(given, "is_floating_point"):
        return given
    try:
        array = np.asarray(given)
    except ValueError:
        array = np.empty(0, object)
    if array.dtype.kind not in "fiu":
        raise InputError(f"{name}={given!r} is no array of numbers: give a number, an array or a tensor.")
    return array if array.dtype.kind == "f" else array.astype(np.float64)


def checked_factor(given: Any) -> Any:
    """Factors with three axes (heads, queries, keys), none negative."""
    factor = array_or_tensor(given, "factor")
    if factor.ndim not in (0, 1, 3):
        raise InputError(
            f"factor has shape {tuple(factor.shape)}: give a number, one for each head, or (heads, queries, keys) with "
            "axes of 1 for all."
        )
    if not bool((factor >= 0).all()) or bool((factor == np.inf).any()):
        raise InputError(f"factor={given!r} has negative or infinite numbers: give 0 to hide a weight, 2 to double it.")
    return factor.reshape(-1, 1, 1) if factor.ndim < 3 else factor


def check_factors(edit: Scale, count: int, places: Places) -> None:
    """Check that factors fit the heads and the positions of a pass."""
    heads, queries, keys = edit.factor.shape
    own = len(edit.heads_of(count))
    if heads not in (1, own):
        raise InputError(f"{edit!r} has factors for {heads} heads, but changes {own}: give as many, or 1.")
    for name, size, places_of in (("queries", queries, places.query), ("keys", keys, places.key)):
        if size > 1 and places_of.max(initial=-1) >= size:
            raise InputError(
                f"{edit!r} has factors for {size} {name}, but one stands at position {places_of.max()}: give as many."
            )


def checked_output(given: Any) -> Any:
    """What outputs become: a number, "mean", or an array with four axes."""
    if isinstance(given, str):
        if given == "mean":
            return given
        raise InputError(f"to={given!r} is not an output: give a number, an array, or 'mean'.")
    output = array_or_tensor(given, "to")
    if not output.ndim:
        return float(output)
    shape = tuple(output.shape)
    if output.ndim > 4:
        raise InputError(f"to has shape {shape}: give (heads, value dim), or (heads, tokens, value dim).")
    lead = {1: (1, 1, 1, shape[-1]), 2: (1, shape[0], 1, shape[-1]), 3: (1, *shape)}
    return output.reshape(lead[output.ndim]) if output.ndim < 4 else output


def checked_source(given: Any) -> tuple[Callable[[Layer, int], Any], str]:
    """A function from (layer, sequence) to what was seen of another run, and its name."""
    name = type(given).__name__
    if hasattr(given, "layer") and hasattr(given, "layers"):
        return (lambda layer, sequence: given.layer(layer[1], sequence=sequence, part=layer[0])), name
    if hasattr(given, "head") or (hasattr(given, "source") and hasattr(given, "row")):
        return (lambda layer, sequence: given), name
    raise InputError(f"source={given!r} holds no weights: give what clearhead.watch saw, or clearhead.weights(q, k).")
