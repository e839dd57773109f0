"""Adapting without training: terms as previous text, which Whisper's decoder reads before it writes.

The prompt is the list of terms, commonest in the training texts first, cut at a share of the 223 tokens that the
reference decoder keeps. How much of it helps is chosen on dev, none of it being one of the choices.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

from speechft.whisper.tokens import MAX_PREVIOUS_TOKENS

SHARES = (1.0, 0.5, 0.25, 0.0)  # of the tokens a prompt may have


def order(terms: Iterable[str], texts: Iterable[str]) -> list[str]:
    """Terms by how many texts hold them, commonest first; ties as given."""
    held = [text.lower() for text in texts]

    def count(term: str) -> int:
        whole = re.compile(rf"(?<!\w){re.escape(term.lower())}(?!\w)")
        return sum(bool(whole.search(text)) for text in held)

    return sorted(terms, key=count, reverse=True)


def write(terms: Iterable[str], *, share: float, count: Callable[[str], int]) -> str:
    """The first terms that fit into a share of the tokens, joined by commas; "" when none does.

    Args:
        count: tells how many tokens a text takes.
    """
    prompt = ""
    for term in terms:
        longer = f"{prompt}, {term}" if prompt else term
        if count(longer) > share * MAX_PREVIOUS_TOKENS:
            break
        prompt = longer
    return prompt
