"""The score as Markdown that can be pasted into a pull request: every number with the words it rests on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

RATE_NAMES = {
    "wer": "word errors",
    "cer": "character errors",
    "raw_wer": "word errors, raw text",
    "whisper_wer": "word errors, Whisper's normaliser",
    "jargon_safe_wer": "word errors, jargon-safe normaliser",
    "raw_cer": "character errors, raw text",
    "whisper_cer": "character errors, Whisper's normaliser",
    "jargon_safe_cer": "character errors, jargon-safe normaliser",
    "general_wer": "word errors, general speech",
    "general_cer": "character errors, general speech",
    "general_raw_wer": "word errors, general speech, raw text",
    "general_whisper_wer": "word errors, general speech, Whisper's normaliser",
    "general_jargon_safe_wer": "word errors, general speech, jargon-safe normaliser",
    "general_raw_cer": "character errors, general speech, raw text",
    "general_whisper_cer": "character errors, general speech, Whisper's normaliser",
    "general_jargon_safe_cer": "character errors, general speech, jargon-safe normaliser",
}
TERM_NAMES = {
    "recall": "term recall",
    "precision": "term precision",
    "f1": "term F1",
    "seen_recall": "recall of terms seen in training",
    "unseen_recall": "recall of unseen terms",
    "rare_recall": "recall of terms rare in training",
    "frequent_recall": "recall of terms frequent in training",
    "term_wer": "word errors on term words",
    "other_wer": "word errors on other words",
}
TERM_SIZES = {
    **{f"{part}_recall": (f"{part}_said", "times said") for part in ("seen", "unseen", "rare", "frequent")},
    "term_wer": ("term_words", "words"),
    "other_wer": ("other_words", "words"),
}
SURVIVAL_NAMES = {
    "loops": "rows with a loop",
    "early_stops": "rows that stop early",
    "words_on_silence": "silent rows with words",
    "wrong_script": "rows in the wrong script",
    "lost_punctuation": "rows that lost all punctuation",
    "lost_case": "rows that lost all capitals",
}
COUNT_NAMES = {
    "hits": "right",
    "substitutions": "substituted",
    "deletions": "deleted",
    "insertions": "inserted",
    "invented": "written on silence",
}
CONFUSIONS_SHOWN = 8
WORST_SHOWN = 5
SLICES_SHOWN = 40


def markdown(result: dict[str, Any]) -> str:
    """Return the result of `score_run` as Markdown.

    Tables: rates (with 95 % intervals and words), terms, slices, what else changed, and the rows that got
    worse first. A rate that could not be measured is shown as `-`.
    """
    compared = "verdict" in result
    parts = [result["verdict"]["sentence"]] if compared else []
    parts += [_rates(result, compared=compared), counts(result)]
    for make in (_terms, _slices, _survival):
        table = make(result, compared=compared)
        if table:
            parts.append(table)
    if compared:
        rows, segments = result["rows"], result["mapsswe"]
        statistic = segments["statistic"]
        score = "all differ alike" if statistic is None else f"z = {statistic:.2f}"
        parts.append(
            f"{rows['wins']} rows better, {rows['losses']} worse, {rows['ties']} the same; matched-pairs "
            f"segment test over {segments['segments']} segments: {score}, p = {segments['p_value']:.2g}."
        )
        parts.append(_worst(result))
    normaliser, groups = result["normaliser"], result["groups"]
    parts.append(
        f"Normaliser {normaliser['name']} {normaliser['version']} ({normaliser['hash']}); "
        f"{groups['count']} {groups['what']}, intervals drawn over {groups['drawn']}."
    )
    return "\n\n".join(part for part in parts if part) + "\n"


def counts(result: Mapping[str, Any]) -> str:
    """Return the counts behind the main rate: what was right, substituted, deleted, inserted, and invented."""
    found = result["counts"]
    sides = [label for label in ("value", "before", "after") if label in found]
    rows = [
        ["" if label == "value" else label, *(f"{found[label][kind]:,}" for kind in COUNT_NAMES)] for label in sides
    ]
    return table(["", *COUNT_NAMES.values()], rows)


def _rates(result: dict[str, Any], *, compared: bool) -> str:
    rows = []
    for key, name in RATE_NAMES.items():
        rate = result.get(key)
        if rate is None:
            continue
        size = f"{rate.get('characters', rate['words']):,}" + (" characters" if key.endswith("cer") else "")
        rows.append([name, *_cells(rate, compared=compared), size])
    return table([*_columns("", compared=compared), "words"], rows)


def term_rates(result: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any], str]]:
    """The term rates of a score that could be measured: each one's key, the rate as others are told, what it is over.

    A rate is a `value` with its `ci95`, or, of two systems, what `before`, `after`, `delta` and theirs are.
    """
    terms = result["terms"]
    labels = [label for label in ("value", "before", "after") if label in terms]
    for key in TERM_NAMES:
        rate: dict[str, Any] = {label: terms[label][key] for label in labels}
        if all(value is None for value in rate.values()):
            continue
        rate |= {end: terms.get(f"{key}_{end}") for end in ("ci95", "before_ci95", "after_ci95", "delta_ci95")}
        known = "before" in rate and None not in (rate["before"], rate["after"])
        rate["delta"] = rate["after"] - rate["before"] if known else None
        counted, unit = TERM_SIZES.get(key, ("said", "times said"))
        size = count(terms[labels[0]][counted], unit)
        if key == "precision":
            size = " and ".join(f"{terms[label]['written']:,}" for label in labels) + " times written"
        yield key, rate, size


def _terms(result: dict[str, Any], *, compared: bool) -> str:
    terms = result.get("terms")
    if not terms or not terms["said"]:
        return uncounted(result)
    rows = [[TERM_NAMES[key], *_cells(rate, compared=compared), size] for key, rate, size in term_rates(result)]
    labels = ("before", "after") if compared else ("value",)
    alarms = [terms[label]["false_alarms"] for label in labels]
    if None not in alarms:
        cells = ["false alarms on general speech", *(str(alarm) for alarm in alarms)]
        rows.append([*cells, *([f"{alarms[1] - alarms[0]:+d}"] if compared else []), _general_words(result)])
    text = table([*_columns("", compared=compared), "of"], rows)
    confusions = terms["confusions"][labels[-1]][:CONFUSIONS_SHOWN]
    if confusions:
        listed = "; ".join(f"`{entry['term']}` as `{entry['written']}` ({entry['count']})" for entry in confusions)
        text += f"\n\nStill missed: {listed}." if compared else f"\n\nMissed: {listed}."
    return f"{text}\n\n{uncounted(result)}".rstrip()


def uncounted(result: Mapping[str, Any], *, mark: str = "`") -> str:
    """Which listed terms the score could not count, each between `mark`s; nothing where it could count all."""
    left = (result.get("terms") or {}).get("uncounted") or []
    if not left:
        return ""
    named = ", ".join(f"{mark}{term}{mark}" for term in left[:CONFUSIONS_SHOWN])
    more = f", and {len(left) - CONFUSIONS_SHOWN:,} more" if len(left) > CONFUSIONS_SHOWN else ""
    return f"Not counted, as they read as nothing or as another term: {named}{more}."


def _general_words(result: dict[str, Any]) -> str:
    general = result.get("general_wer")
    return count(general["words"], "words") if general else "-"


def _slices(result: dict[str, Any], *, compared: bool) -> str:
    found = result.get("slices") or []
    rows = []
    for entry in found[:SLICES_SHOWN]:
        name = f"{entry['by']}: {entry['value']}"
        if compared:
            mark = " *" if entry["significant"] else ""
            cells = [percent(entry["before"]), percent(entry["after"])]
            rows.append([name, *cells, _difference(entry["delta"], entry["delta_ci95"]) + mark, f"{entry['words']:,}"])
        else:
            rows.append([name, with_interval(entry["rate"], entry["ci95"]), f"{entry['words']:,}"])
    if not rows:
        return ""
    unit = "characters" if result.get("rate") == "cer" else "words"
    text = table([*_columns("slice", compared=compared), unit], rows)
    if len(found) > SLICES_SHOWN:
        text += f"\n\n{len(found) - SLICES_SHOWN} more slices are in score.json."
    if compared:
        text += "\n\n\\* a real difference, corrected for the number of slices (Holm)."
    notes = [_gap(entry, unit, compared=compared) for entry in result.get("gaps") or []]
    return text + ("\n\n" + " ".join(notes) if notes else "")


def _gap(entry: dict[str, Any], unit: str, *, compared: bool) -> str:
    suffix = "_after" if compared else ""
    worst, best, gap = entry[f"worst{suffix}"], entry[f"best{suffix}"], entry[f"gap{suffix}"]
    text = (
        f"Worst {entry['by']}: {worst['value']} ({percent(worst['rate'])}, {worst['words']:,} {unit}), "
        f"best {best['value']} ({percent(best['rate'])}, {best['words']:,} {unit}), gap {100 * gap:.1f} points"
    )
    return f"{text} ({100 * entry['gap_before']:.1f} before)." if compared else f"{text}."


def _survival(result: dict[str, Any], *, compared: bool) -> str:
    rows = []
    for key, name in SURVIVAL_NAMES.items():
        entry = result["survival"][key]
        labels = ("before", "after") if compared else ("value",)
        if not entry["rows"] or not any(entry[label] for label in labels):
            continue
        rows.append([name, *_cells(entry, compared=compared), f"{entry['rows']:,}"])
    return table([*_columns("", compared=compared), "rows"], rows) if rows else ""


def _worst(result: dict[str, Any]) -> str:
    rows = [
        [
            row["id"],
            row["reference"],
            row["before"],
            row["after"],
            f"{row['errors']['before']} to {row['errors']['after']}",
        ]
        for row in result["worst_rows"][:WORST_SHOWN]
    ]
    if not rows:
        return ""
    return "Rows that got worse:\n\n" + table(["row", "reference", "before", "after", "errors"], rows, numbers=False)


def table(heading: list[str], rows: list[list[str]], *, numbers: bool = True) -> str:
    """Return a Markdown table: the first column to the left, and the others too unless they are numbers."""
    marks = [":--", *(["--:" if numbers else ":--"] * (len(heading) - 1))]
    lines = [heading, marks, *([_cell(cell) for cell in row] for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def percent(rate: float | None) -> str:
    """Write a fraction as a percentage, or `-`."""
    return "-" if rate is None else f"{100 * rate:.1f} %"


def count(number: int, unit: str) -> str:
    """Write a number of things, such as `1 word` and `1,234 words`."""
    return f"{number:,} {unit if number != 1 else unit.removesuffix('s')}"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")


def _columns(first: str, *, compared: bool) -> list[str]:
    return [first, "before", "after", "difference in points (95 %)"] if compared else [first, "rate (95 %)"]


def _cells(rate: Mapping[str, Any], *, compared: bool) -> list[str]:
    """A rate with its interval; of two systems each one's, and the difference."""
    if not compared:
        return [with_interval(rate["value"], rate["ci95"])]
    sides = [with_interval(rate[side], rate[f"{side}_ci95"]) for side in ("before", "after")]
    return [*sides, _difference(rate["delta"], rate["delta_ci95"])]


def with_interval(rate: float | None, ci95: list[float] | None) -> str:
    """Write a fraction as a percentage with its interval, if it has one."""
    if rate is None or ci95 is None:
        return percent(rate)
    return f"{percent(rate)} ({100 * ci95[0]:.1f} to {100 * ci95[1]:.1f})"


def _difference(delta: float | None, ci95: list[float] | None) -> str:
    if delta is None:
        return "-"
    text = f"{100 * delta:+.1f}"
    return f"{text} ({100 * ci95[0]:+.1f} to {100 * ci95[1]:+.1f})" if ci95 else text
