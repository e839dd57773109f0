"""Training a base from nothing: corpus, windows, guidance, and a short run in two processes that resumes."""

from __future__ import annotations

import json
import os
import random
import signal
import threading
import time
from pathlib import Path

import any_whisper
import numpy as np
import pytest
import torch

from speechft import audio
from speechft.errors import InputError, Stopped
from speechft.manifest import Utterance
from speechft.pretrain import aligning, loop
from speechft.pretrain import corpus as clip_corpus
from speechft.whisper import load, tokens

CLIPS = 12


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> list[Utterance]:
    folder = tmp_path_factory.mktemp("clips")
    rng = np.random.default_rng(1)
    made = []
    for number in range(CLIPS):
        path = folder / f"{number}.wav"
        audio.write(path, (0.1 * rng.standard_normal(16_000 + 800 * number)).astype(np.float32))
        made.append(
            Utterance(
                id=str(number), audio_filepath=path, text="go on", duration=1.0 + 0.05 * number,
                extra={"phonemes": "g_oU 0_n"},
            )
        )  # fmt: skip
    return made


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("base")
    return any_whisper.save(folder, 51864)


@pytest.fixture(scope="module")
def corpus(rows: list[Utterance], base: Path, tmp_path_factory: pytest.TempPathFactory) -> clip_corpus.Corpus:
    folder = tmp_path_factory.mktemp("features")
    shards = clip_corpus.make_shards(rows, folder, n_mels=80, progress=lambda done, total: None)
    return clip_corpus.read_corpus(rows, shards, load.load(str(base)).tokenizer)


def test_a_clips_log_mel_in_the_corpus_is_that_of_its_audio(corpus: clip_corpus.Corpus, rows: list[Utterance]) -> None:
    from speechft.whisper import windows

    assert len(corpus.clips) == CLIPS
    assert corpus.symbols == 4
    wanted = windows.log_mel(audio.read(rows[7].audio_filepath)).numpy()
    clip = corpus.clips[7]
    assert clip.frames == 135
    np.testing.assert_allclose(corpus.mel(clip), wanted[:, :135], atol=2e-3)


def test_a_row_without_phonemes_is_refused_by_name(rows: list[Utterance]) -> None:
    import dataclasses

    bare = [dataclasses.replace(rows[0], id="bare", extra={})]
    with pytest.raises(InputError, match="bare"):
        clip_corpus.read_corpus(bare, [], None)


def test_windows_hold_their_clips_whole_and_in_order(corpus: clip_corpus.Corpus) -> None:
    rng = random.Random(2)
    clips = loop.endless(list(corpus.clips), rng)
    groups = [clip_corpus.fill_window(clips, frames=600, single=False, rng=rng) for _ in range(20)]
    mel, segments, phonemes = clip_corpus.lay_out(corpus, groups, frames=600, rng=rng, strength=0.5)
    assert mel.shape == (20, 80, 600)
    assert torch.isfinite(mel).all()
    assert max(len(group) for group in groups) > 1
    for group, placed, spoken in zip(groups, segments, phonemes, strict=True):
        assert [s.tokens for s in placed] == [c.tokens for c in group]
        assert len(spoken) == 4 * len(group)
        ends = [s.end_s for s in placed]
        assert all(end <= start for end, start in zip(ends, [s.start_s for s in placed][1:], strict=False))
        assert ends[-1] <= 6.0


def test_spans_cover_each_token_of_the_text_and_nothing_else(base: Path) -> None:
    ids = load.load(str(base)).ids
    segments = [
        tokens.Segment(tokens=(5, 6), start_s=0.0, end_s=2.0),
        tokens.Segment(tokens=(7,), start_s=10.0, end_s=11.0),
    ]
    example = tokens.example(ids, segments, timestamps=True)
    spans = aligning.token_spans(example, segments, steps=12, text_ids=ids.end)
    held = [(label, *span) for label, span in zip(example.labels, spans.tolist(), strict=False) if span[0] >= 0]
    assert held == [(5, 0, 60), (6, 40, 100), (7, 500, 550)]


def test_guidance_is_the_share_of_attention_inside_the_span(base: Path) -> None:
    model = load.load(str(base)).model
    guide = aligning.GuidedHeads(model.model.decoder, layers=(1,), heads=1)
    states = torch.randn(1, 50, model.config.d_model, generator=torch.Generator().manual_seed(3))
    model.set_attn_implementation("eager")
    out = model.model.decoder(
        input_ids=torch.tensor([[1, 2, 3]]), encoder_hidden_states=states, use_cache=False, output_attentions=True
    )
    spans = torch.tensor([[[-1, -1], [10, 19], [-1, -1]]])
    inside = out.cross_attentions[1][0, 0, 1, 10:20].sum()
    assert float(guide.loss(spans).detach()) == pytest.approx(-float(inside.detach().log()), rel=1e-4)


def test_two_processes_learn_and_a_second_call_goes_on(base: Path, rows: list[Utterance], tmp_path: Path) -> None:
    out = tmp_path / "run"
    loop.train(str(base), rows, out=out, epochs=20, seed=1, peak_rate=1e-3, processes=2)
    first = torch.load(out / "checkpoint.pt", weights_only=True)
    curve = [json.loads(line) for line in (out / "curve.jsonl").read_text().splitlines()]
    assert curve[-1]["clips"] >= 20 * CLIPS
    start = load.load(str(base)).model.state_dict()
    still = [name for name, value in first["model"].items() if torch.equal(value, start[name])]
    assert still == ["model.encoder.embed_positions.weight"]
    loop.train(str(base), rows, out=out, epochs=25, seed=1, peak_rate=1e-3, processes=1)
    assert torch.load(out / "checkpoint.pt", weights_only=True)["steps"] > first["steps"]


def test_a_stop_is_saved_and_a_gradient_that_is_not_finite_is_not(
    base: Path, rows: list[Utterance], tmp_path: Path
) -> None:
    def ask_once_it_runs() -> None:
        while not (tmp_path / "checkpoint.pt").exists():
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=ask_once_it_runs, daemon=True).start()
    with pytest.raises(Stopped) as stopped:
        loop.train(str(base), rows, out=tmp_path, epochs=100_000, seed=1, peak_rate=1e-3, processes=2)
    assert stopped.value.status == 128 + signal.SIGTERM
    kept = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    assert kept["steps"] > 0
    with pytest.raises(InputError, match="gradient is no longer finite"):
        loop.train(str(base), rows, out=tmp_path, epochs=100_000, seed=1, peak_rate=1e30, processes=1)
    again = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    assert all(torch.equal(value, kept["model"][name]) for name, value in again["model"].items())
