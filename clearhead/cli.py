"""The `clearhead` command: its subcommands and how it ends.

Decides options, exit codes and the one line an error is answered with; each subcommand imports what it needs
when it runs, so that help is quick. What the subcommands do is decided in their rooms.
"""

import os
import re
import sys
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from clearhead.errors import ClearheadError, InputError

app = typer.Typer(
    name="clearhead",
    help="Self-attention you can see through.",
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


class Format(StrEnum):
    """How an explanation is written."""

    text = "text"
    markdown = "markdown"
    latex = "latex"
    json = "json"


class Steps(StrEnum):
    """What can be told of the steps beside their numbers."""

    order = "order"
    shapes = "shapes"
    cost = "cost"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code: 0 done, 1 nobody reads on, 2 wrong input, 130 interrupted."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if hasattr(sys.stdout, "reconfigure"):  # a pipe or file gets UTF-8 everywhere; a poor terminal gets a ?
        sys.stdout.reconfigure(**({"errors": "replace"} if sys.stdout.isatty() else {"encoding": "utf-8"}))
    try:
        code = app(list(arguments) or ["--help"], prog_name="clearhead", standalone_mode=False)
        sys.stdout.flush()
    except KeyboardInterrupt:
        return 130
    except ClearheadError as error:
        return complain(str(error))
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes once more at exit
        return 1 if isinstance(error, BrokenPipeError) else complain(f"{error}: check the disk and the permissions.")
    except Exception as error:
        if not hasattr(error, "format_message"):  # what typer raises for wrong usage
            raise
        return complain(f"{error.format_message()} Try 'clearhead --help'.")
    return code or 0


def complain(message: str) -> int:
    """Say on one line of standard error what is wrong."""
    print("clearhead:", " ".join(message.split()), file=sys.stderr)
    return 2


def show_version(wanted: bool) -> None:
    """Print the version and stop."""
    if wanted:
        from importlib.metadata import PackageNotFoundError, version

        try:
            typer.echo(f"clearhead {version('clearhead')}")
        except PackageNotFoundError:
            typer.echo("clearhead, not installed: running from its source")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=show_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Self-attention you can see through."""


MaskWord = Annotated[
    str, typer.Option(metavar="MASK", help="causal, full, window:255, prefix:N, documents:5,7; joined by & | ~.")
]
Scores = Annotated[
    list[str] | None,
    typer.Option(metavar="RULE", help="softcap:30, scale:0.5 or alibi; may be given several times, in order."),
]
Functions = Annotated[
    list[str] | None,
    typer.Option(metavar="FILE.py:FUNCTION", help="A function of (score, batch, head, query, key), after those."),
]


@app.command()
def explain(
    text: Annotated[
        list[str] | None,
        typer.Argument(help="A text, a file that holds one, or - for standard input.", show_default=False),
    ] = None,
    vectors: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Vectors to explain in place of a text: csv or npy, a row each."),
    ] = None,
    embeddings: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Word vectors for the text: GloVe, word2vec, fastText or safetensors."),
    ] = None,
    position: Annotated[
        str,
        typer.Option(metavar="N|WORD", help="The item to explain: 0 is the first, -1 the last; or a word of the text."),
    ] = "-1",
    matrix: Annotated[bool, typer.Option("--matrix", help="Add the weights of every item.")] = False,
    steps: Annotated[
        Steps | None,
        typer.Option(help="Tell about the steps instead: why this order, which shapes, what cost."),
    ] = None,
    layer: Annotated[
        bool, typer.Option("--layer", help="Tell of a transformer's layer instead: W^Q, W^K, W^V, heads, W^O.")
    ] = False,
    heads: Annotated[int | None, typer.Option(help="Heads of that layer.", min=1, show_default="2")] = None,
    mask: MaskWord = "causal",
    score: Scores = None,
    rule: Functions = None,
    format: Annotated[Format, typer.Option(help="How to write it.")] = Format.text,
) -> None:
    """Show self-attention step by step: scores, softmax, weighted sum, and what changed in meaning."""
    if (vectors is None) == (not text):
        raise InputError("Nothing to explain, or two things: give either a text or --vectors FILE.")
    if vectors and embeddings:
        raise InputError("--embeddings are for the words of a text: give it without --vectors.")
    if matrix and steps:
        raise InputError("--matrix and --steps are different pages: give one of them.")
    if (steps or layer) and (mask != "causal" or score or rule):
        raise InputError("--steps and --layer tell of plain causal attention: give no --mask, --score or --rule.")
    if layer and (steps or matrix):
        raise InputError("--layer is a page of its own: give it without --steps and --matrix.")
    if heads and not layer:
        raise InputError(f"--heads {heads} are those of a layer: give --layer too.")
    from clearhead.explain import formats, inputs
    from clearhead.rules.named import named_mask, named_score, rule_from_file

    rules = [*(named_score(word, heads=1) for word in score or ()), *map(rule_from_file, rule or ())]
    if vectors:
        worked = inputs.from_file(vectors, position, mask=named_mask(mask), score=rules)
    else:
        worked = inputs.from_words(text or [], position, mask=named_mask(mask), score=rules, embeddings=embeddings)
    shown = (heads or 2) if layer else None
    formats.write(worked, format.value, lesson=steps and steps.value, matrix=matrix, heads=shown)


@app.command()
def run(
    source: Annotated[
        Path, typer.Argument(metavar="INPUT", help="A .npy, .npz or .safetensors file: x, or q, k and v.")
    ],
    target: Annotated[
        Path,
        typer.Option("--output", "-o", metavar="OUTPUT", help="A new file of one of these kinds."),
    ],
    mask: MaskWord = "causal",
    score: Scores = None,
    rule: Functions = None,
    align: Annotated[
        str | None,
        typer.Option(metavar="END", help="Where the queries stand among the keys: start or end."),
    ] = None,
    scale: Annotated[
        float | None, typer.Option(help="Factor of the scores.", show_default="1 for x, 1/√d for q, k and v")
    ] = None,
    threads: Annotated[int | None, typer.Option(help="Threads at most.", show_default="every core")] = None,
    lse: Annotated[bool, typer.Option("--lse", help="Add each row's log-sum-exp, as lse.")] = False,
    weights: Annotated[
        str | None,
        typer.Option(metavar="ROWS", help="Add the weights of rows such as 0,5,-1, as weights."),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace OUTPUT if it exists.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="Print nothing but errors.")] = False,
) -> None:
    """Compute attention over a file of arrays of any size into a new file, a few heads at a time."""
    from clearhead import progress, streaming
    from clearhead.rules.named import named_mask

    rows = () if weights is None else streaming.parse_rows(weights)
    rules = tuple(score or ()), tuple(rule or ())
    options = streaming.Options(named_mask(mask, align), *rules, scale, threads, lse, rows)
    plan = streaming.plan(source, options)
    if not quiet:
        for note in plan.notes:
            typer.echo(note, err=True)
    with progress.clean_endings(), progress.bar("heads", plan.heads, quiet=quiet) as advance:
        report = streaming.execute(plan, target, force=force, advance=advance)
    if not quiet:
        typer.echo(str(report))


@app.command()
def inspect(
    model: Annotated[
        str, typer.Argument(help="A folder that transformers can load, a saved watch, or vectors: the shipped ones.")
    ],
    text: Annotated[
        list[str] | None, typer.Argument(help="A text, or a file that holds one; a saved watch needs none.")
    ] = None,
    sort: Annotated[str, typer.Option(help="entropy, effective, distance, first, strongest, layer or head.")] = "layer",
    most: Annotated[int, typer.Option(help="Lines of the sheet; 0 for all.", min=0)] = 40,
    head: Annotated[str, typer.Option(metavar="LAYER.HEAD", help="The head whose row is listed.")] = "0.0",
    row: Annotated[
        str, typer.Option(metavar="N|WORD", help="The item whose weights are listed; -1 is the last, or a word.")
    ] = "-1",
    embeddings: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="For vectors: GloVe, word2vec, fastText or safetensors in their place."),
    ] = None,
    plots: Annotated[Path | None, typer.Option(metavar="FOLDER", help="Write figures there.")] = None,
    kind: Annotated[str, typer.Option(help="png, svg or pdf.")] = "png",
    html: Annotated[Path | None, typer.Option(metavar="FILE", help="Write a page that needs nothing else.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace files that exist.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Write it for programs.")] = False,
) -> None:
    """Look at every head's weights: how wide, how far, on what; and at what one item looks."""
    from clearhead import progress
    from clearhead.inspecting.command import Wanted, inspected, show, written

    if not re.fullmatch(r"\d+\.\d+", head):
        raise InputError(f"--head {head} is no head: write LAYER.HEAD, as in 5.3.")
    layer, _, own = head.partition(".")
    wanted = Wanted(sort, most, (int(layer), int(own)), row, plots, kind, html, force)
    with progress.clean_endings():
        of = inspected(model, text or [], embeddings)
        with progress.bar("layers", len(of.layers)) as advance:
            found = written(of, wanted, advance)
    typer.echo(found.as_json() if json else "", nl=json)
    if not json:
        show(found)


@app.command()
def doctor(
    json: Annotated[bool, typer.Option("--json", help="Write it for programs.")] = False,
) -> None:
    """Tell what this machine is, what clearhead makes of it, and whether its numbers are right."""
    from clearhead import doctor as examination

    diagnosis = examination.examine()
    typer.echo(examination.as_json(diagnosis) if json else str(diagnosis))
    raise typer.Exit(0 if diagnosis.healthy else 1)


@app.command()
def bench(
    shape: Annotated[
        list[str] | None,
        typer.Option(metavar="B,H,L,D", help="Batch, heads, length and dim; may be given several times."),
    ] = None,
    dtype: Annotated[str, typer.Option(help="float32 or float64.")] = "float32",
    threads: Annotated[int, typer.Option(help="Threads of every contender.", min=1)] = 1,
    seconds: Annotated[float, typer.Option(help="Time for each shape.", min=0.0)] = 2.0,
    json: Annotated[bool, typer.Option("--json", help="Write it for programs.")] = False,
) -> None:
    """Measure attention's speed against the processor's limit, numpy and, where it is installed, PyTorch."""
    import json as writer

    from rich.console import Console

    from clearhead import benchmark

    if dtype not in ("float32", "float64"):
        raise InputError(f"--dtype {dtype} is not measured: use float32 or float64.")
    shapes = [benchmark.parse_shape(text) for text in shape or ()] or benchmark.DEFAULT_SHAPES
    results = [benchmark.measure(s, dtype, threads=threads, seconds=seconds) for s in shapes]
    if json:
        typer.echo(writer.dumps([result.as_dict() for result in results], indent=2))
        return
    Console().print(benchmark.table(results))
    for note in dict.fromkeys(note for result in results for note in result.left_out):
        typer.echo(f"Left out: {note}.")
