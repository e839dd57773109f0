"""The word error rate as an `evaluate.Metric`, for code that already speaks that language; works offline."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import datasets
import evaluate

from speechft import text as text_rules
from speechft.score import wer
from speechft.text import Term

_DESCRIPTION = """
Word and character error rates from jiwer's alignments: errors of all rows over reference words of all rows.
Words written where the reference is empty are counted apart, as `invented_words`.
"""

_INPUTS = """
Args:
    predictions: list of hypotheses.
    references: list of references, in the same order.
Returns:
    wer, cer: fractions (None without reference words); hits, substitutions, insertions, deletions, words,
    invented_words: counts; normaliser: name, version and hash.
Examples:
    >>> WordErrors(normaliser="raw").compute(predictions=["a c d"], references=["a b c d"])["wer"]
    0.25
"""


class WordErrors(evaluate.Metric):
    """`evaluate.load("wer")` without the network: a local class, with a normaliser chosen by name.

    Args:
        normaliser: one of `text.NAMES`.
        terms: protected by the jargon-safe normaliser.
        language: of the texts.
        settings: for evaluate.Metric, such as `cache_dir`.
    """

    def __init__(
        self,
        normaliser: str = text_rules.DEFAULT,
        terms: Sequence[Term] | None = None,
        *,
        language: str = "en",
        **settings: Any,
    ) -> None:
        self._normaliser = text_rules.get(normaliser, terms, language=language)
        self._spaces = not text_rules.without_spaces([language], [])
        super().__init__(**settings)

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation="",
            inputs_description=_INPUTS,
            features=datasets.Features(
                {"predictions": datasets.Value("string"), "references": datasets.Value("string")}
            ),
        )

    def _compute(
        self,
        *,
        predictions: Sequence[str] | None = None,
        references: Sequence[str] | None = None,
        **_: Any,
    ) -> dict[str, Any]:
        expected = {str(index): text for index, text in enumerate(references or ())}
        written = {str(index): text for index, text in enumerate(predictions or ())}
        normalise = self._normaliser
        words = wer.total(row.errors for row in wer.align(expected, written, normalise.words))
        characters = wer.total(
            row.errors
            for row in wer.align(expected, written, lambda text: wer.characters(normalise(text), spaces=self._spaces))
        )
        return {
            "wer": words.rate,
            "cer": characters.rate,
            "hits": words.hits,
            "substitutions": words.substitutions,
            "insertions": words.insertions,
            "deletions": words.deletions,
            "words": words.words,
            "invented_words": words.invented,
            "normaliser": normalise.identity(),
        }
