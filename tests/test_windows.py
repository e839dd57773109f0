"""Log-mel equal to the reference's, and packing that depends on seed, view and ids alone."""

import dataclasses
import random
from typing import Any

import numpy as np
import pytest
import torch
import whisper

from speechft.whisper import windows
from speechft.whisper.windows import Clip


@pytest.mark.parametrize("n_mels", [80, 128])
@pytest.mark.parametrize("seconds", [0.1, 3.7, 30.0])
def test_log_mel_equals_the_reference(n_mels: int, seconds: float) -> None:
    rng = np.random.default_rng(1)
    time_s = np.arange(int(seconds * 16000)) / 16000
    samples = (0.3 * np.sin(2 * np.pi * 440 * time_s) + 0.01 * rng.standard_normal(len(time_s))).astype(np.float32)
    padded = windows.pad_window(samples)
    ours = windows.log_mel(padded, n_mels=n_mels)
    theirs = whisper.log_mel_spectrogram(whisper.pad_or_trim(samples), n_mels=n_mels)
    assert ours.shape == (n_mels, 3000)
    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=0)


def clips(count: int) -> list[Clip]:
    rng = random.Random(3)
    return [Clip(id=f"u{i:03d}", number=i, duration_s=rng.uniform(0.5, 9.0), tokens=20) for i in range(count)]


def pack(some: list[Clip], **options: Any) -> list[windows.Window]:
    chosen: dict[str, Any] = {"view": 0, "seed": 1, "gap_s": (0.1, 0.8), "single_share": 0.1, "max_tokens": 440}
    return windows.pack(some, name="v", **(chosen | options))


def test_every_clip_is_packed_once_with_gaps_inside_thirty_seconds() -> None:
    packed = pack(clips(200))
    placed = [p for window in packed for p in window.placed]
    assert sorted(p.clip.id for p in placed) == [clip.id for clip in clips(200)]
    for window in packed:
        assert window.placed[0].start_s == 0.0
        assert window.placed[-1].end_s <= 30.0
        for before, after in zip(window.placed, window.placed[1:], strict=False):
            assert 0.08 <= after.start_s - before.end_s <= 0.84
            assert round(after.start_s / 0.02, 6) == round(after.start_s / 0.02)
    audio_s = sum(clip.duration_s for clip in clips(200))
    assert len(packed) < 1.6 * audio_s / 30 + 20  # 20 singles


def test_packing_ignores_row_order_and_changes_with_view_and_seed() -> None:
    shuffled = clips(100)
    random.Random(9).shuffle(shuffled)
    assert pack(clips(100)) == pack(shuffled)
    members = [[p.clip.id for p in w.placed] for w in pack(clips(100))]
    assert members != [[p.clip.id for p in w.placed] for w in pack(clips(100), view=1)]
    assert members != [[p.clip.id for p in w.placed] for w in pack(clips(100), seed=2)]


def test_single_share_and_token_limit() -> None:
    assert all(len(w.placed) == 1 for w in pack(clips(50), single_share=1.0))
    assert all(len(w.placed) <= 2 for w in pack(clips(50), single_share=0.0, max_tokens=50))
    alone = [w for w in pack(clips(400), single_share=0.25) if len(w.placed) == 1]
    assert 100 <= len(alone) <= 105  # and what is left over at the end


def test_a_third_of_the_windows_is_filled_with_zeros_behind_the_sound() -> None:
    filled = [w.filled for w in pack(clips(3000), single_share=1.0)]
    assert 0.3 < sum(filled) / 3000 < 0.37
    assert filled != [w.filled for w in pack(clips(3000), single_share=1.0, view=1)]
    features = windows.fill(torch.ones(2, 80, 3000), [500, 3000])
    assert features[0, :, :500].all()
    assert not features[0, :, 500:].any()
    assert features[1].all()


def test_assemble_lays_clips_where_the_plan_says() -> None:
    window = windows.assemble([np.ones(16000, np.float32), np.full(16000, 0.5, np.float32)], [0.0, 2.0])
    assert window.shape == (480000,)
    assert window[15999] == 1.0
    assert window[16000] == 0.0
    assert window[32000] == 0.5


def test_a_clip_of_thirty_seconds_gets_its_own_window() -> None:
    long = [dataclasses.replace(clip, duration_s=30.0) for clip in clips(3)]
    packed = pack(long, single_share=0.0)
    assert [len(w.placed) for w in packed] == [1, 1, 1]
    assert packed[0].placed[0].end_s == 30.0


def test_log_mels_of_several_signals_are_those_of_each() -> None:
    signals = np.random.default_rng(1).normal(0, [[0.1], [0.001]], (2, 16000)).astype(np.float32)
    together = windows.log_mel(signals)
    for signal, found in zip(signals, together, strict=True):
        assert torch.allclose(windows.log_mel(signal), found, atol=1e-5)
