"""The `clearhead` command: its subcommands, options and exit codes.

Responsible for options and exit codes. Each subcommand imports what it needs when it runs, so that `--help` is quick.
Not for the work of the subcommands, which is in their packages.
"""

import os
import re
import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from clearhead.cli.fault import as_options, report_error, usage_fault
from clearhead.errors import ClearheadError, InputError

app = typer.Typer(
    name="clearhead",
    help="Self-attention you can see through.",
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


class Format(StrEnum):
    """The output format of an explanation."""

    text = "text"
    markdown = "markdown"
    latex = "latex"
    html = "html"
    json = "json"


class Steps(StrEnum):
    """What else can be explained about the steps, besides their numbers."""

    order = "order"
    shapes = "shapes"
    cost = "cost"
    positions = "positions"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code: 0 done, 1 broken pipe, 2 wrong input, 130 interrupted."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if hasattr(sys.stdout, "reconfigure"):  # pipes and files are always UTF-8; a terminal without it shows ?
        sys.stdout.reconfigure(**({"errors": "replace"} if sys.stdout.isatty() else {"encoding": "utf-8"}))
    try:
        code = app(list(arguments) or ["--help"], prog_name="clearhead", standalone_mode=False)
        sys.stdout.flush()
    except KeyboardInterrupt:
        return 130
    except ClearheadError as error:
        return report_error(as_options(str(error)))
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # because Python flushes again at exit
        return (
            1 if isinstance(error, BrokenPipeError) else report_error(f"{error}: check the disk and the permissions.")
        )
    except Exception as error:
        if not hasattr(error, "format_message"):  # what typer raises for wrong usage
            raise
        fault = usage_fault(error)
        command = getattr(getattr(error, "ctx", None), "command_path", "clearhead")
        if fault.startswith("No such option") and any(word[:1] == "-" and " " in word for word in arguments):
            return report_error(f"{fault}. A text that begins with - goes after --, as in {command} -- '-5 degrees'.")
        return report_error(f"{fault}{'' if fault.endswith('?') else '.'} Try '{command} --help'.")
    return code or 0


def show_version(wanted: bool) -> None:
    """Print the version and stop."""
    if wanted:
        from importlib.metadata import PackageNotFoundError, version

        try:
            typer.echo(f"clearhead {version('clearhead')}")
        except PackageNotFoundError:
            typer.echo("clearhead, not installed: running from source")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=show_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Self-attention you can see through."""


MaskWord = Annotated[
    str,
    typer.Option(metavar="MASK", help="causal, full, window:255, dilated:4, prefix:N, documents:5,7; joined by & | ~."),
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
    attends_to: Annotated[
        str | None,
        typer.Option(metavar="TEXT", help="Another text that the item looks at: cross-attention.", show_default=False),
    ] = None,
    vectors: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Vectors to explain in place of a text: csv or npy, one per row."),
    ] = None,
    qkv: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="q, k and v to explain in place of a text: arrays in npz or safetensors."),
    ] = None,
    roles: Annotated[
        bool,
        typer.Option("--roles", help="In place of a text, a scene with designed matrices, where q, k and v differ."),
    ] = False,
    embeddings: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Word vectors for the text: GloVe, word2vec, fastText or safetensors."),
    ] = None,
    position: Annotated[
        str,
        typer.Option(metavar="N|WORD", help="The item to explain: 0 is the first, -1 the last; or a word of the text."),
    ] = "-1",
    matrix: Annotated[bool, typer.Option("--matrix", help="Add the weights of every item.")] = False,
    model: Annotated[
        str | None,
        typer.Option(metavar="tiny", help="Show the text in the small language model: a block, the guess, the loss."),
    ] = None,
    head: Annotated[
        str | None,
        typer.Option(metavar="LAYER.HEAD", help="Which of the model's heads to work out.", show_default="0.0"),
    ] = None,
    what_if: Annotated[
        str | None,
        typer.Option(metavar="CASE", help="Compare the formula with another: no-softmax, no-values, values=keys …"),
    ] = None,
    steps: Annotated[
        Steps | None,
        typer.Option(help="Explain instead why the steps have this order, their shapes or cost, or what positions do."),
    ] = None,
    quiz: Annotated[
        bool, typer.Option("--quiz", help="Ask about the steps instead; in another --format than text, as a sheet.")
    ] = False,
    layer: Annotated[
        bool, typer.Option("--layer", help="Explain a transformer's layer instead: W^Q, W^K, W^V, heads, W^O.")
    ] = False,
    weights: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="That layer's own matrices: W_Q, W_K, W_V and W_O in npz or safetensors."),
    ] = None,
    heads: Annotated[
        int | None, typer.Option(help="Heads of that layer.", min=1, show_default="2, or 1 with --weights")
    ] = None,
    mask: Annotated[
        str | None,
        typer.Option(
            metavar="MASK",
            help="causal, full, window:255, dilated:4, prefix:N, documents:5,7; joined by & | ~.",
            show_default="causal; full with --attends-to",
        ),
    ] = None,
    score: Scores = None,
    rule: Functions = None,
    format: Annotated[Format, typer.Option(help="How to write it.")] = Format.text,
) -> None:
    """Show attention step by step: scores, softmax, weighted sum, and what changed in meaning."""
    from clearhead.explain import command, formats
    from clearhead.rules.named import named_mask, named_score, rule_from_file

    rules = [*(named_score(word, heads=1) for word in score or ()), *map(rule_from_file, rule or ())]
    request = command.ExplainRequest(
        text=tuple(text or ()), attends_to=attends_to, vectors=vectors, qkv=qkv, roles=roles, embeddings=embeddings,
        position=position, mask=None if mask is None else named_mask(mask), rules=tuple(rules), matrix=matrix,
        what_if=what_if, steps=steps and steps.value, quiz=quiz, layer=layer or weights is not None, weights=weights,
        heads=heads, model=model, head=head,
    )  # fmt: skip
    page = command.requested_page(request)
    if quiz and format is Format.text:
        command.ask_on_terminal(page.explained)
    else:
        formats.write_page(page, format.value)


@app.command()
def generate(
    text: Annotated[list[str], typer.Argument(help="A text to continue, a file that holds one, or -.")],
    tokens: Annotated[int, typer.Option(help="How many tokens to add.", min=1)] = 40,
    temperature: Annotated[float, typer.Option(help="0 takes the likeliest, 1 draws by the model's chances.")] = 0.8,
    top_p: Annotated[
        float, typer.Option("--top-p", help="Draw from the likeliest that together have this probability.")
    ] = 0.9,
    seed: Annotated[int, typer.Option(help="The same seed gives the same reply.")] = 0,
) -> None:
    """Continue a text with the small language model that ships with clearhead."""
    from clearhead.model import command

    command.print_reply(text, tokens, temperature, top_p, seed)


@app.command()
def view(
    text: Annotated[
        list[str] | None,
        typer.Argument(help="A text to begin with, a file that holds one, or -.", show_default=False),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(metavar="FOLDER|tiny", help="Read a model's attention over the text.", show_default=False),
    ] = None,
    watch: Annotated[
        list[Path] | None,
        typer.Option(metavar="FILE", help="Read a saved watch; may be given several times.", show_default=False),
    ] = None,
    image: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="A picture for the model, or below a watch's patches.", show_default=False),
    ] = None,
    generate: Annotated[
        int, typer.Option(help="How many tokens the model adds; 16 if it writes an answer of its own.", min=0)
    ] = 0,
    port: Annotated[int | None, typer.Option(help="Where to serve.", min=1, max=65535, show_default="any free")] = None,
    browser: Annotated[
        bool, typer.Option("--browser/--no-browser", help="Open a browser, or print the address.")
    ] = True,
) -> None:
    """Open a page on this computer: learn self-attention by hand, or read a model's attention; Ctrl-C ends it."""
    from clearhead.view import command

    command.open_page(command.ViewOptions(tuple(text or ()), model, tuple(watch or ()), image, generate, port, browser))


@app.command()
def run(
    source: Annotated[
        Path,
        typer.Argument(metavar="INPUT", help="A .npy, .npz or .safetensors file of float32 or float64: x, or q, k, v."),
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
        typer.Option(metavar="END", help="Where the queries are among the keys: start or end."),
    ] = None,
    scale: Annotated[
        float | None, typer.Option(help="Factor of the scores.", show_default="1 for x, 1/√d for q, k and v")
    ] = None,
    threads: Annotated[int | None, typer.Option(help="Most threads to use.", show_default="every core")] = None,
    lse: Annotated[bool, typer.Option("--lse", help="Add each row's log-sum-exp, as lse.")] = False,
    weights: Annotated[
        str | None,
        typer.Option(metavar="ROWS", help="Add the weights of rows such as 0,5,-1, as weights."),
    ] = None,
    resume: Annotated[
        bool,
        typer.Option("--resume", help="Keep what is done when the run is stopped or killed, and go on with it."),
    ] = False,
    part: Annotated[
        str | None,
        typer.Option(metavar="N/M", help="Compute the N-th of M equal parts, for clearhead join."),
    ] = None,
    force: Annotated[
        bool,
        typer.Option("--force", help="Replace OUTPUT, and an unfinished run; with --resume, only one of another run."),
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="Print nothing but errors.")] = False,
) -> None:
    """Compute attention over arrays of any size from one file into a new one, some rows at a time."""
    from clearhead.cli import progress
    from clearhead.cli import run as streaming
    from clearhead.cli.job import Options, job_for, parse_part, parse_rows
    from clearhead.rules.named import named_mask

    rows = () if weights is None else parse_rows(weights)
    rules = tuple(score or ()), tuple(rule or ())
    job = job_for(source, Options(named_mask(mask, align), *rules, scale, threads, lse, rows))
    own = None if part is None else parse_part(part)
    if not quiet:
        for note in job.notes:
            typer.echo(note, err=True)

    def show(total: int, done: int) -> AbstractContextManager[Callable[[int], None]]:
        if done and not quiet:
            typer.echo(f"clearhead: resumed at {done / total:.1%}", err=True)
        return progress.bar("pairs", total, done, quiet=quiet)

    try:
        with progress.clean_endings():
            report = streaming.execute(job, target, force=force, resume=resume, part=own, show=show)
    except (KeyboardInterrupt, SystemExit):
        if resume and not quiet:
            typer.echo("clearhead: stopped; the same command goes on from here.", err=True)
        raise
    if not quiet:
        typer.echo(str(report))


@app.command()
def join(
    target: Annotated[
        Path, typer.Argument(metavar="OUTPUT", help="The file that clearhead run --part was given as OUTPUT.")
    ],
    keep: Annotated[bool, typer.Option("--keep", help="Keep the parts' files.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace OUTPUT if it exists.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="Print nothing but errors.")] = False,
) -> None:
    """Join the parts of a run into its output, and remove them when it is complete."""
    from clearhead.cli import pieces, progress

    with progress.clean_endings():
        parts = pieces.join(target, force=force, keep=keep)
    if not quiet:
        typer.echo(f"{target}: joined from {parts} parts")


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
    html: Annotated[Path | None, typer.Option(metavar="FILE", help="Write a self-contained page.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace files that exist.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Write JSON, for programs.")] = False,
) -> None:
    """Inspect every head's weights: how wide, how far, on what; and what one item looks at."""
    from clearhead.cli import progress
    from clearhead.inspecting.command import InspectOptions, inspect_heads, load_attention, print_inspection

    if not re.fullmatch(r"\d+\.\d+", head):
        raise InputError(f"--head {head} is not a head: write LAYER.HEAD, as in 5.3.")
    layer, _, head_in_layer = head.partition(".")
    options = InspectOptions(sort, most, (int(layer), int(head_in_layer)), row, plots, kind, html, force)
    with progress.clean_endings():
        of = load_attention(model, text or [], embeddings)
        with progress.bar("layers", len(of.stack().layers)) as advance:
            inspection = inspect_heads(of, options, advance)
    typer.echo(inspection.as_json() if json else "", nl=json)
    if not json:
        print_inspection(inspection)


@app.command()
def doctor(
    json: Annotated[bool, typer.Option("--json", help="Write JSON, for programs.")] = False,
) -> None:
    """Describe this machine and how clearhead uses it, and check that its numbers are right."""
    from clearhead.cli import doctor as examination

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
    threads: Annotated[int, typer.Option(help="Threads for every contender.", min=1)] = 1,
    seconds: Annotated[float, typer.Option(help="Time for each shape.", min=0.0)] = 2.0,
    json: Annotated[bool, typer.Option("--json", help="Write JSON, for programs.")] = False,
) -> None:
    """Measure attention's speed against the processor's limit, numpy and, where it is installed, PyTorch."""
    import json as writer

    from rich.console import Console

    from clearhead.cli import bench as benchmark

    if dtype not in ("float32", "float64"):
        raise InputError(f"--dtype {dtype} is not measured: use float32 or float64.")
    shapes = [benchmark.parse_shape(text) for text in shape or ()] or benchmark.DEFAULT_SHAPES
    results = [benchmark.measure(s, dtype, threads=threads, seconds=seconds) for s in shapes]
    if json:
        typer.echo(writer.dumps([result.as_dict() for result in results], indent=2))
        return
    Console().print(benchmark.results_table(results))
    for note in dict.fromkeys(note for result in results for note in result.left_out):
        typer.echo(f"Left out: {note}.")
