"""Terms: lists read, terms found, recall and precision by hand, confusions named."""

from __future__ import annotations

from pathlib import Path

import pytest

from speechft import text
from speechft.errors import InputError
from speechft.score import tables, terms, wer
from speechft.score.term_rates import term_report
from speechft.text import Term

LIST = [
    Term(term="metformin", kind="drug"),
    Term(term="insulin glargine", variants=("Lantus",), kind="drug"),
    Term(term="insulin", kind="drug"),
    Term(term="120/80"),
    Term(term="kubectl"),
]
NORMALISER = text.get("jargon-safe", LIST)


def aligned(*pairs: tuple[str, str]) -> list[wer.Aligned]:
    references = {str(index): reference for index, (reference, _) in enumerate(pairs)}
    hypotheses = {str(index): hypothesis for index, (_, hypothesis) in enumerate(pairs)}
    return list(wer.align(references, hypotheses, NORMALISER.words))


def matcher() -> terms.Matcher:
    return terms.Matcher(LIST, NORMALISER)


def test_the_longest_term_wins_and_none_is_found_inside_another() -> None:
    found = matcher().find(NORMALISER.words("Lantus, insulin and insulin glargine at 120 / 80."))
    names = [matcher().names[number] for number, _, _ in found]
    assert names == ["insulin glargine", "insulin", "insulin glargine", "120/80"]


def test_terms_that_cannot_be_counted_are_named() -> None:
    listed = [Term(term=term) for term in ("5 mg", "-", "five mg", "— –", "C++")]
    found = terms.Matcher(listed, text.get("jargon-safe", listed))
    assert (found.names, found.uncounted) == (["5 mg", "C++"], ["-", "five mg", "— –"])
    told = tables.uncounted({"terms": {"uncounted": [*found.uncounted, *map(str, range(9))]}})
    assert told.startswith("Not counted, as they read as nothing or as another term: `-`, `five mg`, `— –`, `0`")
    assert told.endswith("`4`, and 4 more.")
    assert not tables.uncounted({"terms": {"uncounted": []}})


def report(before: list[wer.Aligned], after: list[wer.Aligned] | None, train_texts: list[str] | None = None) -> dict:
    general = aligned(("take the bus to town today", "take metformin to town today"))
    return term_report(
        before,
        after,
        matcher(),
        NORMALISER,
        ["s"] * len(before),
        general_before=aligned(("take the bus to town today", "take the bus to town today")),
        general_after=general if after is not None else None,
        train_texts=train_texts,
        resamples=200,
        seed=1,
    )


def test_recall_precision_and_false_alarms_by_hand() -> None:
    references = ["start metformin now", "metformin and insulin", "use kubectl", "no drug here"]
    before = aligned(
        *zip(references, ["start met for men now", "metformin", "use cube cuddle", "no drug here"], strict=True)
    )
    after = aligned(
        *zip(
            references,
            ["start metformin now", "metformin and insulin", "use kubectl", "no insulin here"],
            strict=True,
        )
    )
    result = report(before, after, train_texts=["metformin metformin", "metformin", "metformin metformin", "insulin"])
    assert result["before"]["recall"] == 1 / 4
    assert result["before"]["precision"] == 1.0
    assert result["after"]["recall"] == 1.0
    assert result["after"]["precision"] == 4 / 5  # insulin where nobody said it
    assert result["after"]["f1"] == pytest.approx(8 / 9)
    assert (result["before"]["seen_recall"], result["before"]["unseen_recall"]) == (1 / 3, 0.0)
    assert (result["before"]["frequent_said"], result["before"]["rare_said"]) == (2, 1)
    assert (result["before"]["false_alarms"], result["after"]["false_alarms"]) == (0, 1)
    assert result["after"]["false_alarms_per_1000_words"] == pytest.approx(1000 / 6)
    low, high = result["recall_delta_ci95"]
    assert low <= 0.75 <= high
    assert [row["term"] for row in result["per_term"]] == ["metformin", "insulin", "kubectl"]
    assert result["per_term"][0]["before"] == {
        "hits": 1,
        "written": 1,
        "recall": 0.5,
        "precision": 1.0,
        "f1": 2 / 3,
    }
    assert result["confusions"]["before"] == [
        {"term": "insulin", "written": "(nothing)", "count": 1},
        {"term": "kubectl", "written": "cube cuddle", "count": 1},
        {"term": "metformin", "written": "met for men", "count": 1},
    ]
    assert result["confusions"]["after"] == []


def test_no_interval_of_shares_reaches_beyond_one() -> None:
    """A system that hardly ever writes a term: few draws have a precision at all, and they lie far apart."""
    references = [*["use metformin now"] * 7, "use it now"]
    before = aligned(*zip(references, [*["use met for men"] * 6, "use metformin now", "use metformin"], strict=True))
    after = aligned(*zip(references, [*["use metformin now"] * 6, "use insulin", "use metformin now"], strict=True))
    result = report(before, after)
    intervals = [value for name, value in result.items() if name.endswith("_ci95") and "_wer_" not in name]
    assert len(intervals) == 9  # recall, precision and F1, each before, after and their difference
    assert all(-1.0 <= low <= high <= 1.0 for low, high in intervals)


def test_one_system_alone_and_unknown_training() -> None:
    result = report(aligned(("use kubectl", "use kubectl")), None)
    assert result["value"]["recall"] == 1.0
    assert result["value"]["seen_recall"] is None
    assert result["trained_terms"] is None


def test_saying_a_term_twice_and_writing_it_once_is_half() -> None:
    result = report(aligned(("insulin or insulin", "insulin or cats")), None)
    assert (result["value"]["recall"], result["value"]["precision"]) == (0.5, 1.0)


def test_a_confusion_among_wrong_neighbours_is_what_looks_most_like_the_term() -> None:
    rows = aligned(("patient takes metformin daily today", "patients take met for men day today"))
    assert terms.confusions(rows, matcher()) == [{"term": "metformin", "written": "met for men", "count": 1}]


def test_word_errors_on_terms_and_on_the_rest() -> None:
    (row,) = aligned(("give insulin glargine at noon", "gave insulin glargine insulin at"))
    # glargine's neighbour: `insulin` is inserted (a term word), `give` and `noon` are wrong (the rest).
    assert terms.term_word_errors(row, matcher()) == (1, 2, 2, 3)


def test_mining_finds_what_general_text_lacks() -> None:
    domain = ["restart the kubelet and the pod", "the kubelet needs a pod", "a kubelet on the pod"] * 2
    general = ["the cat and a dog on the mat needs the rest"] * 40
    mined = terms.mine(domain, general, text.get("jargon-safe"), min_count=3)
    assert [term.term for term in mined] == ["kubelet", "pod"]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        (
            "a.jsonl",
            '{"term": "furosemide", "variants": ["frusemide"], "kind": "drug", "x": 1}\n\n{"term": "C++"}\n',
        ),
        ("a.csv", "\ufeffterm,variants,kind\r\nfurosemide,frusemide|,drug\r\nC++,,\r\n"),
        ("a.tsv", "term\tvariants\tkind\nfurosemide\tfrusemide\tdrug\nC++\t\t\n"),
    ],
)
def test_term_lists_are_read(tmp_path: Path, name: str, content: str) -> None:
    (tmp_path / name).write_text(content, encoding="utf-8", newline="")
    assert terms.read_terms(tmp_path / name) == [
        Term(term="furosemide", variants=("frusemide",), kind="drug"),
        Term(term="C++"),
    ]


def test_plain_text_lists_are_read(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("# drugs\nfurosemide\n\n  C++ \n#12\n")
    assert [term.term for term in terms.read_terms(tmp_path / "a.txt")] == ["furosemide", "C++", "#12"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", '{"term": "a"}\n{"term":', r"a\.jsonl:2: the line is not valid JSON"),
        ("a.jsonl", '{"name": "a"}\n', r"a\.jsonl:1: `term` must be text, got None"),
        ("a.jsonl", '{"term": "a", "variants": "b"}\n', r"a\.jsonl:1: `variants` must be a list"),
        ("a.jsonl", '{"term": "a"}\n{"term": "A"}\n', r"a\.jsonl:2: the term 'A' was given in line 1"),
        ("a.csv", "name\na\n", r"a\.csv:1: the heading has no `term`, only name"),
        ("a.txt", "\n", r"a\.txt: the term list holds no terms"),
    ],
)
def test_broken_term_lists_are_named(tmp_path: Path, name: str, content: str, message: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(InputError, match=message):
        terms.read_terms(tmp_path / name)


def test_a_missing_term_list_is_an_input_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        terms.read_terms(tmp_path / "none.txt")


def test_a_spelling_belongs_to_one_term(tmp_path: Path) -> None:
    path = tmp_path / "terms.jsonl"
    path.write_text('{"term": "A1", "variants": ["foo"]}\n{"term": "B1", "variants": ["Foo"]}\n')
    with pytest.raises(InputError, match="terms.jsonl:2: 'Foo' is a spelling of the term in line 1 already"):
        terms.read_terms(path)
