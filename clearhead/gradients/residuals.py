"""What a forward call leaves behind for its derivatives: operands, rules, and the output before it was rounded."""

from dataclasses import dataclass, replace

from clearhead.arrays import Array
from clearhead.engine.inputs import Operands, Rules
from clearhead.engine.problem import Problem, problem_of


@dataclass(frozen=True)
class Residuals:
    """What derivatives need of a call; its score rules as traced for it, for captured names may have changed since."""

    operands: Operands
    rules: Rules
    threads: int | None
    output: Array  # unrounded: float32 for operands of 16 bits

    @property
    def problem(self) -> Problem:
        """The call as a problem; the call itself has shown that no pair of it is at fault."""
        problem = problem_of(self.operands, self.rules, out=self.output, unrounded=True)
        return replace(problem, rules=problem.rules.trusted)
