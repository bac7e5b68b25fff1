"""The headings of the worked steps in their order, each with its formula for the terminal and for LaTeX."""

from tests.explain.judge.names import sub

Heading = tuple[str, str | None, str | None]


def worked(judge) -> list[Heading]:
    """What must be there for this input."""
    truth, i = judge.truth, judge.truth.i
    masked = judge.mask != ("causal",)
    made: list[Heading] = [("", None, None)]
    if truth.items:
        made.append(
            (
                "1  Scores",
                f"score({sub('x', i)}, xⱼ) = {sub('x', i)} · xⱼ",
                rf"\mathrm{{score}}(x_{{{i}}}, x_j) = x_{{{i}}} \cdot x_j",
            )
        )
        made += [(rule_heading(judge, at), rule.plain, rule.latex) for at, rule in enumerate(truth.rules)]
    if masked:
        hidden = rf"s_{{{i},j}} = -\infty \ \mbox{{where hidden}}"
        made.append(("Mask", f"s{sub('', i)}ⱼ = −∞  where {judge.mask_name} hides j", hidden))
    if truth.in_softmax.any():
        made += [("2  Softmax", *softmax(judge, masked)), ("3  Weighted sum", *weighted_sum(i, masked))]
        made.append(("What changed", None, None))
    if judge.matrix:
        made.append(("All rows", *all_rows(judge, masked)))
    return made


def rule_heading(judge, at: int) -> str:
    """The heading of one rule."""
    rules = judge.truth.rules
    return (f"Rule {at + 1} of {len(rules)}: " if len(rules) > 1 else "Rule: ") + rules[at].name


def softmax(judge, masked: bool) -> tuple[str, str]:
    i = judge.truth.i
    if masked or judge.truth.rules:
        after = "s after all rules, " if judge.truth.rules else ""
        return (
            f"α{sub('', i)}ⱼ = exp(s{sub('', i)}ⱼ) ÷ Σₖ exp(s{sub('', i)}ₖ),  {after}k seen",
            rf"\alpha_{{{i},j}} = \exp(s_{{{i},j}}) \Big/ \sum_{{k\ \mathrm{{seen}}}} \exp(s_{{{i},k}})",
        )
    return (
        f"α{sub('', i)}ⱼ = exp(score({sub('x', i)}, xⱼ)) ÷ Σₖ exp(score({sub('x', i)}, xₖ)),  k = 0 … {i}",
        rf"\alpha_{{{i},j}} = \exp(x_{{{i}}} \cdot x_j) \Big/ \sum_{{k=0}}^{{{i}}} \exp(x_{{{i}}} \cdot x_k)",
    )


def weighted_sum(i: int, masked: bool) -> tuple[str, str]:
    plain = f"{sub('y', i)} = Σⱼ α{sub('', i)}ⱼ xⱼ,  " + ("j seen" if masked else f"j = 0 … {i}")
    over = r"\sum_{j}" if masked else rf"\sum_{{j=0}}^{{{i}}}"
    return plain, rf"y_{{{i}}} = {over} \alpha_{{{i},j}}\, x_j"


def all_rows(judge, masked: bool) -> tuple[str, str]:
    if masked or judge.truth.rules:
        return (
            "α = softmax(scores after rules and mask), row by row",
            r"\alpha = \mathrm{softmax}(\mbox{scores after rules and mask}),\ \mbox{row by row}",
        )
    return (
        "α = softmax(X Xᵀ), row by row, j ≤ i",
        r"\alpha = \mathrm{softmax}(X X^{T}),\ \mbox{row by row},\ j \le i",
    )


def layer(judge) -> list[Heading]:
    """Those of a transformer's layer."""
    i, d = judge.truth.i, judge.truth.d // judge.heads
    n = sub("", i)
    return [
        ("", None, None),
        (
            "1  Queries, keys, values",
            f"q{n} = x{n} W^Q,  kⱼ = xⱼ W^K,  vⱼ = xⱼ W^V,  for each head",
            rf"q_{{{i}}} = x_{{{i}}} W^Q,\ k_j = x_j W^K,\ v_j = x_j W^V,\ \mbox{{for each head}}",
        ),
        (
            "2  Scores, scaled",
            f"score{n}ⱼ = q{n} · kⱼ ÷ √{d}",
            rf"\mathrm{{score}}_{{{i},j}} = q_{{{i}}} \cdot k_j / \sqrt{{{d}}}",
        ),
        (
            "3  Softmax",
            f"α{n}ⱼ = exp(score{n}ⱼ) ÷ Σₖ exp(score{n}ₖ),  k = 0 … {i}, for each head",
            rf"\alpha_{{{i},j}} = \exp(\mathrm{{score}}_{{{i},j}}) / \sum_{{k=0}}^{{{i}}} "
            rf"\exp(\mathrm{{score}}_{{{i},k}})",
        ),
        (
            "4  Weighted sums",
            f"o{n} = Σⱼ α{n}ⱼ vⱼ,  for each head",
            rf"o_{{{i}}} = \sum_j \alpha_{{{i},j}}\, v_j,\ \mbox{{for each head}}",
        ),
        ("5  W^O", f"y{n} = [heads side by side] W^O", rf"y_{{{i}}} = [\mbox{{heads side by side}}]\, W^O"),
    ]
