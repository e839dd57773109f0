"""Lines of the report's tables: numbers in words, the same on the page and in the Markdown."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from speechft.score.slices import CLEAN
from speechft.score.tables import COUNT_NAMES, RATE_NAMES, SURVIVAL_NAMES, TERM_NAMES, count, term_rates
from speechft.score.verdict import percent, points

NONE = "-"
SMALLEST_P = 0.001  # smaller ones are called smaller
OUTCOMES = {
    "better": "Better",
    "worse": "Worse",
    "no_difference": "No better",
    "not_enough_audio": "Too little test audio to tell",
}
GENERAL_OUTCOMES = {
    "within_budget": "General speech kept",
    "over_budget": "General speech over budget",
    "unsure": "General speech: not sure",
    "not_tested": "General speech not tested",
}
SLICE_NAMES = {
    "condition": "Condition",
    "accent": "Accent",
    "speaker": "Speaker",
    "duration": "Duration",
    "snr": "Noise level",
    "domain": "Domain",
}
SHARED = {
    "speaker": "a speaker of",
    "text": "a text of",
    "near_text": "nearly a text of",
    "audio": "the same sound as rows of",
    "segment": "an overlapping segment with",
}
BUDGET_KEPT = {
    "within_budget": "It was kept.",
    "over_budget": "It was exceeded.",
    "unsure": "The interval does not tell whether it was kept.",
}


@dataclass(frozen=True, kw_only=True)
class Line:
    """One line of a before/after table; `change` is better, worse, or "" when chance could explain it."""

    name: str
    before: str
    after: str
    delta: str
    of: str
    before_ci95: str = ""
    after_ci95: str = ""
    delta_ci95: str = ""
    change: str = ""
    values: Mapping[str, Any] | None = None


def rates(content: Mapping[str, Any]) -> list[Line]:
    """Error rates: the main one first, general speech last."""
    main = content.get("rate", "wer")
    found = []
    for name in [main, *(name for name in RATE_NAMES if name != main)]:
        rate = content.get(name)
        if not rate or rate.get("before") is None:
            continue
        found.append(_line(RATE_NAMES[name], rate, of=_size(name, rate)))
    return found


def counts(content: Mapping[str, Any]) -> list[tuple[str, list[str]]]:
    """For each system how many words were right, substituted and so on (as `tables.COUNT_NAMES` lists them)."""
    return [(side, [f"{content['counts'][side][kind]:,}" for kind in COUNT_NAMES]) for side in ("before", "after")]


def slices(content: Mapping[str, Any]) -> list[tuple[str, list[Line]]]:
    """Slices by what they divide by; a change counts only when it survives correction for their number."""
    groups: dict[str, list[Line]] = {}
    for entry in content.get("slices") or []:
        line = _line(
            str(entry["value"]), entry, of=count(entry["words"], _unit(content)), tested="significant" in entry
        )
        groups.setdefault(entry["by"], []).append(line)
    return list(groups.items())


def terms(content: Mapping[str, Any]) -> list[Line]:
    """Recall, precision and errors of terms, and false alarms on general speech."""
    report = content.get("terms")
    if not report or not report.get("said"):
        return []
    found = [
        _line(TERM_NAMES[key], rate, of=size, higher_is_better=not key.endswith("wer"))
        for key, rate, size in term_rates(content)
    ]
    alarms = [report[side]["false_alarms"] for side in ("before", "after")]
    if None not in alarms:
        general = content.get("general_wer")
        found.append(
            Line(
                name="false alarms on general speech",
                before=str(alarms[0]),
                after=str(alarms[1]),
                delta=f"{alarms[1] - alarms[0]:+d}" if alarms[1] != alarms[0] else "0",
                of=count(general["words"], "words") if general else NONE,
            )
        )
    return found


def survival(content: Mapping[str, Any]) -> list[Line]:
    """Rows that loop, stop early and so on; only what could show in some row."""
    found = []
    for key, entry in (content.get("survival") or {}).items():
        if not entry.get("rows") or entry.get("before") is None or entry.get("after") is None:
            continue
        found.append(_line(SURVIVAL_NAMES.get(key, key.replace("_", " ")), entry, of=count(entry["rows"], "rows")))
    return found


def general_rate(content: Mapping[str, Any]) -> str:
    """The rate of general speech that the verdict weighs: of words, or of characters where the main rate is."""
    return "general_cer" if content.get("rate") == "cer" and content.get("general_cer") else "general_wer"


def general(content: Mapping[str, Any]) -> Line:
    """General speech, coloured by its budget: a loss inside the budget is no fault, and no gain."""
    name = general_rate(content)
    line = _line("general speech", content[name], of=_size(name, content[name]))
    verdict = content["verdict"]["general"]
    inside = "better" if line.change == "better" else ""
    change = {"over_budget": "worse", "within_budget": inside}.get(verdict, "unsure")
    return dataclasses.replace(line, change=change)


def headlines(content: Mapping[str, Any]) -> list[tuple[str, Line]]:
    """The numbers beside the verdict: the main rate, general speech, recall of terms."""
    found = [(line.name, line) for line in rates(content)[:1]]
    if content.get("general_wer"):
        found.append((RATE_NAMES[general_rate(content)], general(content)))
    return found + [(line.name, line) for line in terms(content) if line.name == TERM_NAMES["recall"]]


def charted(content: Mapping[str, Any]) -> list[Line]:
    """What the bars show: the main rate, the test set's other conditions, general speech."""
    shown = rates(content)[:1]
    for by, group in slices(content):
        if by == "condition":
            shown += [
                dataclasses.replace(line, name=f"{shown[0].name}, condition {line.name}")
                for line in group
                if line.name != CLEAN
            ]
    return shown + ([general(content)] if content.get("general_wer") else [])


def all_slices(content: Mapping[str, Any]) -> list[Line]:
    """Every slice's line."""
    return [line for _, group in slices(content) for line in group]


def recall(entry: Mapping[str, Any], side: str) -> str:
    """How often a term was right: "2 of 3"; for terms never said, how often it was written all the same."""
    if entry["said"]:
        return f"{entry[side]['hits']} of {entry['said']}"
    return f"written {entry[side]['written']}x"


def share(entry: Mapping[str, Any], side: str) -> float:
    """What a term's column is sorted by: its recall; terms never said come last."""
    return entry[side]["hits"] / entry["said"] if entry["said"] else -1.0


def sets(content: Mapping[str, Any]) -> list[str]:
    """Names of the sets that the shown rows belong to, in order of appearance."""
    return list(dict.fromkeys(row["set"] for row in content["examples"]["rows"]))


def leak_sentence(leak: Mapping[str, Any], allowed: Sequence[str]) -> str:
    """One overlap between what was learned from and what was held out, and why it did not stop the run."""
    why = leak.get("excuse") or f"allowed by data.allow_leaks = {', '.join(allowed)}"
    shared = SHARED.get(leak["kind"], leak["kind"])
    return (
        f"{leak['rows']:,} {leak['held_out']} rows have {shared} {leak['learned']} ({why}), so results on "
        f"{leak['held_out']} may look better than they are."
    )


def notes(content: Mapping[str, Any]) -> list[str]:
    """Sentences a reader must see next to the verdict: synthetic speech, leaks, few speakers, rejected rows."""
    found = []
    if content.get("synthetic"):
        share = "All" if content["synthetic_rows"] == content["reported_rows"] else f"{content['synthetic_rows']:,} of"
        found.append(
            f"{share} {content['reported_rows']:,} reported rows are synthetic speech, made by a voice "
            "synthesiser. These numbers show what changed for such voices; test on recorded people before "
            "relying on them."
        )
    found += [leak_sentence(leak, content["leaks_allowed"]) for leak in content.get("leaks") or []]
    groups = content["groups"]
    if groups["what"] == "rows":
        found.append(
            "No test row names its speaker, so each counts as one of its own: where few people speak, the intervals "
            "are narrower than they should be, and nothing tells whether a speaker was trained on. Name `speaker` in "
            "the manifest."
        )
    elif groups["drawn"] == "rows":
        found.append(
            f"There are only {groups['count']} {groups['what']} in the test set, so the intervals speak for these "
            f"{groups['what']} only."
        )
    choice = content.get("choice") or {}
    if choice.get("inside_budget") is False:
        found.append(
            f"Nothing that was tried kept to the {_limit(choice)} on general dev speech; what forgot least was taken."
        )
    return found


def how_far(content: Mapping[str, Any]) -> str:
    """What was tried on the speech that chooses, what was chosen, and whether it kept to its part of the budget."""
    choice = content["choice"]
    tried = "Weights between the base (0) and the tuned model (1)"
    if content["model"]["strategy"] == "prompt":
        tried = "Shares of the longest prompt, filled with terms (0 is none)"
    text = f"{tried}, tried on dev speech; the reported speech took no part. Chosen: {choice['alpha']:g}"
    if choice.get("limit") is not None:
        text += f", {'inside' if choice['inside_budget'] else 'outside'} the {_limit(choice)} on general dev speech"
    return f"{text}."


def _limit(choice: Mapping[str, Any]) -> str:
    return (
        f"{points(choice['limit'], sign=False)} points that choosing may take of the forgetting budget of "
        f"{points(choice['budget'], sign=False)}"
    )


def groups_sentence(content: Mapping[str, Any]) -> str:
    """What the intervals were drawn over, and how texts were normalised."""
    normaliser, groups = content["normaliser"], content["groups"]
    drawn = groups["drawn"] if groups["drawn"] != groups["what"] else f"{groups['count']} {groups['what']}"
    return (
        f"Ranges are 95 % intervals from a paired bootstrap over {drawn}. Texts were normalised by "
        f"{normaliser['name']} {normaliser['version']} ({normaliser['hash']}), references and hypotheses alike."
    )


def rows_sentence(content: Mapping[str, Any]) -> str:
    """How many rows got better, worse, or stayed the same, and the matched-pairs test."""
    rows = content["rows"]
    text = f"{rows['wins']:,} rows got better, {rows['losses']:,} worse, {rows['ties']:,} have as many errors as before"
    segments = content.get("mapsswe") or {}
    if segments.get("p_value") is None:
        return text + "."
    p_value = segments["p_value"]
    chance = f"p = {p_value:.3f}" if p_value >= SMALLEST_P else f"p < {SMALLEST_P}"
    return f"{text}; matched-pairs test over {segments['segments']:,} segments: {chance}."


def gaps(content: Mapping[str, Any]) -> list[str]:
    """For each division its worst and best slice afterwards, and how the gap between them moved."""
    found = []
    unit = _unit(content)
    for gap in content.get("gaps") or []:
        if "worst_after" not in gap:
            continue
        worst, best = gap["worst_after"], gap["best_after"]
        found.append(
            f"{gap['by'].capitalize()}: worst {worst['value']} ({percent(worst['rate'])}, "
            f"{count(worst['words'], unit)}), best {best['value']} ({percent(best['rate'])}, "
            f"{count(best['words'], unit)}); the gap went from {points(gap['gap_before'], sign=False)} to "
            f"{points(gap['gap_after'], sign=False)} points."
        )
    return found


def duration(seconds: float | None) -> str:
    """Seconds in words a person reads: "4.2 s", "3 min 20 s", "2 h 5 min"."""
    if seconds is None:
        return NONE
    if seconds < 60:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def _line(
    name: str,
    values: Mapping[str, Any],
    *,
    of: str,
    higher_is_better: bool = False,
    tested: bool = False,
) -> Line:
    delta, delta_ci95 = values.get("delta"), values.get("delta_ci95")
    return Line(
        name=name,
        before=_percent(values.get("before")),
        after=_percent(values.get("after")),
        delta=NONE if delta is None else points(delta),
        of=of,
        before_ci95=_range(values.get("before_ci95"), signs=False),
        after_ci95=_range(values.get("after_ci95"), signs=False),
        delta_ci95=_range(delta_ci95, signs=True),
        change=_change(delta_ci95, higher_is_better) if not tested or values["significant"] else "",
        values=values,
    )


def _change(delta_ci95: Sequence[float] | None, higher_is_better: bool) -> str:
    if not delta_ci95 or delta_ci95[0] <= 0 <= delta_ci95[1]:
        return ""
    return "better" if (delta_ci95[0] > 0) == higher_is_better else "worse"


def _percent(rate: float | None) -> str:
    return NONE if rate is None else percent(rate)


def _range(ci95: Sequence[float] | None, *, signs: bool) -> str:
    """An interval; that of a rate is cut at zero, where widening it can reach beyond what a rate can be."""
    if ci95 is None:
        return ""
    low = ci95[0] if signs else max(0.0, ci95[0])
    return f"{points(low, sign=signs)} to {points(ci95[1], sign=signs)}"


def _size(name: str, rate: Mapping[str, Any]) -> str:
    """What a rate is over: words, or characters."""
    return count(rate.get("characters", rate["words"]), "characters" if name.endswith("cer") else "words")


def _unit(content: Mapping[str, Any]) -> str:
    """What the main rate and the slices count."""
    return "characters" if content.get("rate") == "cer" else "words"
