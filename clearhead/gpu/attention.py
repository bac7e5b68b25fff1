"""`attend` for arrays in a card's memory: whatever has `__cuda_array_interface__` or DLPack.

Shapes, masks and their errors are the CPU's; what the kernel cannot do is an error that says to move to the CPU.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from clearhead.engine.bounded_cache import BoundedCache
from clearhead.engine.inputs import Operands, Rules
from clearhead.engine.problem import Problem, problem_of
from clearhead.errors import InputError
from clearhead.gpu.card_array import CardArray, card_array, check_dense, check_lse, check_results_apart
from clearhead.gpu.confirmed import confirmed_kernel
from clearhead.gpu.driver import Card, driver
from clearhead.gpu.launch import Addresses, Launch, limits, prepare, refuse, run, unaligned
from clearhead.rules.current import current_rules
from clearhead.rules.mask_kinds import Mask
from clearhead.rules.masks import CAUSAL
from clearhead.rules.scores import ScoreLike

launches: BoundedCache[Any, Launch] = BoundedCache(most=1024)
refusals: BoundedCache[Any, str] = BoundedCache(most=1024)  # "" for what the kernel can compute


def attend(
    q: Any,
    k: Any,
    v: Any,
    *,
    out: Any,
    lse: Any,
    mask: Mask = CAUSAL,
    score: ScoreLike = (),
    scale: float | None = None,
    sink: Any = None,
    stream: int = 0,
) -> None:
    """Write attention into `out` and each query's log-sum-exp into `lse`, with the bits of `clearhead.attend`.

    All are arrays of one card with `__cuda_array_interface__` or DLPack, float32: q (..., n, d), k and v (..., m, d),
    out as q, lse (..., n) contiguous; d is 32, 64, 96 or 128, other strides are multiples of 16 bytes. `mask` and
    `score` are as in `clearhead.attend`, but for documents() and rules that could fail; `sink` (...) is contiguous, one
    number for each head. Runs in `stream` (a CUDA stream's address) without waiting, behind what writes the arrays
    (which streams they name, or DLPack arranges); only numpy arrays in rules are copied, and waited for. Raises
    ShapeError, DtypeError, InputError, or MachineError where there is no such card.
    """
    operands = {name: card_array(name, x, stream) for name, x in (("q", q), ("k", k), ("v", v))}
    results = [card_array(name, x, stream) for name, x in (("out", out), ("lse", lse))]
    sinks = {} if sink is None else {"sink": card_array("sink", sink, stream)}
    arrays = [*operands.values(), *results, *sinks.values()]
    rules = Rules(mask, current_rules(score), scale=scale)
    launch = launch_of(*arrays[:5], rules=rules, sink=sinks.get("sink"))
    check_results_apart(operands | sinks, *results)
    if launch.parts:
        card = common_card(arrays)
        kernel = confirmed_kernel(card, launch.kind, launch.dim, stream, launch.rules)
        card.wait(stream, {x.stream for x in arrays if x.stream is not None})
        run(kernel, launch, Addresses(*(x.address for x in arrays)), stream)


def attend_on(
    card: Card,
    q: CardArray,
    k: CardArray,
    v: CardArray,
    out: CardArray,
    lse: CardArray,
    *,
    rules: Rules,
    sink: CardArray | None,
    stream: int,
) -> None:
    """`attend` of arrays whose card is known, and whose results are new."""
    launch = launch_of(q, k, v, out, lse, rules=rules, sink=sink)
    if launch.parts:
        addresses = Addresses(*(0 if x is None else x.address for x in (q, k, v, out, lse, sink)))
        run(confirmed_kernel(card, launch.kind, launch.dim, stream, launch.rules), launch, addresses, stream)


def refusal(q: CardArray, k: CardArray, v: CardArray, rules: Rules) -> str | None:
    """Why a GPU's kernel cannot compute a call, or None; raises what the CPU raises for its shapes."""
    key: Any = (q.layout, k.layout, v.layout, rules)
    why = refusals.get(key)
    if why is None:
        why = limits(described(q, k, v, rules)) or ""
        refusals.keep(key, why, 0)
    return why or unaligned((q.address, k.address, v.address))


def launch_of(
    q: CardArray,
    k: CardArray,
    v: CardArray,
    out: CardArray,
    lse: CardArray,
    *,
    rules: Rules,
    sink: CardArray | None = None,
) -> Launch:
    """The launch of a call, prepared once for all with the same layouts."""
    key: Any = (q.layout, k.layout, v.layout, out.layout, lse.layout, rules, sink and sink.layout)
    try:
        launch = launches.get(key)
    except TypeError:  # unhashable rules, which the problem reports
        key, launch = None, None
    if launch is None:
        if sink is not None:
            rules = rules._replace(sink=sink.seen_from_here())
        refuse(limits(described(q, k, v, rules)))  # before out is compared with a result that there cannot be
        problem = described(q, k, v, rules, out)
        check_lse(lse.layout, problem.output_shape[:-1])
        if sink is not None:
            check_dense("sink", sink.layout, problem.lead)
        launch = prepare(problem)
        if key is not None:
            launches.keep(key, launch, launch.size)
    return launch


def described(q: CardArray, k: CardArray, v: CardArray, rules: Rules, out: CardArray | None = None) -> Problem:
    """The problem of a call, which reads no numbers."""
    operands = Operands(q.seen_from_here(), k.seen_from_here(), v.seen_from_here())
    return problem_of(operands, rules, out=None if out is None else out.seen_from_here())


def common_card(arrays: Sequence[CardArray]) -> Card:
    """The card in whose memory all arrays are; empty ones are nowhere."""
    cards = {driver().card_of(x.address) for x in arrays if 0 not in x.layout.shape}
    if len(cards) > 1:
        numbers = ", ".join(sorted(str(card.index) for card in cards))
        raise InputError(f"the arrays are on cards {numbers}: copy them to one.")
    return cards.pop()
