"""The shipped base is a Whisper like any other: transformers' pipeline, CTranslate2 and faster-whisper read it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import WhisperForConditionalGeneration, pipeline

import speechft
from speechft import audio
from speechft.whisper import decode, load

NANO = Path(speechft.__file__).parent / "models" / "nano"
CLINICAL = Path(__file__).resolve().parent.parent / "manifests" / "clinical"
CPU = load.Device(name="cpu", precision=torch.float32, reason="tests repeat exactly")


@pytest.fixture(scope="module")
def clip() -> np.ndarray:
    """A general sentence that nano reads without a mistake in fp32."""
    rows = [json.loads(line) for line in (CLINICAL / "general_speech.jsonl").read_text().splitlines()]
    row = next(row for row in rows if row["split"] == "general_train" and row["speaker"] == "espeak-en-us-m2")
    return audio.read(CLINICAL / row["audio_filepath"])


@pytest.fixture(scope="module")
def ours(clip: np.ndarray) -> str:
    text = decode.from_audio(load.load("nano"), [clip], device=CPU)[0]
    assert len(text.split()) >= 3
    return text


def test_size_and_shape() -> None:
    assert sum(path.stat().st_size for path in NANO.iterdir()) <= 15e6
    model = WhisperForConditionalGeneration.from_pretrained(NANO)
    assert model.config.max_source_positions == 1500
    assert model.config.decoder_start_token_id == model.generation_config.decoder_start_token_id
    assert not getattr(model.generation_config, "is_multilingual", False)
    assert "synthetic" in (NANO / "README.md").read_text()


def test_transformers_pipeline_reads_it(clip: np.ndarray, ours: str) -> None:
    recognise = pipeline("automatic-speech-recognition", model=str(NANO), device="cpu")
    assert recognise({"raw": clip, "sampling_rate": 16000})["text"].strip() == ours


def test_faster_whisper_reads_it_after_conversion(clip: np.ndarray, ours: str, tmp_path: Path) -> None:
    converters = pytest.importorskip("ctranslate2.converters", reason="ctranslate2 is not installed")
    faster_whisper = pytest.importorskip("faster_whisper", reason="faster-whisper is not installed")
    converters.TransformersConverter(str(NANO), copy_files=["tokenizer.json", "preprocessor_config.json"]).convert(
        str(tmp_path / "ct2"), quantization="float32"
    )
    model = faster_whisper.WhisperModel(str(tmp_path / "ct2"), device="cpu", compute_type="float32", cpu_threads=1)
    segments, _ = model.transcribe(clip, beam_size=1, temperature=0.0, without_timestamps=True)
    assert " ".join(segment.text.strip() for segment in segments) == ours
