"""report.md: the result as Markdown that can be pasted into a pull request or a message."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from speechft.report import lines
from speechft.report.lines import NONE, Line
from speechft.report.pipeline_text import to_toml
from speechft.score.tables import counts, table, uncounted
from speechft.score.verdict import percent

TERMS_SHOWN = 20
SLICES_SHOWN = 40
ROWS_SHOWN = 5


def render(content: Mapping[str, Any]) -> str:
    """Return the report as Markdown; parts without data are left out."""
    parts = [content["verdict"]["sentence"]]
    parts += [f"**Note:** {note}" for note in lines.notes(content)]
    parts += [
        _compared("", lines.rates(content)),
        counts(content),
        lines.groups_sentence(content),
        lines.rows_sentence(content),
    ]
    for make in (_slices, _terms, _general, _survival, _rows, _data, _reproduce):
        text = make(content)
        if text:
            parts.append(text)
    return "\n\n".join(part for part in parts if part) + "\n"


def _compared(first: str, rows: Sequence[Line]) -> str:
    cells = [
        [
            line.name,
            _with(line.before, line.before_ci95),
            _with(line.after, line.after_ci95),
            _with(line.delta, line.delta_ci95),
            line.of,
        ]
        for line in rows
    ]
    return table([first, "before", "after", "difference in points", "of"], cells) if cells else ""


def _slices(content: Mapping[str, Any]) -> str:
    groups = lines.slices(content)
    rows = [(by, line) for by, group in groups for line in group]
    cells = [
        [
            f"{by}: {line.name}",
            _with(line.before, line.before_ci95),
            _with(line.after, line.after_ci95),
            _with(line.delta, line.delta_ci95) + (f" {line.change}" if line.change else ""),
            line.of,
        ]
        for by, line in rows[:SLICES_SHOWN]
    ]
    if not cells:
        return ""
    parts = ["## Slices", table(["slice", "before", "after", "difference in points", "of"], cells)]
    if len(rows) > SLICES_SHOWN:
        parts.append(f"{len(rows) - SLICES_SHOWN} more slices are in report.json.")
    parts.append(
        "`better` and `worse` mark differences that are real after correction for the number of slices (Holm)."
    )
    return "\n\n".join([*parts, *lines.gaps(content)])


def _terms(content: Mapping[str, Any]) -> str:
    rows, left = lines.terms(content), uncounted(content)
    if not rows:
        return f"## Terms\n\n{left}" if left else ""
    report = content["terms"]
    parts = ["## Terms"]
    if report.get("mined"):
        parts.append("No term list was named; these terms were mined from the training texts.")
    parts.append(_compared("", rows))
    if left:
        parts.append(left)
    cells = [
        [
            f"`{entry['term']}`",
            f"{entry['before']['hits']} of {entry['said']}",
            f"{entry['after']['hits']} of {entry['said']}",
            NONE if entry.get("trained") is None else f"{entry['trained']:,}",
        ]
        for entry in (report.get("per_term") or [])[:TERMS_SHOWN]
    ]
    if cells:
        parts.append(table(["term", "right before", "right after", "times in training"], cells))
        hidden = len(report["per_term"]) - len(cells)
        if hidden > 0:
            parts.append(f"{hidden} more terms are in report.html and report.json.")
    missed = ((report.get("confusions") or {}).get("after") or [])[:ROWS_SHOWN]
    if missed:
        listed = "; ".join(f"`{e['term']}` as `{e['written']}` ({e['count']})" for e in missed)
        parts.append(f"Still missed: {listed}.")
    return "\n\n".join(parts)


def _general(content: Mapping[str, Any]) -> str:
    parts = ["## General speech"]
    if content.get("general_wer") is None:
        parts.append("Not tested: no general speech was reported.")
    else:
        line = lines.general(content)
        parts.append(f"{line.before} before, {line.after} after, over {line.of}.")
    choice = content.get("choice")
    if choice and choice.get("points") and content["model"]["strategy"] != "scratch":
        cells = [
            [
                f"{point['alpha']:g}" + (" (chosen)" if point["alpha"] == choice["alpha"] else ""),
                percent(point["dev_wer"]),
                NONE if point.get("general_wer") is None else percent(point["general_wer"]),
            ]
            for point in choice["points"]
        ]
        parts += [lines.how_far(content), table(["share", "dev", "general dev"], cells)]
        if choice.get("prompt"):
            parts.append(f"The prompt: {choice['prompt']}")
    return "\n\n".join(parts)


def _survival(content: Mapping[str, Any]) -> str:
    rows = lines.survival(content)
    return "## What else changed\n\n" + _compared("", rows) if rows else ""


def _rows(content: Mapping[str, Any]) -> str:
    cells = [
        [
            row["id"],
            row["reference"],
            row["before"],
            row["after"],
            f"{row['errors']['before']} to {row['errors']['after']}",
        ]
        for row in (content.get("worst_rows") or [])[:ROWS_SHOWN]
    ]
    if not cells:
        return ""
    heading = ["row", "reference", "before", "after", "errors"]
    return "## Rows that got worse\n\n" + table(heading, cells, numbers=False)


def _data(content: Mapping[str, Any]) -> str:
    cells = [
        [
            role,
            f"{facts['rows']:,}",
            f"{facts['minutes']:.1f}",
            f"{facts['speakers']:,}",
            f"{facts['words']:,}",
        ]
        for role, facts in content["data"].items()
    ]
    return "## Data\n\n" + table(["role", "rows", "minutes", "speakers", "words"], cells) if cells else ""


def _reproduce(content: Mapping[str, Any]) -> str:
    model, versions = content["model"], content["versions"]
    facts = [f"Base {model['base']}" + (f" at {model['revision']}" if model["revision"] else "")]
    facts.append(f"strategy {model['strategy']}")
    if model["trainable"] is not None:
        facts.append(f"{model['trainable']:,} values trained, {model['frozen']:,} frozen")
    facts.append(f"took {lines.duration(sum(s or 0.0 for s in content['seconds'].values()))}")
    used = ", ".join(f"{name} {version}" for name, version in versions.items())
    commit = f" Commit {content['git_commit']}." if content["git_commit"] else ""
    return "\n\n".join(
        [
            "## How to reproduce",
            f"{'; '.join(facts)}. Versions: {used}.{commit}",
            "Save as `pipeline.toml`, then `speechft run --pipeline pipeline.toml`:",
            f"```toml\n{to_toml(content['settings'])}```",
        ]
    )


def _with(value: str, interval: str) -> str:
    return f"{value} ({interval})" if interval else value
