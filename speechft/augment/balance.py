"""Balance: more views of what the recordings have little of, so that training hears every accent as often."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable

from speechft.augment import draws
from speechft.errors import InputError
from speechft.manifest import LABELS, Utterance

MOST_REPEATS = 10  # a group of one speaker's three sentences must not fill a third of the training


def more_views(rows: Iterable[Utterance], *, by: str, count: int, seed: int) -> list[tuple[int, int]]:
    """Further views of rows in rarer groups, until each group has as many rows as the largest.

    Training goes round: an epoch hears view 0, the next view 1, and so on up to `count`. Each round is balanced
    by itself. A row added to round r gets a view number that leaves the remainder r when divided by `count` + 1
    (see `round_of`), so every repetition is a view of its own and nothing is heard twice. A row is repeated at
    most `MOST_REPEATS` times a round; rows without the label stay as they are.

    Args:
        rows: clean training rows.
        by: a label (speaker, accent, domain, ...) or any other key of the rows.
        count: views of each row.
        seed: which rows are repeated first.

    Returns:
        (number of the row, number of the view) for each further view.

    Raises:
        InputError: no row has the label.
    """
    groups: dict[str, list[tuple[str, int]]] = defaultdict(list)
    for number, row in enumerate(rows):
        if (value := label(row, by)) is not None:
            groups[value].append((row.id, number))
    if not groups:
        raise InputError(
            f"augment.balance_by: no training row has the key {by!r}; use one they have, such as {', '.join(LABELS)}"
        )
    largest = max(map(len, groups.values()))
    wanted = []
    for turn in range(count + 1):
        for value, held in sorted(groups.items()):
            rng = draws.generator(f"{seed}:balance:{turn}:{value}")
            by_id = sorted(held)  # the order of the manifest changes nothing
            order = [by_id[place][1] for place in rng.permutation(len(by_id))]
            for place in range(min(largest, MOST_REPEATS * len(held)) - len(held)):
                repetition = place // len(held) + 1
                wanted.append((order[place % len(held)], turn + repetition * (count + 1)))
    return wanted


def round_of(view: int, count: int) -> int:
    """The round of training in which a view is heard, of `count` + 1."""
    return view % (count + 1)


def label(row: Utterance, by: str) -> str | None:
    """The value of a row's label or other key, as text."""
    value = getattr(row, by) if by in LABELS else row.extra.get(by)
    return None if value is None else str(value)


def shares(counts: Counter[str]) -> dict[str, float]:
    """Each value's share of the rows that have the label, largest first."""
    total = sum(counts.values())
    return {value: round(number / total, 4) for value, number in counts.most_common()}
