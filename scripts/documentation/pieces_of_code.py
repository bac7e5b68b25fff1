"""The directive `machine-code`: lines of the definition beside the instructions that compute them."""

import importlib
import inspect
from collections.abc import Iterator
from typing import NamedTuple

import llvmlite.ir as ir
from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from clearhead.kernels.abi.tiles import Tile
from clearhead.kernels.abi.variant import PLAIN_VARIANT
from clearhead.kernels.ir.code import Function
from clearhead.kernels.ir.math import exp
from clearhead.kernels.ir.values import Pointer
from clearhead.kernels.parts.merge import write_merge
from clearhead.kernels.parts.scores import write_score
from documentation.instruction_words import meaning_of
from documentation.machine_code import TARGETS, Instruction, Piece, Step, assembled, assembly_blocks, ir_blocks, written


class Numbers(NamedTuple):
    """The only parameter of the function that shows the exponential."""

    x: Pointer


def write_exp(module: ir.Module, tile: Tile) -> None:
    """x = exp(x) for one vector of numbers."""
    f = Function(module, tile, "exp", Numbers)
    f.store(exp(f, f.load(f.arguments.x)), f.arguments.x)
    f.finish()


SCORE = Piece(
    "score", "clearhead.definition.canonical:block_scores", "kernels/parts/scores.py",
    lambda module, tile: write_score(module, tile, 1, PLAIN_VARIANT),
    (
        Step("Walk over the dims, two at a time: an even one and an odd one.", "for d in range(q.shape[-1]):",
             ("f.unrolled(0, pairs", "d = i * 2")),
        Step("One dim of a vector of queries, one number of the key in every lane: multiply, add to the chain, round "
             "once. Even dims go to one register, odd ones to another.",
             "chains[d % 2] = fma(k[None, :, d], q[:, None, d], chains[d % 2])",
             ("qs = [f.load", "ks = [f.broadcast", "return [fma(ks[r]", "return dim(d,")),
        Step("Add the two chains, and put −∞ where a query does not see the key.",
             "np.where(seen, rule(chains[0] + chains[1]), -np.inf)",
             ("s = [x + y for", "seen = f.lane()", "seen.choose(s")),
    ),
)  # fmt: skip
EXPONENTIAL = Piece(
    "exponential", "clearhead.definition.elementary:exp", "kernels/ir/math.py", write_exp,
    (
        Step("x / ln 2, and a large number on top: what is left in the low bits is the nearest whole number n.",
             "shifted = fma(x, of(LOG2E), of(c.shift))", ("shifted = fma(x",)),
        Step("What n · ln 2 leaves of x: a small r, at most ln 2 / 2 from 0.",
             "r = fma(shifted - of(c.shift), of(-LN2), x)", ("r = fma(shifted - c.shift",)),
        Step("exp(r) as a polynomial of degree 6: six multiply-adds, one after the other.",
             "p = horner(r, c.exp)", ("p = f.constant(coefficients", "p = fma(p, r")),
        Step("2ⁿ is no arithmetic at all: n is moved to where a float keeps its exponent.",
             "power = (float_bits(shifted) << c.mantissa_bits)", ("return (shifted.bits() <<",)),
        Step("Their product; 0 for what is too small to count.",
             "np.where(x < of(c.exp_floor), of(0), p * power)", ("return (x < c.exp_floor)", "product = ")),
    ),
)  # fmt: skip
MERGE = Piece(
    "merge", "clearhead.definition.canonical:merge", "kernels/parts/merge.py",
    write_merge,
    (
        Step("The larger of the two maxima.", "m = np.fmax(total.m, part.m)", ("top = larger(new, old)",)),
        Step("What each side's sums are worth under it. The exponentials themselves are those above.",
             "a, b = exp(total.m - m), exp(part.m - m)", ("return top, exp(f, old - top)",)),
        Step("The sums of weights, joined: a product, and a multiply-add.",
             "fma(total.l, a, part.l * b)", ("part = f.load(f.at(state, L", "f.store(fma(f.load(f.at(state, TOTAL_L")),
        Step("The weighted values, joined in the same way, query by query.",
             "fma(total.o, a[:, None], part.o * b[:, None])", ("f.store(fma(f.load(whole)", "a, b = (f.broadcast")),
    ),
)  # fmt: skip
PIECES = {piece.name: piece for piece in (SCORE, EXPONENTIAL, MERGE)}

LONGEST = 20  # lines of a listing


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the directive."""
    app.add_directive("machine-code", MachineCode)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


class MachineCode(SphinxDirective):
    """One piece, step by step."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """The steps, parsed from Markdown."""
        return self.parse_text_to_nodes("\n".join(described(PIECES[self.arguments[0]])))


def described(piece: Piece) -> Iterator[str]:
    """A piece in Markdown: each step with its line of the definition, and its instructions on each processor."""
    listings = dict(all_listings(piece))
    source = definition_source(piece)
    for number, step in enumerate(piece.steps, start=1):
        if step.definition not in source:
            raise LookupError(f"{piece.definition} has no “{step.definition}” now: say its line anew in {__name__}.")
        yield f":::::{{div}} beside\n\n**{number}.** {step.meaning}\n\n```python\n{step.definition}\n```\n"
        yield "::::{tab-set}\n:sync-group: processor\n"
        for name, blocks in listings.items():
            found = of_step(blocks, piece, step)
            if not found:
                raise LookupError(f"nothing of {piece.name} on {name} comes from {step.emitters}: look at its emitter.")
            yield f":::{{tab-item}} {name}\n:sync: {name}\n\n```text\n{listed(found, name)}\n```\n:::\n"
        yield "::::\n:::::\n"
    order = "\n".join(in_order(piece, listings["AVX-512"]))
    yield f"::::{{dropdown}} All of it in the order of execution, AVX-512\n\n```text\n{order}\n```\n::::\n"


def definition_source(piece: Piece) -> str:
    """The text of the definition's function."""
    module, _, name = piece.definition.partition(":")
    return inspect.getsource(getattr(importlib.import_module(module), name))


def all_listings(piece: Piece) -> Iterator[tuple[str, list[list[Instruction]]]]:
    """The piece's code in LLVM's language, and in each processor's."""
    for name, target in TARGETS.items():
        text, lines = written(piece, target)
        yield name, assembly_blocks(assembled(text, target), lines)
    text, lines = written(piece, TARGETS["AVX-512"])
    yield "LLVM IR", ir_blocks(text, lines)


def is_of(instruction: Instruction, step: Step) -> bool:
    """Whether an instruction computes a step."""
    return any(text in instruction.origin for text in step.emitters)


def of_step(blocks: list[list[Instruction]], piece: Piece, step: Step) -> list[Instruction]:
    """The instructions of a step: those in the loop that computes most of the piece, or else where most of them are."""
    loop = max(blocks, key=lambda block: sum(is_of(x, any_step) for x in block for any_step in piece.steps))
    found = [[x for x in block if is_of(x, step)] for block in (loop, *blocks)]
    return found[0] or max(found, key=len)


def listed(instructions: list[Instruction], language: str) -> str:
    """Instructions, and before each in words what it does."""
    shown = [(meaning_of(x.text, language), x.text) for x in instructions[:LONGEST]]
    width = max(len(words) for words, _ in shown)
    lines = [f"{words:{width}}  {text}" for words, text in shown]
    more = len(instructions) - len(lines)
    return "\n".join([*lines, *([f"… and {more} more, for the next dims"] if more else [])])


def in_order(piece: Piece, blocks: list[list[Instruction]]) -> Iterator[str]:
    """Every instruction that computes a step, with the step's number, a line between stretches."""
    for block in blocks:
        numbered = [(n, x) for x in block for n, step in enumerate(piece.steps, start=1) if is_of(x, step)]
        if numbered:
            yield from (f"{n}  {x.text}" for n, x in numbered)
            yield "   …"
