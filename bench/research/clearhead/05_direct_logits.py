"""Direct logit attribution: what each head's output adds to one name's logit over the other's."""

from bench.research.models import run, smollm
from bench.research.prompts import names
from clearhead.adapters.transformers import logit_attribution


def answer(loaded, length):
    """One pass; the parts are checked to add up to the difference."""
    tokenizer, model = loaded
    tokens, _, right, wrong = names(tokenizer, length)
    parts = logit_attribution(model, tokens, right, against=wrong)
    return {"difference": parts.logit, "heads": parts.heads}


if __name__ == "__main__":
    run(smollm, answer, 64)
