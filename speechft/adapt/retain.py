"""What keeps general speech: L2-SP, and a sweep of weights between base and tuned (distillation: `vocabulary`)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch


def distance(parameters: Mapping[str, torch.Tensor], base: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """Half the squared distance from the base weights, L2-SP (Li et al. 2018, equation 1)."""
    total = torch.zeros((), device=next(iter(parameters.values())).device)
    for name, value in parameters.items():
        total = total + (value - base[name]).pow(2).sum()
    return 0.5 * total


def pull(model: Any, base: Mapping[str, torch.Tensor], weight: float, *, scaler: Any) -> torch.Tensor:
    """Add the gradients of that distance of what trains, scaled; its value, which keeps no graph alive."""
    moved = {name: p for name, p in model.named_parameters() if p.requires_grad and name in base}
    value = weight * distance(moved, base)
    scaler.scale(value).backward()
    return value.detach()


def moved(model: Any, base: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Copies of the parameters that are not the base's any more, on the host."""
    now = ((name, parameter.detach().cpu()) for name, parameter in model.named_parameters())
    return {name: value.clone() for name, value in now if not torch.equal(value, base[name])}


def blend(model: Any, base: Mapping[str, torch.Tensor], tuned: Mapping[str, torch.Tensor], alpha: float) -> None:
    """Give a model weights `alpha` of the way from base to tuned (WiSE-FT, Wortsman et al. 2022), exact at 0 and 1.

    In place, a tensor at a time: no third model is held.
    """
    parameters = dict(model.named_parameters())
    with torch.no_grad():
        for name, value in tuned.items():
            parameters[name].copy_(torch.lerp(base[name], value, alpha))


@dataclass(frozen=True, kw_only=True)
class Point:
    """What one alpha gave on speech that only chooses: dev, and general_dev when there is any."""

    alpha: float
    dev_wer: float
    general_wer: float | None


def sweep(alphas: tuple[float, ...], evaluate: Callable[[float], tuple[float, float | None]]) -> list[Point]:
    """Measure each alpha, largest first."""
    points = []
    for alpha in sorted(set(alphas), reverse=True):
        dev_wer, general_wer = evaluate(alpha)
        points.append(Point(alpha=alpha, dev_wer=dev_wer, general_wer=general_wer))
    return points


def choose(points: list[Point], *, base_general_wer: float | None, budget: float | None) -> tuple[Point, bool]:
    """The best dev WER among the points inside the budget; if none is, the one that forgets least.

    Returns:
        the point, and whether it is inside the budget on general_dev.
    """
    if base_general_wer is None or budget is None:
        return min(points, key=lambda p: (p.dev_wer, p.alpha)), True
    limit = base_general_wer + budget
    inside = [p for p in points if p.general_wer is not None and p.general_wer <= limit]
    if inside:
        return min(inside, key=lambda p: (p.dev_wer, p.alpha)), True
    return min(points, key=lambda p: (p.general_wer or 0.0, p.dev_wer)), False
