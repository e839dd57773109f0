"""Masks on log-mels and on states: what is hidden, where, and the same for the same seed."""

import dataclasses
from pathlib import Path

import pytest
import torch
from test_train import FROM_AUDIO, FROM_STATES, RECIPE, run, saved, small  # noqa: F401

from speechft.adapt import masks
from speechft.whisper import load

SHAPES = {2: (3, 80, 3000), 1: (3, 1500, 64)}


def features(time_axis: int) -> torch.Tensor:
    return torch.randn(SHAPES[time_axis], generator=torch.Generator().manual_seed(1))


def hide(values: torch.Tensor, time_axis: int, **more: object) -> torch.Tensor:
    given = {
        "ends_s": [6.0, 30.0, 0.1], "seeds": ["1:a", "1:b", "1:c"], "time_masks": 0, "time_mask_s": 0.5,
        "channel_masks": 0, "channel_mask_share": 0.1,
    }  # fmt: skip
    return masks.hide(values, time_axis=time_axis, **{**given, **more})  # type: ignore[arg-type]


def changed(before: torch.Tensor, after: torch.Tensor, time_axis: int) -> torch.Tensor:
    """Which places changed, (windows, frames, channels)."""
    return (before != after).movedim(time_axis, 1)


def test_off_is_the_very_same_tensor() -> None:
    values = features(1)
    assert hide(values, 1) is values


@pytest.mark.parametrize("time_axis", [1, 2])
def test_time_masks_hide_whole_stretches_of_speech_only(time_axis: int) -> None:
    before = features(time_axis)
    after = hide(before, time_axis, time_masks=2, time_mask_s=1.0)
    assert after.shape == before.shape
    frames = changed(before, after, time_axis).any(dim=2)
    a_second = frames.shape[1] / 30
    for window, end_s in zip(frames, (6.0, 30.0, 0.1), strict=True):
        assert not window[round(end_s * a_second) :].any()  # nothing behind the last word
        assert window.sum() <= 2 * a_second + 2
    assert frames.any()
    places = changed(before, after, time_axis)
    assert bool((places.any(dim=2) == places.all(dim=2)).all())  # every channel of a hidden frame


def test_mel_bands_are_neighbours_and_channels_of_states_are_not() -> None:
    mels = changed(features(2), hide(features(2), 2, channel_masks=1, channel_mask_share=0.5), 2)[1].any(dim=0)
    hidden = mels.nonzero().flatten()
    assert len(hidden) == int(hidden[-1] - hidden[0]) + 1
    states = changed(features(1), hide(features(1), 1, channel_masks=1, channel_mask_share=0.9), 1)[1].any(dim=0)
    hidden = states.nonzero().flatten()
    assert 0 < len(hidden) <= round(0.9 * 64)
    assert len(hidden) < int(hidden[-1] - hidden[0]) + 1


def test_what_is_hidden_is_the_mean_over_the_speech() -> None:
    before = features(1)
    after = hide(before, 1, channel_masks=1, channel_mask_share=1.0)
    mean = before[1].mean(dim=0)
    places = (after[1] != before[1]).any(dim=0)
    torch.testing.assert_close(after[1][0][places], mean[places])
    assert hide(before.half(), 1, time_masks=1).dtype == torch.float16


def test_the_seed_decides_and_the_input_is_left_alone() -> None:
    before = features(2)
    kept = before.clone()
    options = {"time_masks": 2, "channel_masks": 2}
    assert torch.equal(hide(before, 2, **options), hide(before, 2, **options))
    assert not torch.equal(hide(before, 2, **options), hide(before, 2, seeds=["2:a", "2:b", "2:c"], **options))
    assert torch.equal(before, kept)


@pytest.mark.parametrize(("strategy", "source", "axis"), [("decoder", FROM_STATES, 1), ("full", FROM_AUDIO, 2)])
def test_training_hears_the_masks(
    small: load.Whisper,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    strategy: str,
    source: dict,
    axis: int,
) -> None:
    axes: list[int] = []
    hide_some = masks.hide

    def noted(features: torch.Tensor, *, time_axis: int, **options):
        axes.append(time_axis)
        assert features.shape[time_axis] in (1500, 3000)
        return hide_some(features, time_axis=time_axis, **options)

    monkeypatch.setattr(masks, "hide", noted)
    recipe = dataclasses.replace(RECIPE, strategy=strategy, epochs=1)
    plain = run(small, tmp_path / "plain", recipe, **source)
    again = load.load(str(tmp_path / "base"))
    wanted = {"time_masks": 2, "time_mask_s": 1.0, "channel_masks": 1, "channel_mask_share": 0.3}
    masked = run(again, tmp_path / "masked", dataclasses.replace(recipe, **wanted), **source)
    assert set(axes) == {axis}
    assert masked.curve[-1]["loss"] != plain.curve[-1]["loss"]
