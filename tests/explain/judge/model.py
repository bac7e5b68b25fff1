"""What --model tiny says: every number held to the model worked out anew, as far as float32 goes."""

import re

import numpy as np

from clearhead.model import load
from tests.explain.judge import network
from tests.explain.judge.evidence import Judge
from tests.explain.judge.names import label, sub
from tests.explain.judge.pages import check_items, check_prose
from tests.explain.judge.programs import check_json
from tests.explain.judge.ranges import NUMBER, Range, UntrueError, exact, is_share, rounded, says
from tests.explain.judge.reading import FORMULA, Page, Prose, Table
from tests.explain.judge.rules import CAUSAL
from tests.explain.judge.sentences import Sentence, definitions, sentence
from tests.explain.judge.tables import check_table
from tests.explain.judge.worked import WORKED

CLOSE = 1e-4  # relative to the length of a row: what float32 may lose on its way through four layers
KEYS = [
    "tokens", "position", "head", "attention", "residual_lengths", "guesses", "nats", "mean", "perplexity",
    "bits_per_character", "uniform", "heads",
]  # fmt: skip
STEPS = [
    ("enters", "x", "entering"), ("norm", r"u = x / \mathrm{rms}(x)", "normed"), ("queries", "q = R(u W^Q)", "q"),
    ("keys", "k = R(u W^K)", "k"), ("values", "v = u W^V", "v"),
    ("attention", r"o = \mathrm{softmax}(q K^{T} / \sqrt{d})\, V", "attended"),
    ("W^O", r"a = [\mbox{all}\ o]\, W^O", "attention"), ("added", "x + a", "between"),
    ("norm", r"w = \mathrm{norm}(x + a)", "normed_between"), ("MLP, up", r"h = \mathrm{gelu}(w W^{up})", "hidden"),
    ("MLP, down", r"m = h W^{down}", "mlp"), ("added", "x + a + m", "leaving"),
]  # fmt: skip
KINDS = {
    "previous": "looks at the token before",
    "induction": "looks at what came next the last time",
    "sink": "rests on the first token",
    "itself": "looks at itself",
    "punctuation": "looks at signs",
}


def refused(case, message: str) -> None:
    """A text that is too long, or a position that it has not."""
    tokens = load().tokenizer.encode(case.text)
    outside = not -len(tokens) <= int(case.given) < len(tokens)
    if not (outside and "Position" in message) and len(tokens) <= network.CONTEXT:
        raise UntrueError(f"refused for no reason: {message}")


def bench_of(case, made: dict) -> Judge:
    """The judge of one head: q, k and v as JSON has them, held to the model; tokens that spell the text."""
    tokens = load().tokenizer.encode(case.text)
    if b"".join(network.written()[token] for token in tokens).decode("utf-8") != case.text or tokens[0]:
        raise UntrueError("the tokens do not spell the text")
    passed, (layer, head) = network.forward(tokens), case.head
    names = [network.name(token).strip() or network.name(token) for token in tokens]
    q, k, v = (np.array(made["attention"][name]) for name in ("queries", "keys", "values"))
    for own, told in zip(
        (passed.layers[layer].q, passed.layers[layer].k, passed.layers[layer].v), (q, k, v), strict=True
    ):
        if np.abs(own[head] - told).max() > CLOSE * np.abs(own[head]).max():
            raise UntrueError(f"q, k or v of head {layer}.{head} are others")
    judge = Judge(q, names, made["position"], CAUSAL, (), keys=k, values=v, scale=32**-0.5)
    judge.json = made["attention"]
    judge.kept |= {"model": made, "tokens": tokens, "passed": passed, "head": case.head, "text": case.text}
    at = made["position"]
    judge.holds(at == int(case.given) % len(tokens) or names[at] == case.given, f"the position is {case.given}")
    return judge


def headings(judge) -> list[tuple[str, str | None, str | None]]:
    """The headings and formulas of a page."""
    i, (layer, head) = judge.truth.i, judge.kept["head"]
    q = sub("q", i)
    return [
        ("", None, None),
        (f"Layer {layer} of 4", None, None),
        (f"Head {layer}.{head}: its attention, worked out", None, None),
        ("1  Scores", f"score({q}, kⱼ) = {q} · kⱼ ÷ √32",
         rf"\mathrm{{score}}(q_{{{i}}}, k_j) = q_{{{i}}} \cdot k_j / \sqrt{{32}}"),
        ("2  Softmax", f"α{sub('', i)}ⱼ = exp(score({q}, kⱼ)) ÷ Σₖ exp(score({q}, kₖ)),  k = 0 … {i}",
         rf"\alpha_{{{i},j}} = \exp(q_{{{i}}} \cdot k_j / \sqrt{{32}}) \Big/ \sum_{{k=0}}^{{{i}}} "
         rf"\exp(q_{{{i}}} \cdot k_k / \sqrt{{32}})"),
        ("3  Weighted sum", f"{sub('y', i)} = Σⱼ α{sub('', i)}ⱼ vⱼ,  j = 0 … {i}",
         rf"y_{{{i}}} = \sum_{{j=0}}^{{{i}}} \alpha_{{{i},j}}\, v_j"),
        ("What depth adds", None, None),
        ("The objective: guess the next token", None, None),
        ("Which head is which", None, None),
    ]  # fmt: skip


def check_model(judge, page: Page) -> None:
    """The page and its JSON."""
    check_json(judge)
    check_numbers(judge)
    judge.holds(page.title == "A small language model, step by step", f"the title is {page.title!r}")
    check_items(judge, page.items, judge.truth.i)
    expected = [(heading, latex) for heading, _, latex in headings(judge)]
    judge.holds([(one.heading, one.formula) for one in page.sections] == expected, "headings or formulas")
    for at, section in enumerate(page.sections):
        for block in section.blocks:
            if isinstance(block, Prose):
                check_prose(judge, block.text, [*SENTENCES, *WORKED])
            elif 3 <= at <= 5:
                check_table(judge, section.heading, block)
            else:
                TABLES[at](judge, block)
    tables = [f"table {one.heading}" for one in page.sections[3:6]]
    told = ["model", "embedding", "scores", "products", "positive", "softmax", "one weight", "sum", "lens", "loss"]
    judge.says_all(*told, *tables, *["shift"] * bool(judge.shift), "layer", "depth", "tokens", "heads", "measured")


def near(value: float, size: float = 1.0) -> Range:
    """A number as float32 may have it."""
    return Range(value - CLOSE * size, value + CLOSE * size)


def check_numbers(judge) -> None:
    """JSON, against the model."""
    made, passed, i = judge.kept["model"], judge.kept["passed"], judge.truth.i
    judge.holds(list(made) == KEYS, f"entries {list(made)}")
    judge.holds((made["tokens"], made["position"]) == (judge.tokens, i), "tokens or position")
    judge.holds(made["head"] == [*judge.kept["head"]], "another head")
    lengths = [float(np.linalg.norm(x[i])) for x in passed.stream]
    judge.holds(np.allclose(made["residual_lengths"], lengths, rtol=CLOSE), f"the lengths are {lengths}")
    for row, x in zip(made["guesses"], passed.stream, strict=True):
        best(judge, row, network.chances(x[i : i + 1])[0])
    tokens = judge.kept["tokens"]
    own = -np.log(network.chances(passed.stream[-1])[np.arange(len(tokens) - 1), tokens[1:]])
    judge.holds(np.allclose(made["nats"], own, rtol=CLOSE, atol=1e-3), f"the nats are {own}")
    mean = float(np.mean(made["nats"]))
    told = [made[name] for name in ("mean", "perplexity", "bits_per_character", "uniform")]
    bits = float(np.sum(made["nats"])) / np.log(2) / len(judge.kept["text"])
    judge.holds(np.allclose(told, [mean, np.exp(mean), bits, np.log(2048)], rtol=1e-9), f"what it comes to is {told}")


def best(judge, row: list[dict], chance: np.ndarray) -> None:
    """Three guesses: their chances, and that none is likelier."""
    judge.holds(len(row) == 3, "not three")
    order = np.sort(chance)[::-1]
    for at, guess in enumerate(row):
        judge.holds(guess["chance"] >= order[at] * (1 - 20 * CLOSE), f"guess {at} is not the likeliest")
        own = [c for token, c in enumerate(chance) if network.name(token) == guess["token"]]
        judge.holds(any(abs(c - guess["chance"]) <= 20 * CLOSE * c + 1e-12 for c in own), f"the chance of {guess}")


def knows(judge, tokens: str, layers: str, heads: str) -> None:
    judge.claim("model", (tokens, layers, heads) == ("2048", "4 layers", "4 heads"), "it has other sizes")


def embedding(judge, name: str, at: str, number: str, rows: str, columns: str, *first: str) -> None:
    judge.is_own(name, at)
    token = judge.kept["tokens"][judge.truth.i]
    judge.claim("embedding", (int(number), rows, columns) == (token, "2048", "128"), f"it is number {token}")
    for k, cell in enumerate(first):
        says(cell, near(network.held()["embedding"][token][k], 0.01), f"dim {k} of the embedding")


def asks(judge, name: str) -> None:
    judge.is_own(name)
    judge.once("scores")


def in_full(judge, item: str, products: str, rest: str, root: str, result: str) -> None:
    """The first products of a score, how many more there are, and what it is over √d."""
    truth = judge.truth
    factors = re.findall(rf"\(?({NUMBER})\)? × \(?({NUMBER})\)?", products)
    judge.holds(len(factors) == 3 and (rest, root) == ("29 more products", "32"), f"{products}, {rest}, {root}")

    def fits(j: int) -> None:
        judge.holds(j in truth.items, "it is not seen")
        for k, (a, b) in enumerate(factors):
            rounded(a, float(truth.x[truth.i, k]), f"dim {k} of the query")
            rounded(b, float(truth.keys[j, k]), f"dim {k} of the key")
        says(result, truth.score(j), f"the score of item {j}")

    judge.one_of(item, fits)
    judge.once("products")


def layer_table(judge, table: Table) -> None:
    """Each step: its shape, its multiply-adds, and the chosen token's numbers."""
    judge.once("layer")
    i, n, (at, head) = judge.truth.i, judge.truth.n, judge.kept["head"]
    columns = ["step", "formula", "shape", "multiply-adds", f"token {i}", "length"]
    judge.holds(table.head == columns and not table.total, "other columns")
    pairs, square = sum(range(n + 1)), n * 128 * 128
    costs = [0, n * 128, square, square, square, 2 * 128 * pairs, square, 0, n * 128, 4 * square, 4 * square, 0]
    for row, (step, formula, key), cost in zip(table.rows, STEPS, costs, strict=True):
        judge.holds(row[:2] == [step, FORMULA + formula], f"the step {row[:2]}")
        x = getattr(judge.kept["passed"].layers[at], key)
        judge.holds(row[2] == f"({','.join(map(str, x.shape))})", f"the shape of {step}")
        judge.holds((not row[3] and not cost) or short(row[3]).meets(exact(float(cost))), f"{step} costs {cost}")
        own = (x[head] if x.ndim == 3 else x)[i]
        size = float(np.linalg.norm(own))
        cells = row[4].removesuffix(", …").split(", ")
        judge.holds(len(cells) == 2 and row[4].endswith(", …"), f"{row[4]!r}")
        for k, cell in enumerate(cells):
            says(cell, near(float(own[k]), size), f"dim {k} after {step}")
        says(row[5], near(size, size), f"the length after {step}")


def short(text: str) -> Range:
    """A count as it is printed."""
    from tests.explain.judge.lessons import short

    return short(text)


def lens(judge, name: str) -> None:
    judge.is_own(name)
    judge.once("lens")


def depth_table(judge, table: Table) -> None:
    """Three guesses after each layer."""
    judge.once("depth")
    judge.holds(table.head == ["after", "guess 1", "guess 2", "guess 3"] and not table.total, "other columns")
    names = ["embedding", *(f"layer {at}" for at in range(4))]
    judge.holds([row[0] for row in table.rows] == names, "other rows")
    for row, guesses in zip(table.rows, judge.kept["model"]["guesses"], strict=True):
        for cell, guess in zip(row[1:], guesses, strict=True):
            name = label(guess["token"].strip() or guess["token"])
            judge.holds(cell.startswith(f"“{name}” "), f"{cell!r} should be of {name!r}")
            is_share(cell.removeprefix(f"“{name}” "), exact(guess["chance"]), f"the chance of {name!r}")


def loss(judge, better: bool, *found: str) -> None:
    mean, uniform, tokens, again, perplexity, bits = found
    made = judge.kept["model"]
    judge.claim("loss", better == (made["mean"] < made["uniform"]), "which is less")
    judge.holds(int(tokens) == 2048 and mean == again, "other tokens")
    for cell, name in ((mean, "mean"), (uniform, "uniform"), (perplexity, "perplexity"), (bits, "bits_per_character")):
        rounded(cell, made[name], name)


def token_table(judge, table: Table) -> None:
    """What each token was given."""
    judge.once("tokens")
    judge.holds(table.head == ["token", "", "chance it was given", "−log p"], "other columns")
    made, n = judge.kept["model"], len(judge.tokens) - 1
    shown = [*range(1, n + 1)] if n <= 32 else [*range(1, 17), *range(n - 15, n + 1)]
    rows = [row for row in table.rows if row[0]]
    judge.holds([int(row[0]) for row in rows] == shown, f"tokens {[row[0] for row in rows]}")
    for j, (_, name, chance, nats) in zip(shown, rows, strict=True):
        judge.holds(name == label(judge.tokens[j]), f"token {j} is called {name!r}")
        rounded(nats, made["nats"][j - 1], f"−log p of token {j}")
        is_share(chance, exact(float(np.exp(-made["nats"][j - 1]))), f"the chance of token {j}")
    rest = [row for row in table.rows if not row[0]]
    judge.holds(rest == ([["", f"… {n - 32} more", "", ""]] if n > 32 else []), "the others")
    judge.holds(table.total is not None and table.total[:3] == ["", "mean", ""], "no mean")
    rounded(table.total[3], made["mean"], "the mean")


def on_this_text(judge, *found: str) -> None:
    """How often the text was said, and what the heads then do."""
    times, chance = (int(found[0]) if len(found) > 1 else 1), found[-1]
    text, encode = judge.kept["text"], load().tokenizer.encode
    judge.holds(len(found) == 1 or times > 1, "once")
    judge.holds(len(encode(" ".join([text] * times))) >= network.ENOUGH, f"{times} times are too few tokens")
    judge.holds(times == 1 or len(encode(" ".join([text] * (times - 1)))) < network.ENOUGH, f"{times} are too many")
    scores, signs = network.measured(encode(" ".join([text] * times))[1:])
    is_share(chance, near(signs), "the share of signs")
    judge.kept["scores"] = scores
    judge.once("measured")


def head_table(judge, table: Table) -> None:
    """The head with most of each kind."""
    judge.once("heads")
    judge.holds(
        table.head == ["head", "what it does", "its weight there, on the average"] and not table.total, "columns"
    )
    judge.holds([row[1] for row in table.rows] == [*KINDS.values()], "other kinds")
    for (head, _, share), kind in zip(table.rows, KINDS, strict=True):
        layer, at = map(int, head.split("."))
        own = judge.kept["scores"][kind]
        says(share, near(float(own[layer, at])), f"{kind} of head {head}")
        judge.holds(own[layer, at] >= own.max() - CLOSE, f"another head has more of {kind}")
        made = judge.kept["model"]["heads"][kind]
        judge.holds(made["head"] == [layer, at], "JSON has another head")
        rounded(share, made["share"], f"{kind} of head {head}")


TABLES = {1: layer_table, 6: depth_table, 7: token_table, 8: head_table}
SENTENCES: list[Sentence] = [
    sentence("It knows <count> of them, words and pieces of words, and has <some> of <some> each.", knows),
    sentence(
        "<name>, token <count>, is number <count>: its embedding is that row of a table (<count>,<count>), and begins "
        "the residual stream, the one vector a token that every layer reads and adds to: <number>, <number>, ….",
        embedding,
    ),
    sentence("Does what <name> asks for, its query, fit what it sees, the keys?", asks),
    sentence("For <item>: (<some> + … (<some>)) ÷ √<count> = <number>.", in_full),
    sentence("What comes after <name>?", lens),
    *(
        sentence(
            f"Here it is <number> nats a token, {less} than the <number> of a guess that gives all <count> tokens the "
            "same chance. In other units: perplexity exp(<number>) = <number>, as unsure as among so many equal "
            "tokens, and <number> bits a character.",
            loss, less == "less",
        )
        for less in ("less", "no less")
    ),
    *(
        sentence(
            f"The head of each kind that is most so, on this text{said}; copying (induction) is measured on random "
            "tokens said twice. Of all weight before it, signs would get <percent> by chance.",
            on_this_text,
        )
        for said in (", said <count> times", "")
    ),
    sentence(
        "Each value times its weight; added up, column by column, they are the output <some>.",
        lambda judge, y: judge.claim("sum", y == sub("y", judge.truth.i), "another item's"),
    ),
    *definitions(
        "The model was trained to guess the next token.",
        "Norm comes first: each sub-layer reads a copy of the stream with every row over the root of the mean of its "
        "squares, and adds what it found to the stream itself, which is never normed.",
        "So what entered is still there at the end, and learning reaches the first layer undiminished, through one "
        "long sum.",
        "Their dot product tells.",
        "The last residual stream, normed, is compared with every token's embedding; softmax makes chances of the "
        "scores.",
        "The same can be asked after every layer, as if the model ended there (a logit lens): each layer changes the "
        "guess.",
        "Training changes every matrix so that the tokens that really come get a larger chance: it makes the mean of "
        "−log p small, the cross-entropy.",
    ),
]  # fmt: skip
