"""The plan of a run before anything starts: steps, time, disk and memory, from counts and stated rates."""

from __future__ import annotations

from dataclasses import dataclass

from speechft import audio, files, manifest, stages
from speechft.errors import InputError

# Seconds of encoder time a window and of decoder time a clip per epoch, on 2 cores in bf16; from d_model and layers
# by the operations they take at the rate measured here for `nano` and `small` (docs/benchmarks/speed.md).
GFLOPS = 120.0
POSITIONS = 1500
SPOKEN_S = 3.5  # a sentence of `synth`


@dataclass(frozen=True, kw_only=True)
class Size:
    """What the arithmetic needs to know of a model."""

    d_model: int
    encoder_layers: int
    decoder_layers: int
    parameters: int


PUBLISHED = {  # by the last part of a hub id, for plans made before anything is fetched
    "tiny": Size(d_model=384, encoder_layers=4, decoder_layers=4, parameters=39_000_000),
    "base": Size(d_model=512, encoder_layers=6, decoder_layers=6, parameters=74_000_000),
    "small": Size(d_model=768, encoder_layers=12, decoder_layers=12, parameters=244_000_000),
    "medium": Size(d_model=1024, encoder_layers=24, decoder_layers=24, parameters=769_000_000),
    "turbo": Size(d_model=1280, encoder_layers=32, decoder_layers=4, parameters=809_000_000),
    "large": Size(d_model=1280, encoder_layers=32, decoder_layers=32, parameters=1_550_000_000),
}


def describe(run: stages.Run) -> str:
    """The plan as a table.

    Raises:
        InputError: a manifest or model cannot be read.
    """
    pipeline, size = run.pipeline, size_of(run)
    counts, minutes = _count(run)
    views = pipeline.augment.views + 1
    train_minutes = minutes["train"] * views
    packed = max(1.0, train_minutes * 60 / 30 * 1.3) if pipeline.encode.pack else counts["train"] * views
    evaluated = counts["dev"] + counts["test"] * (1 + len(pipeline.conditions)) + counts["general"]
    encoder_gflop = size.encoder_layers * POSITIONS * (24 * size.d_model**2 + 4 * POSITIONS * size.d_model) / 1e9
    encode_s = (packed + evaluated) * encoder_gflop / GFLOPS
    kept_gb = (packed + evaluated) * POSITIONS * size.d_model * 2 / 1e9
    window_gflop = size.decoder_layers * 3 * (4 * POSITIONS * size.d_model**2 + 200 * 32 * size.d_model**2) / 1e9
    train_s = pipeline.finetune.epochs * packed / views * window_gflop / GFLOPS * (1 + pipeline.finetune.replay_share)
    decode_s = evaluated * 2 * 0.08 * (size.decoder_layers * size.d_model**2) / (4 * 192**2) ** 0.9
    rows = [
        ("ingest", f"{sum(counts.values()):,} rows, {sum(minutes.values()):.0f} min of audio", sum(minutes.values()) * 0.2, 0.0),
        ("augment", f"{pipeline.augment.views} views, {len(pipeline.conditions)} conditions", train_minutes * 0.8, train_minutes * 0.001),
        ("encode", f"about {packed + evaluated:,.0f} windows", encode_s, kept_gb),
        ("finetune", f"{pipeline.finetune.strategy}, {pipeline.finetune.epochs} epochs", train_s, size.parameters * 8e-9),
        ("transcribe", f"{evaluated:,} rows, before and after", min(decode_s, evaluated * 20.0), 0.0),
        ("score", f"{pipeline.score.resamples:,} resamples", 5.0, 0.0),
        ("report", "report.html, .md, .json", 5.0, 0.0),
    ]  # fmt: skip
    lines = [f"{'stage':<12}{'what':<44}{'minutes':>9}{'disk GB':>9}"]
    lines += [f"{name:<12}{what:<44}{seconds / 60:>9.1f}{gb:>9.2f}" for name, what, seconds, gb in rows]
    total_s, total_gb = sum(r[2] for r in rows), sum(r[3] for r in rows)
    lines.append(f"{'all':<12}{'estimated for 2 CPU cores with bf16':<44}{total_s / 60:>9.1f}{total_gb:>9.2f}")
    memory_gb = 1.0 + size.parameters * 16e-9 + 0.05 * size.d_model / 192
    lines.append(f"memory: about {memory_gb:.1f} GB; results in {run.dir}")
    return "\n".join(lines)


def size_of(run: stages.Run) -> Size:
    """From the model's config when it is local, else the published dimensions."""
    base = run.pipeline.model.base
    for folder in run.base_files:
        config = files.read_json(folder / "config.json")
        d, e, c = config["d_model"], config["encoder_layers"], config["decoder_layers"]
        return Size(
            d_model=d,
            encoder_layers=e,
            decoder_layers=c,
            parameters=(12 * e + 16 * c) * d * d + config["vocab_size"] * d,
        )
    for name, size in reversed(PUBLISHED.items()):
        if name in base:
            return size
    raise InputError(f"model.base = {base!r}: its size is not known before it is fetched; use a local directory")


def _count(run: stages.Run) -> tuple[dict[str, int], dict[str, float]]:
    counts, minutes = {}, {}
    data = run.pipeline.data
    for role, paths in (("train", data.train), ("dev", data.dev), ("test", data.test), ("general", data.general)):
        rows = [row for path in paths for row in manifest.scan(path)[0]]
        shared = len({*data.train, *data.test}) < len(data.train) + len(data.test)
        rows = [row for row in rows if not shared or row.split in (None, role)]
        known = [row.duration for row in rows if row.duration]
        if rows and not known and rows[0].audio_filepath:
            known = [audio.probe(rows[0].audio_filepath).duration_s]
        counts[role] = len(rows)
        minutes[role] = len(rows) * (sum(known) / len(known) if known else 0.0) / 60
    for role, lines in stages.script_of(run).items():
        counts[role] += len(lines)
        minutes[role] += len(lines) * SPOKEN_S / 60
    return counts, minutes
