"""Readings of a watch, of weights, and of the small model.

Responsible for what each of them has: parts, tokens, a check against the model. `readings` has the form, `models` runs
models from folders.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from clearhead.arrays import Array
from clearhead.attention_weights.matrix import Weights, weights
from clearhead.attention_weights.weights_like import as_weights
from clearhead.errors import InputError
from clearhead.model import load as load_small_model
from clearhead.model.block import LayerPass
from clearhead.reading.matrices import given_weights
from clearhead.reading.readings import Agreement, Code, Grid, Reading, Sees, Stack, StackLayer
from clearhead.watched.run import usual_part
from clearhead.watched.seen import Watch
from clearhead.watched.visible import Shown

SMALL_MODEL = "the small model"
BEFORE_TEXT = re.compile(r"<\S*>|\[[A-Z]+\]")  # a token such as <s> or [CLS]
BYTE = re.compile(r"\\x[0-9a-f]{2}|<0x[0-9A-F]{2}>")  # of a letter that is cut apart
BYTES = re.compile(rf"(?:{BYTE.pattern})+")
MOST_SEQUENCES = 32  # of weights


def readings_of(source: Any, tokens: Sequence[str] | None = None, *, name: str = "") -> list[Reading]:
    """What there is to read of a watch (each of its runs and sequences), or of weights with the names of their items.

    Weights of several sequences are one reading each; a text is read by the small model. Raises InputError for anything
    else, TypeError never.

    >>> from clearhead import weights
    >>> [reading] = readings_of(weights([[0.0], [1.0]], [[0.0], [1.0]]), ["a", "b"])
    >>> str(reading)
    'Attention of weights: 2 items, 1 layer, 1 head.'
    """
    if isinstance(source, Reading):
        return [source]
    if isinstance(source, Watch):
        return from_watch(source, name=name or "a watched model")
    if isinstance(source, str):
        return [from_small_model(source)]
    made_elsewhere = hasattr(source, "__array__") and not hasattr(source, "row")
    w = given_weights(source) if made_elsewhere else as_weights(source)
    leads = list(np.ndindex(w.shape[:-3]))[:MOST_SEQUENCES] if w.ndim > 3 else []
    if not leads:
        return [from_weights(w, tokens, name=name or "weights")]
    many = w.shape[:-3] != (1,) * (w.ndim - 3)
    return [
        replace(
            from_weights(w[at], tokens, name=name or "weights"),
            title=f"sequence {', '.join(map(str, at))}" * many,
            code=code_of_weights(", ".join(map(str, (*at, "HEAD"))), "sequences, heads, queries, keys"),
        )
        for at in leads
    ]


# A watch


def from_watch(seen: Watch, *, name: str, setup: Sequence[str] = ("# seen is your watch",)) -> list[Reading]:
    """A reading for each sequence of each run."""
    found = []
    for run in range(len(seen.runs)):
        for sequence in range(max(seen.sequences(run, part=part) for part in seen.parts(run))):
            stacks = stacks_of(seen, run, sequence)
            code = watch_code(setup, run, sequence)
            found.append(Reading(name, stacks, title_of(stacks), notes_on_bytes(stacks), code))
    if not found:
        raise InputError("this watch recorded nothing: call the model inside the with block.")
    return found


def watch_code(setup: Sequence[str], run: int, sequence: int) -> Code:
    """Python that reads a head of a watch called `seen`."""
    layer = f"seen.layer(LAYER, run={run}, sequence={sequence}, part=PART)"
    values = f"layer = {layer}; v = layer.values[layer.heads.index(HEAD)]"
    return Code(tuple(setup), f"w = {layer}.head(HEAD).weights", values)


def stacks_of(seen: Watch, run: int, sequence: int) -> dict[str, Stack]:
    """The parts of a run, the usual one first."""
    parts = [part for part in seen.parts(run) if sequence < seen.sequences(run, part=part)]
    usual = usual_part(parts)
    names = {part: query_names(seen, run, sequence, part) for part in parts}
    return {
        part: watched_stack(seen, run, sequence, part, names) for part in sorted(parts, key=lambda part: part != usual)
    }


def query_names(seen: Watch, run: int, sequence: int, part: str) -> tuple[str, ...]:
    """The text of each token, or its number in the vocabulary; nothing where the tokens were not seen."""
    for named in (seen.tokens, seen.token_ids):
        try:
            return tuple(map(str, named(sequence=sequence, run=run, part=part)))
        except InputError:
            continue
    return ()


def watched_stack(seen: Watch, run: int, sequence: int, part: str, names: Mapping[str, tuple[str, ...]]) -> Stack:
    """One part of a run."""
    grid = seen.grid(run, part=part) if part in seen.run(run).grids else None
    layers = {}
    for number in seen.layers(run, part=part):
        shown, heads, key_heads = seen.run(run).extent(part, number, sequence)
        at = {"sequence": sequence, "run": run, "part": part}
        edits = seen.run(run).edits(part, number)
        sees = replace(sees_of(shown), other=True) if edits else sees_of(shown)  # edits may hide some
        layers[number] = StackLayer(
            number, heads, key_heads, len(shown.low), shown.keys, sees,
            partial(lambda number, at: seen.layer(number, **at).weights, number, at),
            partial(lambda number, at: seen.layer(number, **at).values, number, at),
            partial(agreement_of, seen, number, at),
            tuple(map(repr, edits)),
        )  # fmt: skip
    first = next(iter(layers.values()))
    crosses = seen.run(run).crosses(part)
    before = first.keys - grid[0] * grid[1] if grid else 0
    ids = None
    if names[part] and not crosses and first.queries == first.keys == len(names[part]):
        ids = seen.token_ids(sequence=sequence, run=run, part=part)
    return Stack(
        part, layers, partial(named, names, part, crosses, grid and Grid(*grid, before)),
        steps=seen.steps(run, part=part), crosses=crosses, grid=grid and Grid(*grid, before), ids=ids,
    )  # fmt: skip


def named(
    names: Mapping[str, tuple[str, ...]], part: str, crosses: bool, grid: Grid | None, layer: StackLayer, side: str
) -> Sequence[str]:
    """The names of a layer's queries or keys: tokens, patches, or numbers."""
    size = layer.queries if side == "queries" else layer.keys
    if grid is not None and size == grid.before + grid.rows * grid.columns:
        first = ["[class]"] if grid.before == 1 else [f"token {n}" for n in range(grid.before)]
        patches = [f"row {r + 1}, column {c + 1}" for r in range(grid.rows) for c in range(grid.columns)]
        return [*first, *patches]
    own = [names[part]] if side == "queries" or not crosses else []
    others = [found for other, found in names.items() if other != part and crosses and side == "keys"]
    return next((found for found in (*own, *others) if len(found) == size), None) or [str(n) for n in range(size)]


def sees_of(shown: Shown) -> Sees:
    """What a whole sequence's queries see, as a band."""
    queries, keys = len(shown.low), shown.keys
    offset = keys - queries
    if shown.table is not None:
        return Sees(None, None, offset, other=True)
    position = np.arange(queries) + offset
    high = 0 if bool((shown.high == position + 1).all()) else None
    left = int((position - shown.low).max(initial=0))
    banded = bool((shown.low == np.maximum(0, position - left)).all())
    low = -left if banded and (shown.low > 0).any() else None
    other = shown.until is not None or not (banded or (shown.low == 0).all())
    return Sees(low, high, offset, other or (high is None and bool((shown.high != keys).any())))


def agreement_of(seen: Watch, number: int, at: Mapping[str, Any]) -> Agreement:
    """How well a layer's recomputed output rows agree with the model's own; raises TrustError where they do not."""
    compared = seen.layer(number, **at).sequence.compared
    if compared is None or not compared.rows:
        said = "no output of the model was kept to compare with"
        return Agreement(said=said)
    return Agreement(compared.rows, compared.difference, compared.allowed)


def title_of(stacks: Mapping[str, Stack]) -> str:
    """The beginning of the usual part's text, without the signs that a tokenizer puts before it."""
    stack = next(iter(stacks.values()))
    layer = next(iter(stack.layers.values()))
    names = list(stack.names(layer, "queries")[:40])
    while names and BEFORE_TEXT.fullmatch(names[0]):
        del names[0]
    numbers = all(name.isdecimal() for name in names)  # in the vocabulary, where there is no tokenizer
    return shortened((" " if numbers else "").join(names))


def notes_on_bytes(stacks: Mapping[str, Stack]) -> tuple[str, ...]:
    """A sentence on what a piece of a letter looks like, if the usual part's text has one."""
    stack = next(iter(stacks.values()))
    names = stack.names(next(iter(stack.layers.values())), "queries")
    for run in BYTES.findall("".join(name for name in names if BYTES.search(name))):
        letter = bytes.fromhex(re.sub(r"[^0-9a-fA-F]", "", run.replace("0x", ""))).decode("utf-8", "ignore")[:1]
        if letter:
            own = "".join(BYTE.findall(run)[: len(letter.encode())])
            return (f"This model reads some letters byte by byte: {own} is {letter}.",)
    if any("\ufffd" in name for name in names):
        return ("This model cuts some letters into several tokens: \ufffd is a part of one.",)
    return ()


def shortened(text: str) -> str:
    r"""The beginning of a text on one line.

    >>> shortened("one  two\nthree " * 9)
    'one two three one two three one two thre…'
    """
    line = " ".join(text[:1000].split())
    return f"{line[:40]}…" if len(line) > 40 else line


# Weights


def from_weights(w: Weights, tokens: Sequence[str] | None, *, name: str) -> Reading:
    """Weights (heads, queries, keys) or (queries, keys), as one layer."""
    if w.ndim not in (2, 3):
        raise InputError(f"weights of shape {w.shape} are not of one sequence: give (heads, queries, keys).")
    stacked = w if w.ndim == 3 else w.of_heads(np.array([int(w.heads)]))
    code = code_of_weights("HEAD", "heads, queries, keys") if w.ndim == 3 else code_of_weights("...", "queries, keys")
    return from_layers({0: stacked}, tokens, name=name, code=code)


def code_of_weights(at: str, shape: str) -> Code:
    """Python that takes a head from weights of the reader's own, which have the name that it begins with."""
    return Code((f"# weights is what you have shown, ({shape})",), f"w = weights[{at}]")


def from_layers(
    layers: Mapping[int, Weights],
    tokens: Sequence[str] | None,
    *,
    name: str,
    notes: Sequence[str] = (),
    unit: str = "token",
    code: Code | None = None,
) -> Reading:
    """Each layer's weights, (heads, queries, keys); `tokens` name the keys, the last of them the queries."""
    names = None if tokens is None else tuple(map(str, tokens))
    sizes = {size for w in layers.values() for size in w.shape[1:]}
    if names is not None and len(names) not in sizes:
        raise InputError(f"{len(names)} tokens do not name {max(sizes)} keys: give one name for each.")

    def names_of(layer: StackLayer, side: str) -> Sequence[str]:
        size = layer.queries if side == "queries" else layer.keys
        if names is None or len(names) < size:
            return [str(n) for n in range(size)]
        return names[len(names) - size :]

    stack_layers = {number: layer_of(number, w) for number, w in layers.items()}
    ids = None
    if names is not None and sizes == {len(names)}:
        numbers: dict[str, int] = {}
        ids = np.array([numbers.setdefault(name, len(numbers)) for name in names], np.int64)
    steps = (next(iter(stack_layers.values())).queries,)
    stack = Stack("attention", stack_layers, names_of, steps=steps, ids=ids, unit=unit)
    return Reading(name, {stack.name: stack}, notes=tuple(notes), code=code or Code())


def layer_of(number: int, w: Weights) -> StackLayer:
    """Weights as a layer, with nothing to compare them with."""
    count, queries, keys = w.shape
    said = "weights alone: there is no output to compare with"
    numbers = tuple(range(count))
    return StackLayer(
        number, numbers, numbers, queries, keys, band_of(w), lambda: w, find_agreement=lambda: Agreement(said=said)
    )


def band_of(w: Weights) -> Sees:
    """What the queries of weights see."""
    rules, _ = w.source.problem.rules, w.shape
    single = len(rules.spans) == 1
    offset = rules.spans[0].offset - rules.spans[0].first_key
    return Sees(rules.low, rules.high, offset, other=not single or rules.mask is not None)


# Word vectors


def from_vectors(text: str, embeddings: Path | None = None) -> Reading:
    """Self-attention of a text over the shipped word vectors or those in a file: one layer, one head, scale 1.

    >>> from_vectors("the river bank").stack().head(0, 0).shape
    (3, 3)
    """
    from clearhead.words import load, read_embeddings

    words = read_embeddings(embeddings) if embeddings else load()
    sentence = words.embed(text)
    x = sentence.x[None]
    name = f"the vectors in {embeddings.name}" if embeddings else "the shipped word vectors"
    notes = (*words.remarks, *sentence.notes)
    read = f"clearhead.words.read_embeddings({str(embeddings)!r})" if embeddings else "clearhead.words.load()"
    setup = ("import clearhead, clearhead.words", f"x = {read}.embed({text!r}).x")
    code = Code(setup, "w = clearhead.weights(x, x, scale=1.0)", "v = x")
    layers = {0: weights(x, x, scale=1.0)}
    return from_layers(layers, sentence.tokens, name=name, notes=notes, unit="word", code=code)


# The small model


def from_small_model(text: str) -> Reading:
    """The small model's attention over a text; what exceeds its context is left out, and a note says so.

    >>> reading = from_small_model("The river was wide.")
    >>> list(reading.tokens)
    ['<s>', 'The', ' ri', 'ver', ' was', ' w', 'ide', '.']
    """
    model = load_small_model()
    tokens = model.tokenizer.encode(text)
    most = model.parameters.context
    done = model.forward(tokens[:most])
    names = tuple(model.tokenizer.names(done.tokens))
    layers = {n: small_layer(n, one) for n, one in enumerate(done.layers)}
    stack = Stack("decoder", layers, lambda layer, side: names, steps=(len(names),), ids=np.array(done.tokens))
    left = len(tokens) - len(names)
    cut = (f"The small model reads {most} tokens: the last {left:,} of this text are left out.",) if left > 0 else ()
    notes = (*cut, *notes_on_bytes({"": stack}))
    setup = (
        "import clearhead.model",
        "model = clearhead.model.load()",
        f"done = model.forward(model.tokenizer.encode({text!r})[:{most}])",
    )
    code = Code(setup, "w = done.layers[LAYER].weights[HEAD]", "v = done.layers[LAYER].v[HEAD]")
    return Reading(SMALL_MODEL, {stack.name: stack}, shortened(text), notes, code, again=from_small_model)


def small_layer(number: int, one: LayerPass) -> StackLayer:
    """A layer of the small model."""
    heads, size, _ = one.q.shape
    numbers = tuple(range(heads))

    def agreement() -> Agreement:
        recomputed: Array = np.asarray(one.weights) @ one.v
        return Agreement(size, float(np.abs(recomputed - one.attended).max()), 1e-4 * float(np.abs(one.v).max()))

    return StackLayer(
        number, numbers, numbers, size, size, Sees(None, 0, 0), lambda: one.weights, lambda: one.v, agreement
    )


def watch_file(path: Path) -> list[Reading]:
    """What a saved watch holds; needs neither torch nor the model."""
    from clearhead.watched.seen import load_watch

    code = ("import clearhead", f"seen = clearhead.load_watch({str(path)!r})")
    return from_watch(load_watch(path), name=path.name, setup=code)
