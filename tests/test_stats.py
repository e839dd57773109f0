"""Intervals and tests: against formulas, textbooks, NIST's sc_stats, and a simulation of their coverage."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from score_pairs import SC_STATS, random_pairs, sc_stats

from speechft.score import nist, stats
from speechft.score.wer import Aligned


def bootstrap(
    before: list[float], after: list[float], words: list[float], groups: list[str], resamples: int = 4000
) -> stats.Paired:
    paired = stats.paired_bootstrap(
        np.array(before), np.array(after), np.array(words), groups, resamples=resamples, seed=1
    )
    assert paired is not None
    return paired


def test_values_are_sums_divided_once() -> None:
    paired = bootstrap([1, 9], [0, 3], [10, 90], ["a", "b"])
    assert paired.before.value == 0.1
    assert paired.after.value == 0.03
    assert paired.delta.value == pytest.approx(-0.07)


def test_equal_groups_give_the_textbook_t_interval() -> None:
    """With equal words a rate is a mean over speakers, whose interval is mean +- t(n-1) s / sqrt(n)."""
    rng = np.random.default_rng(5)
    errors = rng.normal(30, 5, size=40)
    paired = bootstrap([0.0] * 40, list(errors), [100.0] * 40, [str(i) for i in range(40)], resamples=20_000)
    half = 2.0227 * errors.std(ddof=1) / math.sqrt(40) / 100  # t(39) = 2.0227
    assert paired.delta.half_width == pytest.approx(half, rel=0.03)
    assert paired.delta.value == pytest.approx(errors.mean() / 100)


def test_the_interval_is_widened_for_few_groups() -> None:
    """Five groups need t(4) = 2.776 and sqrt(5/4): a mean's textbook interval, t(4) s / sqrt(5)."""
    errors = [10.0, 20.0, 30.0, 40.0, 50.0]
    paired = bootstrap([0.0] * 5, errors, [100.0] * 5, list("abcde"), resamples=20_000)
    half = 2.7764 * np.std(errors, ddof=1) / math.sqrt(5) / 100
    assert paired.delta.half_width == pytest.approx(half, rel=0.02)


def test_the_p_value_and_the_interval_agree() -> None:
    """An interval whose end is all but zero has p = 0.05."""
    errors = np.array([4.0, -2.0, 5.0, 9.0, 1.0, 3.0, 6.0, -1.0])
    edge = errors - errors.mean() + 2.3646 * errors.std(ddof=1) / math.sqrt(8)  # t(7) = 2.3646
    paired = bootstrap([0.0] * 8, list(edge), [100.0] * 8, list("abcdefgh"), resamples=50_000)
    assert paired.delta.low == pytest.approx(0.0, abs=0.001)
    assert paired.delta.p_value == pytest.approx(0.05, abs=0.004)


def test_rows_that_are_all_alike_leave_room_for_what_was_not_heard() -> None:
    """Of 20 rows, up to 2.78 of another kind may be missing by chance: 20 (1 - 0.05^(1/20))."""
    assert bootstrap([1, 2], [0, 0], [4, 4], ["a", "b"]).delta.ci95 is None
    paired = bootstrap([1] * 20, [0] * 20, [4] * 20, [f"s{i % 5}" for i in range(20)])
    assert paired.delta.ci95 == pytest.approx([-0.25 - 2 * 2.782 / 80, -0.25 + 2 * 2.782 / 80], abs=1e-4)
    assert paired.before.ci95 == pytest.approx([0.25 - 2.782 / 80, 0.25 + 2.782 / 80], abs=1e-4)
    assert paired.after.ci95 == pytest.approx([0, 2.782 / 80], abs=1e-4)
    same = bootstrap([2, 2, 0, 2] * 5, [2, 2, 0, 2] * 5, [4] * 20, [f"s{i % 5}" for i in range(20)])
    assert same.delta.ci95 == pytest.approx([-2 * 2.782 / 80, 2 * 2.782 / 80], abs=1e-4)
    assert same.delta.p_value == 1.0


@pytest.mark.parametrize(("rows", "sure"), [(3, False), (4, False), (5, True), (30, True)])
def test_how_many_rows_that_all_improve_are_enough(rows: int, *, sure: bool) -> None:
    """About as many as a sign test asks for, which five out of five nearly pass (p = 0.06)."""
    delta = bootstrap([3] * rows, [1] * rows, [4] * rows, [f"s{i}" for i in range(rows)]).delta
    assert delta.high is not None
    assert delta.p_value is not None
    assert (delta.high < 0) == (delta.p_value < 0.05) == sure


def test_what_varies_keeps_its_interval_beside_what_does_not() -> None:
    """Few rows, all right afterwards: the rate before and the difference vary, the rate after does not."""
    paired = bootstrap([1, 2, 0, 3, 1, 2], [0] * 6, [4] * 6, list("abcdef"))
    assert paired.after.ci95 == pytest.approx([0, 6 * (1 - 0.05 ** (1 / 6)) / 24])
    assert paired.before.ci95 is not None
    assert paired.delta.high is not None
    assert paired.delta.high < 0


def test_a_speaker_of_silence_alone_is_no_group() -> None:
    paired = bootstrap([1, 0, 2, 1, 0], [0, 0, 1, 0, 3], [4, 4, 4, 4, 0], list("abcde"))
    assert (paired.groups, paired.drew_rows) == (4, True)


def test_rows_are_drawn_below_five_groups() -> None:
    few = bootstrap([1.0] * 40, [0.0, 1.0] * 20, [5.0] * 40, ["a", "b", "c", "d"] * 10)
    assert (few.groups, few.drew_rows) == (40, True)
    enough = bootstrap([1.0] * 40, [0.0, 1.0] * 20, [5.0] * 40, list("abcde") * 8)
    assert (enough.groups, enough.drew_rows) == (5, False)


def test_pairing_makes_a_common_difficulty_cancel() -> None:
    before = [10.0, 50.0, 5.0, 80.0, 30.0, 20.0] * 4
    paired = bootstrap(before, [value - 2 for value in before], [100.0] * 24, list("abcdef") * 4)
    assert paired.delta.half_width is not None
    assert paired.delta.half_width < 0.006
    assert paired.delta.p_value is not None
    assert paired.delta.p_value < 0.05
    assert paired.before.half_width is not None
    assert paired.before.half_width > 0.1


def test_no_words_and_one_row() -> None:
    assert stats.paired_bootstrap(np.zeros(2), np.zeros(2), np.zeros(2), ["a", "b"], resamples=9, seed=1) is None
    alone = bootstrap([1.0], [0.0], [4.0], ["a"])
    assert alone.delta.value == -0.25
    assert alone.delta.ci95 is None


def test_order_and_batches_do_not_change_the_result(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(4)
    before, after, words = (rng.integers(1, 9, 60).astype(float) for _ in range(3))
    groups = [f"g{i % 12}" for i in range(60)]
    order = rng.permutation(60)
    one = bootstrap(list(before), list(after), list(words), groups)
    two = bootstrap(list(before[order]), list(after[order]), list(words[order]), [groups[i] for i in order])
    assert one == two
    monkeypatch.setattr(stats, "CELLS_AT_ONCE", 100)
    batched = bootstrap(list(before), list(after), list(words), groups)
    assert batched.delta.ci95 == pytest.approx(one.delta.ci95, abs=0.02)


@pytest.mark.parametrize(("speakers", "least"), [(5, 0.915), (20, 0.915)])
def test_intervals_cover_a_true_difference(speakers: int, least: float) -> None:
    """A small form of benchmarks/score_simulation.py: 95 % nominal, 300 trials, so within 3.5 points."""
    rng = np.random.default_rng(speakers)
    truth, trials, covered, false_better = -0.05, 300, 0, 0
    for trial in range(trials):
        words = rng.integers(50, 200, speakers).astype(float)
        skill = rng.normal(0.3, 0.08, speakers)
        gain = rng.normal(0.0, 0.05, speakers)
        before = np.round(words * (skill + rng.normal(0, 0.02, speakers)))
        after = np.round(words * (skill + truth + gain + rng.normal(0, 0.02, speakers)))
        paired = stats.paired_bootstrap(
            before, after, words, [str(i) for i in range(speakers)], resamples=600, seed=trial
        )
        assert paired is not None
        assert paired.delta.low is not None
        assert paired.delta.high is not None
        covered += paired.delta.low <= truth <= paired.delta.high
        false_better += paired.delta.high < truth
    assert least <= covered / trials <= 0.985
    assert false_better / trials <= 0.05


def test_holm_by_hand() -> None:
    """Holm's step-down: 0.005 x 4, 0.01 x 3, 0.03 x 2, then never smaller than the one before."""
    assert stats.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert stats.holm([0.5, 0.9]) == [1.0, 1.0]
    assert stats.holm([]) == []


def row(row_id: str, reference: str, hypothesis: str) -> Aligned:
    return next(nist.align({row_id: reference}, {row_id: hypothesis}, str.split))


@pytest.mark.parametrize(
    ("reference", "one", "two", "differences"),
    [
        ("a b c d e f", "a b c d e f", "a b c d e f", []),
        ("a b c d e f", "x b c d e f", "a b c d e f", [1]),
        ("a b c d e f", "x b c d e y", "a b c d e f", [1, 1]),  # two good words close a segment
        ("a b c d e f", "x b y d e f", "a b c d e f", [2]),  # one does not
        ("a b c d e f", "x b c d e f", "a b c d e y", [1, -1]),
        ("a b c d", "a b x c d", "a b c d y z", [1, -2]),  # insertions, and words after the end
        ("a b c d", "a x y d", "a b c d", [2]),
        ("", "a b", "", [2]),
    ],
)
def test_segments_by_hand(reference: str, one: str, two: str, differences: list[int]) -> None:
    first, second = [row("u", reference, one)], [row("u", reference, two)]
    result = stats.mapsswe(first, second)
    assert result.segments == len(differences)
    assert result.mean == pytest.approx(sum(differences) / len(differences) if differences else 0)
    assert stats.mapsswe(second, first).mean == pytest.approx(-result.mean)


def test_segments_that_all_differ_alike_are_counted() -> None:
    """There is no standard error; of ten that all improve the sign test says 2 / 2^10."""
    first = [row(str(index), "a b c", "x b c") for index in range(10)]
    result = stats.mapsswe(first, [row(str(index), "a b c", "a b c") for index in range(10)])
    assert (result.statistic, result.segments) == (None, 10)
    assert result.p_value == pytest.approx(2 / 2**10)


def test_the_statistic_is_the_mean_over_its_standard_error() -> None:
    """Four segments of one row each: differences 1, 1, 2, 0 (both wrong) -> z = 1 / (0.8165 / 2)."""
    pairs = [("x b", "a b"), ("x b", "a b"), ("x y", "a b"), ("x b", "z b")]
    first = [row(str(index), "a b", one) for index, (one, _) in enumerate(pairs)]
    second = [row(str(index), "a b", two) for index, (_, two) in enumerate(pairs)]
    result = stats.mapsswe(first, second)
    assert result.statistic == pytest.approx(1 / (math.sqrt(2 / 3) / 2))
    assert result.p_value == pytest.approx(0.0143, abs=1e-4)


@pytest.mark.skipif(SC_STATS is None, reason="sc_stats is not installed (Debian: apt install sctk)")
@pytest.mark.parametrize(("seed", "rates", "words"), [(1, (0.2, 0.3), 500), (2, (0.6, 0.4), 30), (3, (0.9, 0.8), 6)])
def test_mapsswe_equals_sc_stats(tmp_path: Path, seed: int, rates: tuple[float, float], words: int) -> None:
    references, first = random_pairs(250, seed=seed, words=words, error_rate=rates[0])
    # The same seed draws other words at another rate: keep the first references, spoil them again.
    spoil = np.random.default_rng(seed)
    second = {
        row_id: " ".join(word for word in text.split() if spoil.random() > rates[1]) + " x" * int(spoil.integers(3))
        for row_id, text in references.items()
    }
    segments, statistic = sc_stats(tmp_path, references, first, second)
    ours = stats.mapsswe(
        list(nist.align(references, first, str.split)), list(nist.align(references, second, str.split))
    )
    assert ours.segments == segments
    assert ours.statistic == pytest.approx(statistic, abs=6e-4)


def test_a_loud_speaker_counts_as_fewer_groups() -> None:
    assert stats.effective_groups(np.full(7, 30.0)) == pytest.approx(7)
    assert stats.effective_groups(np.array([40.0, 30.0, 20.0, 10.0])) == pytest.approx(100**2 / 3000)
    assert stats.effective_groups(np.array([900.0, 20.0, 20.0, 20.0, 20.0, 20.0])) == 2.0


def test_a_change_goes_on_in_proportion() -> None:
    words, groups = np.full(30, 200.0), [f"speaker{n % 10}" for n in range(30)]
    found = stats.continued(0.4 * words, 0.3 * words, words, groups, steps=[1, 2], resamples=500, seed=1)
    assert [change.value for change in found] == pytest.approx([0.3 * 0.75 - 0.3, 0.3 * 0.75**2 - 0.3])
    assert [change.half_width for change in found] == pytest.approx([0, 0], abs=1e-9)  # all speakers are alike
    assert stats.continued(0.4 * words, 0.0 * words, words, groups, steps=[1], resamples=500, seed=1) == []


def test_its_interval_holds_all_speakers_change_as_often_as_it_says() -> None:
    rng = np.random.default_rng(3)
    words, inside = np.full(20, 300.0), 0
    for trial in range(300):
        hard = rng.lognormal(0.0, 0.4, 20)  # how hard each speaker is to read: the mean is exp(0.08)
        before, after = (rng.poisson(words * rate * hard).astype(np.float64) for rate in (0.25, 0.2))
        found = stats.continued(before, after, words, range(20), steps=[1], resamples=300, seed=trial)[0]
        assert found.low is not None
        assert found.high is not None
        inside += found.low <= math.exp(0.08) * (0.16 - 0.2) <= found.high
    assert 0.91 <= inside / 300 <= 0.98
