"""`speechft score` on anybody's output: JSON Lines, CSV or .trn in; score.json, .trn and a table out."""

from __future__ import annotations

import dataclasses
import functools
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from speechft import files, manifest
from speechft import text as text_rules
from speechft.errors import InputError
from speechft.manifest import Utterance
from speechft.score import nist, tables, wer
from speechft.score.rows import language_of
from speechft.score.score import score_run
from speechft.score.terms import read_terms

log = logging.getLogger(__name__)

WRITTEN = ("score.json", "table.md", "rows.jsonl", "reference.trn", "before.trn", "after.trn")


def run(
    reference: str | Path,
    hypothesis_a: str | Path,
    hypothesis_b: str | Path | None = None,
    *,
    normaliser: str = text_rules.DEFAULT,
    terms: str | Path | None = None,
    general: Sequence[str | Path] | None = None,
    train: str | Path | None = None,
    out: str | Path | None = None,
    smallest_gain: float | None = None,
    forgetting_budget: float | None = None,
    language: str | None = None,
    resamples: int = 10_000,
    seed: int = 1,
) -> dict[str, Any]:
    """Score one or two files of hypotheses against a file of references.

    Files are JSON Lines, CSV or TSV with `id` and `text` (hypotheses may be in `hypothesis` or `pred_text`
    instead), or NIST .trn, told by their suffix. Rows are joined by id. Everything else a reference row says
    (speaker, accent, duration, condition and so on) is used for groups and slices.

    Args:
        reference: the references.
        hypothesis_a: the first system's output ("before").
        hypothesis_b: the second system's output ("after"), to compare.
        normaliser: of the main numbers.
        terms: a term list.
        general: the same of general speech: its references, and as many files of hypotheses.
        train: what the second system was trained on, to tell seen from unseen terms; mined where no list is given.
        out: a folder for `score.json`, `table.md`, `rows.jsonl` and `reference.trn`, `before.trn`, `after.trn`.
        smallest_gain: the smallest difference that matters, a fraction.
        forgetting_budget: what general speech may lose, a fraction.
        language: of rows that do not name theirs, such as "de"; English unless said.
        resamples: bootstrap draws.
        seed: of the draws.

    Returns:
        What `score_run` returns, with the files' names and hashes under `inputs` and the Markdown `table`.

    Raises:
        InputError: a file cannot be read, or the ids do not fit together.
    """
    given = [reference, hypothesis_a, hypothesis_b, terms, train, *(general or ())]
    written = {(Path(out) / name).resolve() for name in WRITTEN} if out is not None else set()
    if lost := next((path for path in given if path is not None and Path(path).resolve() in written), None):
        raise InputError(f"--out {out}: {lost} would be written over; choose another folder")
    rows = read_references(reference)
    if train is not None and terms is None and general is None:
        log.warning("%s: terms are not mined without general speech to compare with: give --general, or --terms", train)
    listed = read_terms(terms) if terms is not None else None
    before = _with_hypotheses(rows, hypothesis_a)
    after = _with_hypotheses(rows, hypothesis_b) if hypothesis_b is not None else None
    systems = 1 if after is None else 2
    if general is not None and len(general) != 1 + systems:
        raise InputError(f"general speech needs references and {systems} hypothesis files, got {len(general)} files")
    general_rows = read_references(general[0]) if general else []
    heard = [_with_hypotheses(general_rows, path) for path in general[1:]] if general else []
    result = score_run(
        before,
        after,
        general_before=heard[0] if heard else None,
        general_after=heard[1] if len(heard) > 1 else None,
        normaliser=normaliser,
        terms=listed,
        train_texts=[row.text or "" for row in read_references(train)] if train is not None else None,
        language=language,
        smallest_gain=smallest_gain,
        forgetting_budget=forgetting_budget,
        resamples=resamples,
        seed=seed,
    )
    named = {
        "reference": reference,
        "hypothesis_a": hypothesis_a,
        "hypothesis_b": hypothesis_b,
        "terms": terms,
        "train": train,
        **dict(zip(("general_reference", "general_a", "general_b"), general or (), strict=False)),
    }
    result["inputs"] = {
        name: {"path": str(path), "sha256": files.sha256(Path(path))}
        for name, path in named.items()
        if path is not None
    }
    if out is not None:
        chosen = text_rules.get(normaliser, listed, language=language_of(before, language))
        write(Path(out), result, before, after, chosen)
    return result | {"table": tables.markdown(result)}


def is_worse(result: dict[str, Any]) -> bool:
    """Say whether `--fail-if-worse` should fail: worse on the test set, or general speech over its budget.

    General speech that is surely worse, and not surely within its budget, counts too.
    """
    verdict = result.get("verdict")
    if verdict is None:
        return False
    general = result.get("general_cer" if result["rate"] == "cer" else "general_wer")
    sure = bool(general and general["delta_ci95"] and general["delta_ci95"][0] > 0)
    return bool(
        verdict["outcome"] == "worse"
        or verdict["general"] == "over_budget"
        or (verdict["general"] == "unsure" and sure)
    )


def write(
    folder: Path,
    result: dict[str, Any],
    before: list[Utterance],
    after: list[Utterance] | None,
    normaliser: text_rules.Normaliser,
) -> None:
    """Write `score.json`, `table.md`, counts by row, and the normalised texts as .trn files for NIST's tools."""
    speakers = {row.id: row.speaker or row.recording for row in before}
    texts = {"reference": {row.id: normaliser(row.text or "") for row in before}}
    for name, rows in (("before", before), ("after", after)):
        if rows is not None:
            texts[name] = {row.id: normaliser(row.hypothesis or "") for row in rows}
    for name, lines in texts.items():
        nist.write_trn(folder / f"{name}.trn", lines, speakers)
    by_character = result["rate"] == "cer"
    files.write_jsonl(folder / "rows.jsonl", _counts_by_row(texts, by_character=by_character))
    with files.atomic_write(folder / "table.md") as file:
        file.write(tables.markdown(result))
    files.write_json(folder / "score.json", result)


def _counts_by_row(texts: dict[str, dict[str, str]], *, by_character: bool) -> Iterator[dict[str, Any]]:
    """Hits, substitutions, insertions, deletions of each row, as scored: `{id, before: {...}, after: {...}}`."""
    split = functools.partial(wer.characters, spaces=False) if by_character else str.split
    names = [name for name in ("before", "after") if name in texts]
    sides = [wer.align(texts["reference"], texts[name], split) for name in names]
    for rows in zip(*sides, strict=True):
        yield {"id": rows[0].id, **{n: dataclasses.asdict(row.errors) for n, row in zip(names, rows, strict=True)}}


def read_references(path: str | Path) -> list[Utterance]:
    """Read references: rows with a text.

    Raises:
        InputError: the file cannot be read, or a row has no text.
    """
    path = Path(path)
    if path.suffix.lower() == ".trn":
        return [_trn_row(row_id, text) for row_id, text in nist.read_trn(path).items()]
    rows = manifest.read(path, need_audio=False)
    if not rows:
        raise InputError(f"{path}: has no rows; give references with id and text")
    for row in rows:
        if row.text is None:
            raise InputError(f'{path}: row "{row.id}" has no text; give the reference (in JSON Lines, "" is silence)')
    return rows


def read_hypotheses(path: str | Path) -> dict[str, str]:
    """Read hypotheses: id to text, from `hypothesis` or NeMo's `pred_text` if any row has one, else from `text`.

    A row with neither is an empty output, since CSV cannot tell the two apart.

    Raises:
        InputError: the file cannot be read, an id comes twice, or no row has either key.
    """
    path = Path(path)
    if path.suffix.lower() == ".trn":
        return nist.read_trn(path)
    rows = [
        dataclasses.replace(row, hypothesis=str(row.extra.get("pred_text") or ""))
        if row.hypothesis is None and "pred_text" in row.extra
        else row
        for row in manifest.read(path, need_audio=False)
    ]
    if rows and all(row.hypothesis is None and row.text is None for row in rows):
        raise InputError(f"{path}: no row has `hypothesis` or `text`; give the recogniser's output in one of them")
    has_hypotheses = any(row.hypothesis is not None for row in rows)
    if bare := [row.id for row in rows if has_hypotheses and row.hypothesis is None and row.text is not None]:
        log.warning(
            "%s: %s of %s rows have text but no hypothesis (such as %s); they count as empty outputs",
            path, f"{len(bare):,}", f"{len(rows):,}", bare[0],
        )  # fmt: skip
    return {row.id: (row.hypothesis if has_hypotheses else row.text) or "" for row in rows}


def _with_hypotheses(rows: list[Utterance], path: str | Path) -> list[Utterance]:
    texts = read_hypotheses(path)
    known = {row.id for row in rows}
    extra = [row_id for row_id in texts if row_id not in known]
    missing = [row.id for row in rows if row.id not in texts]
    if missing or extra:
        faults = []
        if missing:
            faults.append(f"{len(missing)} references have no hypothesis ({', '.join(missing[:3])})")
        if extra:
            faults.append(f"{len(extra)} hypotheses have no reference ({', '.join(extra[:3])})")
        raise InputError(f"{path}: {' and '.join(faults)}; rows are joined by id, so give both the same")
    return [dataclasses.replace(row, hypothesis=texts[row.id]) for row in rows]


def _trn_row(row_id: str, text: str) -> Utterance:
    """Return a .trn row; the speaker is what stands before the last `-` or `_` of its id, as for sclite."""
    position = max(row_id.rfind("-"), row_id.rfind("_"))
    speaker = row_id[:position] if position > 0 else None
    return Utterance(id=row_id, audio_filepath=None, text=text, speaker=speaker)
