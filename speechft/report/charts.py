"""Plots as inline SVG in the page's own colours.

Lengths across are per cent, so that a plot follows the width of the page while its letters keep their size.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup, escape

from speechft.report.lines import Line
from speechft.score.verdict import percent

BAR_SPAN = 84.0  # per cent of the width that the longest bar takes; the rest holds its number
ROW_PX = 66
PLOT_PX = 230  # height of a line plot, its axis included
TOP_PX, BOTTOM_PX = 16, 196  # where a line plot's largest and smallest values lie
LEFT, RIGHT = 9.0, 96.0  # per cent of the width where a line plot's first and last values lie
FOREST_WIDEST = 3.0  # times the median interval; wider ones are cut, or they would flatten the others

Series = tuple[str, list[tuple[float, float]]]
"""A class of the style sheet (dev, general, loss) and its (x, y) points."""


def bars(rows: Sequence[Line]) -> Markup:
    """Before/after bars with 95 % whiskers, from zero, one pair for each line."""
    shown = [row for row in rows if row.values and row.values.get("before") is not None]
    if not shown:
        return Markup("")
    top = max(max(_high(row, "before"), _high(row, "after")) for row in shown) or 1.0
    step = _step(top, 5)
    height = ROW_PX * len(shown) + 22
    parts = []
    tick = 0.0
    while tick <= top * 1.0001:
        x = f"{tick / top * BAR_SPAN:.2f}%"
        parts.append(f'<line class="grid" x1="{x}" x2="{x}" y1="0" y2="{height - 20}"/>')
        anchor = "start" if tick == 0 else "middle"
        parts.append(f'<text class="tick" x="{x}" y="{height - 5}" text-anchor="{anchor}">{_tick(tick)}</text>')
        tick += step
    for number, row in enumerate(shown):
        y = number * ROW_PX
        parts.append(f'<text class="label" x="0" y="{y + 16}">{escape(row.name)}, {escape(row.of)}</text>')
        for side, offset in (("before", 24), ("after", 41)):
            parts.append(_bar(row, side, y + offset, top))
    label = "; ".join(f"{row.name}: {row.before} before, {row.after} after" for row in shown)
    return _svg(height, label, parts)


def _bar(row: Line, side: str, y: int, top: float) -> str:
    assert row.values is not None
    value = row.values.get(side)
    if value is None:
        return ""
    interval = row.values.get(f"{side}_ci95")
    parts = [f'<rect class="{side}" x="0" y="{y}" width="{value / top * BAR_SPAN:.2f}%" height="14" rx="2"/>']
    if interval:
        low, high = (max(0.0, end) / top * BAR_SPAN for end in interval)
        middle = y + 7
        parts.append(f'<line class="whisker" x1="{low:.2f}%" x2="{high:.2f}%" y1="{middle}" y2="{middle}"/>')
        for end in (low, high):
            parts.append(f'<line class="whisker" x1="{end:.2f}%" x2="{end:.2f}%" y1="{y + 3}" y2="{y + 11}"/>')
    end = _high(row, side) / top * BAR_SPAN
    parts.append(f'<text class="value" x="{end:.2f}%" dx="7" y="{y + 12}">{percent(value)}</text>')
    return "".join(parts)


def _high(row: Line, side: str) -> float:
    assert row.values is not None
    interval = row.values.get(f"{side}_ci95")
    return float(max(row.values.get(side) or 0.0, interval[1] if interval else 0.0))


def forest_limit(rows: Sequence[Line]) -> float:
    """How far the scale of differences reaches to either side of zero."""
    reaches = sorted(
        max(map(abs, row.values["delta_ci95"] or [row.values["delta"] or 0.0])) for row in rows if row.values
    )
    if not (moved := [reach for reach in reaches if reach]):
        return 1.0
    return min(moved[-1], FOREST_WIDEST * moved[len(moved) // 2])


def forest(row: Line, limit: float) -> Markup:
    """A difference with its interval around zero; an arrow where the interval leaves the scale."""
    values = row.values or {}
    if values.get("delta") is None:
        return Markup("")

    def x(value: float) -> float:
        return 50.0 + 46.0 * max(-1.0, min(1.0, value / limit))

    parts = ['<line class="zero" x1="50%" x2="50%" y1="0" y2="18"/>']
    interval = values.get("delta_ci95")
    if interval:
        low, high = interval
        parts.append(f'<line class="reach {row.change}" x1="{x(low):.2f}%" x2="{x(high):.2f}%" y1="9" y2="9"/>')
        if low < -limit:
            parts.append('<text class="cut" x="0" y="13">◂</text>')
        if high > limit:
            parts.append('<text class="cut" x="100%" y="13" text-anchor="end">▸</text>')
    if abs(values["delta"]) <= limit:
        parts.append(f'<circle class="dot {row.change}" cx="{x(values["delta"]):.2f}%" cy="9" r="4"/>')
    return _svg(18, f"{row.delta} points, {row.delta_ci95}", parts, kind="forest")


def learning(curve: Sequence[Mapping[str, Any]], best_epoch: int | None) -> Markup:
    """Error rates on the speech that chooses, by epoch."""
    series = [(name, _points(curve, "epoch", key)) for name, key in (("dev", "dev_wer"), ("general", "general_wer"))]
    marks = [(float(best_epoch), "best")] if best_epoch is not None and best_epoch >= 0 else []
    return _plot(series, "epoch", verticals=marks)


def losses(curve: Sequence[Mapping[str, Any]]) -> Markup:
    """Training loss by epoch."""
    return _plot([("loss", _points(curve, "epoch", "loss"))], "epoch", in_percent=False)


def sweep(choice: Mapping[str, Any]) -> Markup:
    """Error rates along the way from the base (0) to the tuned weights or the longest prompt (1), with the limit."""
    before, limit = choice.get("general_dev_wer_before"), choice.get("limit")
    rows = list(choice["points"])
    if all(row["alpha"] for row in rows):
        rows.insert(0, {"alpha": 0.0, "dev_wer": choice.get("dev_wer_before"), "general_wer": before})
    series = [(name, _points(rows, "alpha", key)) for name, key in (("dev", "dev_wer"), ("general", "general_wer"))]
    limits = [] if before is None or limit is None else [before + limit]
    return _plot(series, "share", verticals=[(float(choice["alpha"]), "chosen")], horizontals=limits)


def _points(rows: Sequence[Mapping[str, Any]], x: str, y: str) -> list[tuple[float, float]]:
    found = [(float(row[x]), float(row[y])) for row in rows if row.get(y) is not None and row.get(x) is not None]
    return sorted(point for point in found if math.isfinite(point[1]))


def _plot(
    series: Sequence[Series],
    x_name: str,
    *,
    verticals: Sequence[tuple[float, str]] = (),
    horizontals: Sequence[float] = (),
    in_percent: bool = True,
) -> Markup:
    """Lines through points; nothing when no series has two of them."""
    series = [(name, values) for name, values in series if values]
    if not any(len(values) > 1 for _, values in series):
        return Markup("")
    xs = [x for _, values in series for x, _ in values]
    ys = [y for _, values in series for _, y in values] + list(horizontals)
    step = _step((max(ys) - min(ys)) or max(ys) or 1.0, 4)
    low, high = math.floor(min(ys) / step) * step, math.ceil(max(ys) / step) * step
    high = high if high > low else low + step

    def at_x(value: float) -> float:
        return LEFT + (RIGHT - LEFT) * (value - min(xs)) / ((max(xs) - min(xs)) or 1.0)

    def at_y(value: float) -> float:
        return BOTTOM_PX - (BOTTOM_PX - TOP_PX) * (value - low) / (high - low)

    parts = []
    for number in range(round((high - low) / step) + 1):
        tick, y = low + number * step, at_y(low + number * step)
        name = _tick(tick) if in_percent else f"{tick:.4g}"
        parts.append(f'<line class="grid" x1="0" x2="100%" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text class="tick" x="0" y="{y - 3:.1f}">{name}</text>')
    for tick in _x_ticks(sorted(set(xs))):
        parts.append(
            f'<text class="tick" x="{at_x(tick):.2f}%" y="{BOTTOM_PX + 16}" text-anchor="middle">{tick:g}</text>'
        )
    parts.append(f'<text class="tick" x="50%" y="{PLOT_PX - 2}" text-anchor="middle">{escape(x_name)}</text>')
    for y_value in horizontals:
        y = at_y(y_value)
        parts.append(f'<line class="limit" x1="{LEFT}%" x2="100%" y1="{y:.1f}" y2="{y:.1f}"/>')
    for x_value, name in verticals:
        x = at_x(x_value)
        anchor = "end" if x > 70 else "start"
        shift = -5 if x > 70 else 5
        parts.append(f'<line class="mark" x1="{x:.2f}%" x2="{x:.2f}%" y1="{TOP_PX - 10}" y2="{BOTTOM_PX}"/>')
        place = f'x="{x:.2f}%" dx="{shift}" y="{BOTTOM_PX - 5}" text-anchor="{anchor}"'
        parts.append(f'<text class="mark" {place}>{escape(name)}</text>')
    for kind, values in series:
        for (x1, y1), (x2, y2) in itertools.pairwise(values):
            ends = f'x1="{at_x(x1):.2f}%" y1="{at_y(y1):.1f}" x2="{at_x(x2):.2f}%" y2="{at_y(y2):.1f}"'
            parts.append(f'<line class="{kind}" {ends}/>')
        for x, y in values:
            said = percent(y) if in_percent else f"{y:.3g}"
            title = f"<title>{escape(x_name)} {x:g}: {said}</title>"
            parts.append(f'<circle class="{kind}" cx="{at_x(x):.2f}%" cy="{at_y(y):.1f}" r="3.5">{title}</circle>')
    said = "; ".join(
        f"{kind} from {_say(values[0][1], in_percent)} to {_say(values[-1][1], in_percent)}" for kind, values in series
    )
    return _svg(PLOT_PX, f"by {x_name}: {said}", parts)


def _say(value: float, in_percent: bool) -> str:
    return percent(value) if in_percent else f"{value:.3g}"


def _x_ticks(values: Sequence[float]) -> list[float]:
    """At most nine of the values, evenly taken, the first among them."""
    every = max(1, math.ceil(len(values) / 9))
    return list(values[::every])


def _step(span: float, ticks: int) -> float:
    """A round step that divides the span into about so many parts."""
    raw = span / ticks
    size = 10.0 ** math.floor(math.log10(raw))
    return next(factor * size for factor in (1, 2, 2.5, 5, 10) if factor * size >= raw * 0.999)


def _tick(rate: float) -> str:
    return f"{100 * rate:.4g} %"


def _svg(height: int, label: str, parts: Sequence[str], *, kind: str = "plot") -> Markup:
    return Markup(
        f'<svg class="{kind}" role="img" width="100%" height="{height}" aria-label="{escape(label)}">'
        + "".join(parts)
        + "</svg>"
    )
