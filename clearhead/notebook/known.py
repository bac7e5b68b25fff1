"""Answers that a page holds from the start, each named as the page names its question."""

import json
from collections.abc import Mapping
from typing import Any


def question(what: str, about: Mapping[str, Any]) -> str:
    """The name of a question, as static/ask.js forms it.

    >>> question("sentence", {"text": "a “b”"})
    'sentence {"text":"a “b”"}'
    """
    return f"{what} {json.dumps(about, sort_keys=True, ensure_ascii=False, separators=(',', ':'))}"
