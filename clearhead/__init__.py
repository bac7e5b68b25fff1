"""clearhead: self-attention you can see through."""

from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from clearhead.machine.unbroken import importing
from clearhead.machine.unbroken import late as _late

with importing:
    from clearhead import displayed, eviction
    from clearhead.attention_weights.alignment import Alignment, alignment
    from clearhead.attention_weights.labels import Match, token_matches
    from clearhead.attention_weights.matrix import Weights, weights
    from clearhead.attention_weights.outputs import head_outputs, key_contributions, output_norms
    from clearhead.attention_weights.ranking import HeavyWeight, RankedHead, heaviest_keys, heaviest_rows, rank_heads
    from clearhead.attention_weights.relevance import relevance, weight_gradients, weights_times_gradients
    from clearhead.attention_weights.rollout import flow, rollout
    from clearhead.attention_weights.similarity import similarity
    from clearhead.attention_weights.summary import Summary
    from clearhead.cache.key_value import KeyValueCache
    from clearhead.definition.gradient import Gradients
    from clearhead.definition.tangent import Direction, Second
    from clearhead.engine.launch import kernel_for
    from clearhead.engine.problem import Problem, problem
    from clearhead.errors import (
        ClearheadError,
        DtypeError,
        FileError,
        InputError,
        MachineError,
        PeerError,
        ShapeError,
        TraceError,
        TrustError,
    )
    from clearhead.functional import Attended, attend, attention, merge, self_attention
    from clearhead.rules import functions
    from clearhead.rules.mask_kinds import Mask
    from clearhead.rules.masks import blocks, causal, dense, dilated, documents, full, prefix, where, window
    from clearhead.rules.scores import Score, alibi, bias, relative, scale, softcap

if TYPE_CHECKING:  # what LATE_NAMES names
    from clearhead.gradient_watching import output_gradients
    from clearhead.intervening import intervene
    from clearhead.pieces.gradients import key_gradients, query_gradient
    from clearhead.pieces.partial import Partial, join, partial
    from clearhead.pieces.sums import KeyGradients, QueryGradient
    from clearhead.watched.seen import Watch, load_watch
    from clearhead.watching import watch

displayed.makers.append(
    lambda result: _late("clearhead.notebook.results").widget_of(result) if find_spec("anywidget") else None
)
__version__: str
LATE_MODULES = frozenset({"explain", "layers", "model", "notebook", "pieces", "plot", "testing", "view", "words"})
LATE_NAMES = {  # and their modules
    "KeyGradients": "pieces.sums",
    "Partial": "pieces.partial",
    "QueryGradient": "pieces.sums",
    "Watch": "watched.seen",
    "intervene": "intervening",
    "join": "pieces.partial",
    "key_gradients": "pieces.gradients",
    "load_watch": "watched.seen",
    "output_gradients": "gradient_watching",
    "partial": "pieces.partial",
    "query_gradient": "pieces.gradients",
    "watch": "watching",
}


def __getattr__(name: str) -> Any:
    """What few need, or the installed package's version: loaded when asked for, to keep the import quick."""
    if name in LATE_MODULES:
        return _late(f"clearhead.{name}")
    if name in LATE_NAMES:
        found = globals()[name] = getattr(_late(f"clearhead.{LATE_NAMES[name]}"), name)
        return found
    if name != "__version__":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("clearhead")
    except PackageNotFoundError:  # a checkout on the path
        return "0.0.0"


def __dir__() -> list[str]:
    """All public names, loaded or not."""
    return sorted({*globals(), *LATE_MODULES, *__all__})


__all__ = [
    "Alignment",
    "Attended",
    "ClearheadError",
    "Direction",
    "DtypeError",
    "FileError",
    "Gradients",
    "HeavyWeight",
    "InputError",
    "KeyGradients",
    "KeyValueCache",
    "MachineError",
    "Mask",
    "Match",
    "Partial",
    "PeerError",
    "Problem",
    "QueryGradient",
    "RankedHead",
    "Score",
    "Second",
    "ShapeError",
    "Summary",
    "TraceError",
    "TrustError",
    "Watch",
    "Weights",
    "__version__",
    "alibi",
    "alignment",
    "attend",
    "attention",
    "bias",
    "blocks",
    "causal",
    "dense",
    "dilated",
    "documents",
    "eviction",
    "flow",
    "full",
    "functions",
    "head_outputs",
    "heaviest_keys",
    "heaviest_rows",
    "intervene",
    "join",
    "kernel_for",
    "key_contributions",
    "key_gradients",
    "load_watch",
    "merge",
    "output_gradients",
    "output_norms",
    "partial",
    "prefix",
    "problem",
    "query_gradient",
    "rank_heads",
    "relative",
    "relevance",
    "rollout",
    "scale",
    "self_attention",
    "similarity",
    "softcap",
    "token_matches",
    "watch",
    "weight_gradients",
    "weights",
    "weights_times_gradients",
    "where",
    "window",
]
