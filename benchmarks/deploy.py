"""Is an adapted model read elsewhere as it is here? Writes docs/benchmarks/deploy.md.

    python benchmarks/deploy.py runs/demo runs/an4-decoder

Each run's base and adapted model read its clean test rows: by `speechft`, by transformers' pipeline, and, converted, by
faster-whisper, with the sound as it is and with silence behind it up to 30 s. All greedy, in float32 but for what
`speechft` chooses; errors are counted as the run counts them.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import faster_whisper
import numpy as np
import transformers
from ctranslate2.converters import TransformersConverter

from speechft import audio, config, files
from speechft.manifest import Utterance
from speechft.run import Run
from speechft.score import tables, wer
from speechft.score.score import units
from speechft.score.slices import CLEAN, condition_of
from speechft.score.terms import read_terms
from speechft.whisper import decode, load, source, windows

OUT = Path("docs/benchmarks/deploy.md")
Reader = Callable[[list[np.ndarray]], list[str]]


def readers(model: Path, folder: Path) -> dict[str, Reader]:
    """Who reads the model, by name."""
    whisper, device = load.load(str(model)), load.choose_device()
    recognise: Any = transformers.pipeline("automatic-speech-recognition", model=str(model), device="cpu")
    TransformersConverter(str(model), copy_files=["tokenizer.json", "preprocessor_config.json"]).convert(
        str(folder), quantization="float32"
    )
    faster = faster_whisper.WhisperModel(str(folder), device="cpu", compute_type="float32")

    def by_faster(clips: list[np.ndarray]) -> list[str]:
        found = (
            faster.transcribe(clip, language="en", beam_size=1, temperature=0.0, without_timestamps=True)[0]
            for clip in clips
        )
        return [" ".join(segment.text.strip() for segment in segments) for segments in found]

    return {
        "speechft": lambda clips: decode.from_audio(whisper, clips, device=device),
        "transformers": lambda clips: [
            recognise({"raw": clip, "sampling_rate": 16000}, generate_kwargs={"num_beams": 1})["text"] for clip in clips
        ],
        "faster-whisper": by_faster,
        "faster-whisper, padded": lambda clips: by_faster([windows.pad_window(clip) for clip in clips]),
    }


def rates(run: Run) -> dict[str, dict[str, float]]:
    """Error rate by model and reader."""
    rows: list[Utterance] = [row for row in run.rows("test") if condition_of(row) == CLEAN]
    clips = [audio.read(row.audio_filepath or "", offset_s=row.offset, duration_s=row.duration) for row in rows]
    settings = run.pipeline
    split = units(
        rows, normaliser=settings.score.normaliser, language=settings.model.language,
        terms=read_terms(settings.data.terms) if settings.data.terms else None,
    ).split  # fmt: skip
    references = {row.id: row.text or "" for row in rows}
    found: dict[str, dict[str, float]] = {}
    for name, model in (("base", source.find(settings.model.base)[0]), ("adapted", run.dir / "finetune" / "model")):
        with tempfile.TemporaryDirectory() as folder:
            for reader, read in readers(model, Path(folder) / "ct2").items():
                texts = dict(zip(references, read(clips), strict=True))
                rate = wer.total(row.errors for row in wer.align(references, texts, split)).rate or 0.0
                found.setdefault(name, {})[reader] = rate
                print(f"{run.dir.name} {name} {reader}: {rate:.3f}", flush=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path, help="finished runs")
    options = parser.parse_args()
    lines = []
    for folder in options.runs:
        settings = files.read_json(folder / "report.json")["settings"]
        run = Run(config.Pipeline.model_validate(settings), folder)
        for model, by_reader in rates(run).items():
            lines.append((f"{folder.name}, {model}", by_reader))
    rows = [[name, *map(tables.percent, found.values())] for name, found in lines]
    command = f"python benchmarks/deploy.py {' '.join(map(str, options.runs))}"
    with files.atomic_write(OUT) as file:
        file.write(
            "# Read elsewhere\n\n"
            f"`{command}`: error rates of the same clean test rows, read by `speechft transcribe`, by transformers' "
            "pipeline, and, converted, by faster-whisper, with the sound as it is and with silence up to 30 s.\n\n"
            + tables.table(["model", *lines[0][1]], rows)
            + "\n"
        )


if __name__ == "__main__":
    main()
