"""A card lent to weights of arrays in this computer's memory: it takes their large sweeps, the CPU all others.

Responsible for which sweeps are worth a copy of the operands; both sides give the same bits. A watch of a model on a
card asks its questions this way, and keeps no memory there, which the model needs.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from clearhead import debug
from clearhead.arrays import Array
from clearhead.attention_weights.lse import Source
from clearhead.attention_weights.matrix import Weights
from clearhead.attention_weights.sweep import Sweep
from clearhead.engine.inputs import Operands, Rules
from clearhead.engine.problem import problem_of
from clearhead.errors import MachineError
from clearhead.gpu.card_rules import card_rules
from clearhead.gpu.confirmed import confirmed_kernel
from clearhead.gpu.driver import Kernel, driver
from clearhead.gpu.launch import limits
from clearhead.gpu.weights import CardSweeps, refused, weights_on

WORTH_A_CARD = 1 << 24  # pairs of a sweep: some hundredths of a second of a core


def lend(w: Weights, card: int) -> Weights:
    """The same weights, whose large sweeps run on a card, if it has kernels for their dtype, dim and rules."""
    source = w.source
    plain = source.pages is None and source.known is None and not source.first_key
    if not plain or source.problem.computed != "float32" or source.elsewhere is not None:
        return w
    q, k = (np.empty(x.shape, np.float32) for x in (source.query, source.key))
    if limits(problem_of(Operands(q, k, k), rules_of(source))) is not None:
        return w
    return Weights(replace(source, elsewhere=LentCard(source, card)), w.heads)


def rules_of(source: Source) -> Rules:
    """The rules of a source."""
    mask, score = source.problem.rules.given
    return Rules(mask, score, source.sink, source.problem.scale)


@dataclass(frozen=True, eq=False)
class LentCard:
    """Runs large sweeps of a source on a card, which gets queries and keys for each, of 16 bits as float32."""

    source: Source
    index: int

    def run(self, sweep: Sweep, consumers: tuple[str, ...], target: Array) -> bool:
        """Do a sweep, or leave it to the CPU."""
        pairs = len(sweep.heads) * len(sweep.queries) * (sweep.end - sweep.begin)
        if pairs < WORTH_A_CARD or refused(sweep, consumers):
            return False
        try:
            there, sweeps = self.there()
            sweeps.run(sweep, consumers, target)
        except MachineError as error:  # such as too little memory: the CPU has all that it takes
            debug.say(1, f"a sweep is left to the CPU: {error}")
            return False
        lse, final = sweep.source.lse_and_final  # which the CPU need not find any more
        lse[...], final[...] = there.source.lse_and_final[0], True
        return True

    def there(self) -> tuple[Weights, CardSweeps]:
        """Weights of queries and keys on the card, and what sweeps over them."""
        card, source = driver().card(self.index), self.source
        q, k = (x.astype(np.float32, copy=False) for x in (source.query, source.key))

        def kernels(kind: str) -> Kernel:
            return confirmed_kernel(card, kind, q.shape[-1], rules=card_rules(source.problem))

        return weights_on(card, q, k, rules_of(source), kernels)
