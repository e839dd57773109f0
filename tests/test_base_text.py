"""The text that `nano` learned from and is measured on: no demo term in either, and no sentence in both."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import everyday_grammar
import make_base_data
import pytest

PROJECT = Path(__file__).resolve().parent.parent
TERMS = PROJECT / "manifests" / "clinical" / "terms.jsonl"
EVERYDAY = PROJECT / "manifests" / "base" / "everyday.jsonl"
COUNT = 2_500  # sentences of each kind
SEED = 1  # of make_base_data's own command


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.fixture(scope="module")
def forms() -> set[str]:
    """Every way a term is written or spoken, lower-cased."""
    made = set()
    for row in rows(TERMS):
        made |= {form.lower() for form in (row["term"], row.get("spoken", ""), *row.get("variants", [])) if form}
    return made


@pytest.fixture(scope="module")
def generated() -> list[str]:
    """Sentences and loose words, drawn as `make_base_data` draws them."""
    avoid = make_base_data.demo_terms(TERMS)
    sentences = everyday_grammar.sentences(COUNT, seed=SEED, avoid=avoid)
    return sentences + everyday_grammar.sentences(COUNT, seed=SEED + 2, avoid=avoid, words_share=1.0)


def found(forms: Iterable[str], text: Iterable[str]) -> list[str]:
    """Forms that stand in the text as whole words; texts do not run into each other."""
    one = "|".join(re.escape(form) for form in sorted(forms, key=len, reverse=True))
    return sorted(set(re.findall(rf"(?<![\w/-])(?:{one})(?![\w/-])", "\n".join(text).lower())))


def hand_written() -> set[str]:
    """The words that stand in the generator's own source: categories, and every literal of its templates."""
    source = Path(everyday_grammar.__file__).read_text(encoding="utf-8")
    return set(re.findall(r"[a-z']+", source.lower()))


def test_the_search_finds_whole_words_only(forms: set[str]) -> None:
    assert found(forms, ["She takes Apixaban, 5 mg.", "give q6h"]) == ["5 mg", "apixaban", "q6h"]
    assert found(forms, ["apixabans", "15 mg", "he had five", "milligrams of it"]) == []
    assert len(forms) > 120


def test_the_script_avoids_every_form(forms: set[str]) -> None:
    assert make_base_data.demo_terms(TERMS) == forms


def test_no_demo_term_is_in_the_generated_text(generated: list[str], forms: set[str]) -> None:
    assert len(generated) == 2 * COUNT
    assert found(forms, generated) == []


def test_text_without_the_list_of_terms_would_hold_some(forms: set[str]) -> None:
    common = frozenset({"the", "one"})
    assert found(common, everyday_grammar.sentences(50, seed=SEED)) == ["one", "the"]
    assert found(common, everyday_grammar.sentences(50, seed=SEED, avoid=common)) == []


def test_no_demo_term_is_in_the_vocabulary_that_is_drawn_from(forms: set[str]) -> None:
    frequent = everyday_grammar.lexicon()[0]
    assert len(frequent) > 10_000
    in_the_list = found(forms, frequent)
    # `sentences` throws away what holds a form of `avoid`, so a frequent word that is a term is drawn and never kept.
    kept = everyday_grammar.sentences(20, seed=SEED, avoid=frozenset(set(frequent[:200]) | set(in_the_list)))
    assert found(in_the_list or ["\n"], kept) == []
    assert set(in_the_list) <= make_base_data.demo_terms(TERMS)
    assert found(forms, hand_written()) == []


@pytest.fixture(scope="module")
def everyday() -> list[dict[str, Any]]:
    return rows(EVERYDAY)


def test_the_everyday_sentences_are_300_different_rows(everyday: list[dict[str, Any]]) -> None:
    assert len(everyday) == 300
    assert all({"id", "text"} <= set(row) for row in everyday)
    assert len({row["id"] for row in everyday}) == 300
    assert len({_plain(row["text"]) for row in everyday}) == 300


def test_the_generator_makes_none_of_the_everyday_sentences(
    everyday: list[dict[str, Any]], generated: list[str]
) -> None:
    made = {_plain(sentence) for sentence in generated}
    assert [row["text"] for row in everyday if _plain(row["text"]) in made] == []


def test_the_everyday_sentences_hold_many_words_and_no_demo_term(
    everyday: list[dict[str, Any]], forms: set[str]
) -> None:
    texts = [row["text"] for row in everyday]
    assert len({word for text in texts for word in _plain(text).split()}) >= 1_500
    assert found(forms, texts) == []


def _plain(text: str) -> str:
    return " ".join(re.findall(r"[a-z0-9']+", text.lower()))
