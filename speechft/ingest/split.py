"""Splitting rows into sides that share neither speakers nor texts, the same way every time."""

import hashlib
from collections import defaultdict
from collections.abc import Collection, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from speechft.errors import InputError
from speechft.ingest import overlap
from speechft.ingest.ledger import Ledger, Places, Row
from speechft.manifest import LABELS

SPEAKERS_TO_SPLIT = 3  # with fewer, a side would be empty or hold the same voice as another
OVERSHOOT = 1.25  # a group may carry a side this far beyond its share
CLOSE_ENOUGH = 0.5  # clusters of speakers and texts are used when every side comes this near to its share


@dataclass(frozen=True, kw_only=True)
class Division:
    """Places of rows by side, the label they were split by, and those left out as another side has their text."""

    sides: dict[str, Places]
    by: str
    dropped: Places


def divide(
    ledger: Ledger,
    places: Places,
    *,
    shares: Mapping[str, float],
    seed: int,
    split_by: str | None = None,
    apart: Collection[str] = ("text", "near_text"),
) -> Division:
    """Split rows by speaker where there are three or more, else by a hash of the text.

    Whole groups move: the rows of one speaker (or text, or other label), and with them copies of the same
    recording and overlapping stretches of one file. Texts are kept apart too. Where speakers and their texts
    fall into separate clusters, those are split. Where speakers read each other's sentences, a sentence stays
    on one of the sides that have it, drawn by their shares, and its rows on the others are dropped; of two
    nearly equal ones the one on the larger side stays. Only the labels, texts and seed decide, not the order
    of the rows.

    Args:
        ledger: checked rows.
        places: those to be split.
        shares: side -> share of the rows; the last side takes what is left.
        seed: which groups go where.
        split_by: "text", "speaker" or another label of the rows; None chooses as above.
        apart: which of "text" (equal) and "near_text" (nearly equal) may not be on two sides.

    Raises:
        InputError: there is no such label, or there are fewer groups than sides.
    """
    by = _split_by(ledger, places, split_by)
    keys, names = [], []
    for row in ledger.each(places):
        keys.append(row.text_key)
        names.append(_group_name(row, by))
    near = list(overlap.near_pairs(dict.fromkeys(keys), keys)) if "near_text" in apart else []
    loose = _Clusters(len(places))
    loose.join_equal(names)
    loose.join_equal(ledger.column("sound", places).tolist())
    for one, other in overlap.segment_pairs(ledger, places, places):
        loose.join(one, other)
    tight = loose.copy()
    if "text" in apart:
        tight.join_equal(keys)
    first = {key: place for place, key in reversed(list(enumerate(keys)))}
    for key, other_key in near:
        tight.join(first[key], first[other_key])
    placed = _allocate(tight.members(), names, shares=shares, seed=seed, close=True)
    placed = placed or _allocate(loose.members(), names, shares=shares, seed=seed, close=False)
    sides: dict[str, list[int]] = {side: [] for side in shares}
    lost: set[int] = set()
    if placed is not None:
        lost = _contested(keys, placed, near, shares=shares, seed=seed, exact="text" in apart)
        for place, side in enumerate(placed):
            if place not in lost:
                sides[side].append(place)
    if any(share > 0 and not sides[side] for side, share in shares.items()):
        raise InputError(
            f"{len(places)} usable rows, with {len(set(names))} different values of {by} and "
            f"{len(set(keys))} different texts, cannot be split into {', '.join(shares)} that share none; "
            "name a manifest for each in [data], or set the rows' split"
        )
    return Division(
        sides={side: places[np.array(held, dtype=np.int64)] for side, held in sides.items()},
        by=by,
        dropped=places[np.array(sorted(lost), dtype=np.int64)],
    )


def _split_by(ledger: Ledger, places: Places, split_by: str | None) -> str:
    if split_by is None:
        _, speakers = ledger.distinct("speaker", places)
        return "speaker" if speakers >= SPEAKERS_TO_SPLIT else "text"
    if split_by not in ("text", *LABELS):
        raise InputError(f'data.split_by must be one of {", ".join(("text", *LABELS))}, got "{split_by}"')
    return split_by


def _group_name(row: Row, by: str) -> str:
    """Which group a row moves with; rows without the label go by their text, silent ones alone."""
    label = None if by == "text" else getattr(row.utterance, by)
    if label is not None:
        return f"{by}:{label}"
    return f"text:{row.text_key}" if row.text_key else f"silence:{row.utterance.id}"


class _Clusters:
    """Disjoint sets of row places (union-find)."""

    def __init__(self, size: int) -> None:
        self.parents = list(range(size))

    def copy(self) -> "_Clusters":
        twin = _Clusters(0)
        twin.parents = list(self.parents)
        return twin

    def root(self, place: int) -> int:
        while self.parents[place] != place:
            self.parents[place] = self.parents[self.parents[place]]
            place = self.parents[place]
        return place

    def join(self, one: int, other: int) -> None:
        self.parents[self.root(one)] = self.root(other)

    def join_equal(self, values: Iterable[Hashable]) -> None:
        """Join places whose values are equal; empty values join nothing."""
        first: dict[Hashable, int] = {}
        for place, value in enumerate(values):
            if value:
                self.join(first.setdefault(value, place), place)

    def members(self) -> list[list[int]]:
        groups: dict[int, list[int]] = defaultdict(list)
        for place in range(len(self.parents)):
            groups[self.root(place)].append(place)
        return list(groups.values())


def _allocate(
    groups: list[list[int]], names: Sequence[str], *, shares: Mapping[str, float], seed: int, close: bool
) -> list[str] | None:
    """The side of every place, or None when groups cannot fill the sides (if `close`, near their shares)."""
    wanted = [side for side in shares if shares[side] > 0]
    if len(groups) < len(wanted):
        return None
    total = len(names)
    waiting = sorted(groups, key=lambda group: _draw(min(names[place] for place in group), seed))
    chosen: dict[str, list[list[int]]] = {side: [] for side in shares}
    *early, last = shares
    for number, side in enumerate(early):
        target = shares[side] * total
        spare = len(waiting) - sum(1 for later in [*early[number + 1 :], last] if shares[later] > 0)
        filled, left = 0, list[list[int]]()
        for group in waiting:
            if filled < target and spare > 0 and filled + len(group) <= OVERSHOOT * target:
                chosen[side].append(group)
                filled += len(group)
                spare -= 1
            else:
                left.append(group)
        waiting = left
        if target > 0 and not filled:
            smallest = min(waiting, key=len)  # every group is larger than the share
            waiting.remove(smallest)
            chosen[side].append(smallest)
            filled = len(smallest)
        if close and abs(filled - target) > CLOSE_ENOUGH * target:
            return None
    chosen[last] = waiting
    placed = [last] * total
    for side, taken in chosen.items():
        for group in taken:
            for place in group:
                placed[place] = side
    return placed


def _draw(name: str, seed: int) -> str:
    return hashlib.sha256(f"{seed}:{name}".encode()).hexdigest()


def _contested(
    keys: Sequence[str],
    placed: Sequence[str],
    near: Iterable[tuple[str, str]],
    *,
    shares: Mapping[str, float],
    seed: int,
    exact: bool,
) -> set[int]:
    """Places that must go since another side keeps their text, or nearly the same text."""
    holders: dict[str, set[str]] = defaultdict(set)
    for key, side in zip(keys, placed, strict=True):
        holders[key].add(side)
    home = {key: _keeper(key, sides, shares=shares, seed=seed) for key, sides in holders.items()}
    order = list(shares)
    yielding: set[str] = set()
    for key, other in near:
        one, two = home[key], home[other]
        if one != two and (shares[one], -order.index(one)) < (shares[two], -order.index(two)):
            yielding.add(key)
    return {
        place
        for place, (key, side) in enumerate(zip(keys, placed, strict=True))
        if key and ((exact and side != home[key]) or key in yielding)
    }


def _keeper(key: str, sides: Collection[str], *, shares: Mapping[str, float], seed: int) -> str:
    """One of the sides that hold a text, drawn in proportion to their shares."""
    able = [side for side in shares if side in sides]
    at = int(_draw(key, seed)[:13], 16) / 16**13 * sum(shares[side] for side in able)
    for side in able[:-1]:
        at -= shares[side]
        if at < 0:
            return side
    return able[-1]
