"""The plan of a run before anything starts: steps, time, disk and memory, from counts, counted operations and rates."""

from __future__ import annotations

import math
import random
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from speechft import audio, files, spoken
from speechft.adapt import strategies
from speechft.augment import settings as tables_of
from speechft.augment.settings import Transforms
from speechft.errors import InputError
from speechft.ingest import readers
from speechft.ingest.stage import sides_of
from speechft.manifest import Reject
from speechft.run import Run
from speechft.whisper import operations, source
from speechft.whisper.operations import Shape

# Measured on 2 cores with bf16, 10^9 operations a second: up to `nano`'s width by the demo's stages, beyond it by those
# of tiny to small (docs/benchmarks/speed.json, encode_s_per_view and epoch_s).
NARROW = 256
ENCODER_GFLOPS, NARROW_ENCODER_GFLOPS = 340.0, 180.0
DECODER_GFLOPS, NARROW_DECODER_GFLOPS = 220.0, 130.0  # of the states that are heard
GENERATING_GFLOPS = 60.0
LEAST_ROW_S = 0.02  # to generate one, however small the model
TOKENS_A_SECOND = 4.0
FILL = 0.9  # of a packed window holds clips and gaps
PROMPT_TRIALS = 4  # shares of the term list, see adapt/prompt.py
PROBED = 20  # recordings of a role at most, where no row tells its length
SPOKEN_S = 3.5  # a sentence of `synth`
# Seconds of a core a second of audio in a view (docs/benchmarks/augment_speed.md), for 2 cores: to read and write it, and
# each transform. Making an accent is one pass, whatever of it changes; a command's voice takes what it takes.
CORES = 2
READ_WRITE_S, OTHER_S = 0.0022, 0.0003
TRANSFORM_S = {"say": 0.003, "tempo": 0.0014, **dict.fromkeys(("pitch", "formants", "contour", "rhythm"), 0.0013)}
CODEC_S = {"opus": 0.033, "mp3": 0.0018, "vorbis": 0.003}
FLOAT32_SLOWER = 2.5  # what runs the model, on a processor without bf16 (docs/log.md, 2026-11-25)
# One H200 in bf16 (small and turbo in docs/benchmarks/speed.json): a window is at least read and brought to the disk (the
# demo, docs/log.md, 2026-11-27), and a step, once its passes are recorded, what its kernels take however little each does.
CARD_ENCODER_GFLOPS, CARD_WINDOW_S = 330e3, 0.0045
CARD_DECODER_GFLOPS = 90e3
CARD_STEP_S = {True: (0.01, 0.0009), False: (0.014, 0.0047)}  # recorded or not: a step, and more for each decoder layer
CARD_ROW_S = 0.0015  # to generate one, of each decoder layer


@dataclass(frozen=True, kw_only=True)
class Load:
    """Rows of a role and their seconds of audio."""

    rows: int = 0
    seconds: float = 0.0

    def plus(self, rows: int, seconds: float) -> Load:
        """This and so many rows and seconds more."""
        return Load(rows=self.rows + rows, seconds=self.seconds + seconds)


def describe(run: Run) -> str:
    """The plan as a table.

    Raises:
        InputError: a manifest or model cannot be read.
    """
    run.check_ahead()
    pipeline, shape = run.pipeline, shape_of(run)
    settings, roles = pipeline.finetune, loads(run)
    everything = sum(load.rows for load in roles.values())
    seconds = sum(load.seconds for load in roles.values())
    rounds = pipeline.augment.views + 1
    train, replay = roles["train"], roles["general_train"] if settings.replay_share else Load()
    domain = _windows(run, train)
    kept = rounds * domain + (_windows(run, replay) if replay.rows else 0.0)
    checked = roles["dev"].rows + roles["general_dev"].rows
    reported = roles["test"].rows * (1 + len(pipeline.conditions)) + roles["general_test"].rows
    encoded = reported + sum({"choosing": checked, "train": kept}.get(name, 0.0) for name in run.stores())
    card, slower, machine = _machine()
    narrow = shape.d_model <= NARROW
    window_s = operations.encoder(shape) / (NARROW_ENCODER_GFLOPS if narrow else ENCODER_GFLOPS) / 1e9
    if card:
        window_s = max(CARD_WINDOW_S, operations.encoder(shape) / CARD_ENCODER_GFLOPS / 1e9)
    kept_gb = encoded * operations.POSITIONS * shape.d_model * 2 / 1e9
    learned = domain / max(0.05, 1 - settings.replay_share if replay.rows else 1.0)  # windows of an epoch
    labels = TOKENS_A_SECOND * train.seconds * learned / max(domain, 1e-9)
    # On a card windows mostly stay whole: a pass more would cost more than silence does.
    heard = learned if card or run.learns_from != "states" else learned * _heard(run, train) / domain
    epoch = operations.decoder_training(shape, windows=heard, tokens=1.3 * labels, labels=labels) / 1e9
    train_s = settings.epochs * epoch / (NARROW_DECODER_GFLOPS if narrow else DECODER_GFLOPS)
    if card:
        step_s, layer_s = CARD_STEP_S[run.learns_from == "states"]
        least_s = _steps(run, shape, train, replay) * (step_s + layer_s * shape.decoder_layers)
        train_s = max(least_s, settings.epochs * epoch / CARD_DECODER_GFLOPS)
    train_s *= 1 + settings.distil * settings.replay_share / 3
    if settings.strategy == "prompt":
        train_s = 0.0
    elif run.learns_from != "states":
        train_s += settings.epochs * learned * 3 * window_s
    forward = sum(operations.decoder_forward(shape, windows=1, tokens=30, labels=30))
    row_s = CARD_ROW_S * shape.decoder_layers if card else max(LEAST_ROW_S, forward / GENERATING_GFLOPS / 1e9)
    known = 1.0 in settings.blends and settings.strategy != "lora"  # the best epoch's rates are alpha 1's
    trials = 1 + _evaluations(run) + len(settings.blends) - known
    if settings.strategy == "prompt":
        trials = PROMPT_TRIALS
    again_s = slower * window_s if run.learns_from == "audio" else 0.0  # such a row is encoded whenever it is decoded
    trained_gb = shape.parameters * 4e-9
    tuned_s = slower * train_s + trials * checked * (slower * row_s + again_s)
    views = f"{pipeline.augment.views} views, {len(pipeline.conditions)} conditions"
    made_s = train.seconds * pipeline.augment.views + roles["test"].seconds * len(pipeline.conditions)
    said = {role: len(lines) for role, lines in spoken.script_of(run).items()}
    rows = [
        ("ingest", f"{everything:,} rows, {seconds / 60:.0f} min of audio", 0.002 * everything, 0.0),
        ("augment", views, _making_s(run, roles), made_s * 2e-5),
        ("encode", f"about {encoded:,.0f} windows", slower * encoded * window_s, kept_gb),
        ("finetune", _training(run, shape, train, replay), tuned_s, trained_gb),
        ("transcribe", f"{reported:,} rows, before and after", reported * (2 * slower * row_s + again_s), 0.0),
        ("score", f"{pipeline.score.resamples:,} resamples", 1.0, 0.0),
        ("report", "report.html, .md, .json", 1.0, 0.0),
    ]  # fmt: skip
    if said:
        whose = ", and what the command takes" if pipeline.synth and "command" in pipeline.synth.voices else ""
        rows.insert(0, ("synth", f"{sum(said.values()):,} sentences{whose}", 0.01 * sum(said.values()), 0.0))
    lines = [f"{'stage':<12}{'what':<44}{'minutes':>9}{'disk GB':>9}"]
    lines += [f"{name:<12}{what:<44}{seconds / 60:>9.1f}{gb:>9.2f}" for name, what, seconds, gb in rows]
    total_s, total_gb = sum(r[2] for r in rows), sum(r[3] for r in rows)
    lines.append(f"{'all':<12}{machine:<44}{total_s / 60:>9.1f}{total_gb:>9.2f}")
    # The model and the base's copy; two moments and a gradient of what trains.
    memory_gb = 1.2 + 8e-9 * shape.parameters + 12e-9 * trained_values(run, shape) + 0.1 * shape.d_model / 192
    lines.append(f"memory: about {memory_gb:.1f} GB; results in {run.dir}")
    return "\n".join(lines)


def trained_values(run: Run, shape: Shape) -> int:
    """How many values train at most, biases and norms left out, as `adapt.strategies` chooses them."""
    settings, d = run.pipeline.finetune, shape.d_model
    decoder = round(shape.decoder_share * shape.parameters)
    if settings.strategy == "lora":
        # A pair of factors for each matrix: four or eight of attention, two of feed-forward.
        layers = 26 * shape.decoder_layers + 18 * shape.encoder_layers * settings.lora_encoder
        return layers * settings.lora_rank * d
    return {
        "prompt": 0,
        "head": shape.vocabulary * d,
        "upper": 16 * min(settings.upper_layers, shape.decoder_layers) * d * d,
        "progressive": decoder + 12 * min(settings.encoder_layers, shape.encoder_layers) * d * d,
        "decoder": decoder,
    }.get(settings.strategy, shape.parameters - operations.POSITIONS * d)


def _evaluations(run: Run) -> int:
    """How often training measures dev WER."""
    from speechft.adapt.steps import evaluated_every  # with torch, which nothing else here needs

    settings = run.pipeline.finetune
    return math.ceil(settings.epochs / evaluated_every(settings.epochs, settings.thaw))


def _training(run: Run, shape: Shape, train: Load, replay: Load) -> str:
    """The strategy, with its epochs and steps; a step is full once its last window is in, so there may be fewer."""
    settings = run.pipeline.finetune
    if settings.strategy == "prompt":
        return "prompt, no training"
    return f"{settings.strategy}, {settings.epochs} epochs, about {_steps(run, shape, train, replay):,} steps"


def _steps(run: Run, shape: Shape, train: Load, replay: Load) -> int:
    """Optimiser steps of all epochs."""
    settings = run.pipeline.finetune
    clips = settings.batch_clips or strategies.size_defaults(shape.d_model, settings.strategy).batch_clips
    replayed = round(clips * settings.replay_share) if replay.rows else 0
    return settings.epochs * math.ceil(train.rows / max(1, clips - replayed))


def _making_s(run: Run, roles: Mapping[str, Load]) -> float:
    """Seconds that views and conditions take to make."""
    settings = run.pipeline.augment
    views = tables_of.check(settings.transforms or tables_of.DEFAULT)
    made = [(views, settings.views * roles["train"].seconds)]
    for name, tables in run.pipeline.conditions.items():
        made.append((tables_of.check_condition(tables, name=name), roles["test"].seconds))
    return sum(seconds * _core_s(tables) for tables, seconds in made) / CORES


def _core_s(tables: Transforms) -> float:
    """Seconds of a core that a second of audio takes on average."""
    total = READ_WRITE_S
    for name in Transforms.model_fields:
        if (table := getattr(tables, name)) is not None:
            cost = TRANSFORM_S.get(name, OTHER_S)
            if name == "codec":
                cost = sum(CODEC_S[codec] for codec in table.formats) / len(table.formats)
            total += table.p * cost
    return total


def _machine() -> tuple[bool, float, str]:
    """Whether a GPU runs the model, else how many times slower than by the measured rates it runs here; what the
    estimate is for."""
    from speechft.whisper import load

    device = load.choose_device()
    if device.name == "cuda":
        return True, 1.0, "estimated by one H200's rates"
    if device.precision.itemsize > 2:
        return False, FLOAT32_SLOWER, "estimated for 2 CPU cores without bf16"
    return False, 1.0, "estimated for 2 CPU cores with bf16"


def shape_of(run: Run) -> Shape:
    """From the model's config when it is local, else the published dimensions.

    Raises:
        InputError: neither is known.
    """
    base = run.pipeline.model.base
    if folder := run.base_folder:
        config = files.read_json(folder / "config.json")
        keys = ("d_model", "encoder_layers", "decoder_layers", "vocab_size", "num_mel_bins")
        if missing := [key for key in keys if key not in config]:
            raise InputError(f"{folder}/config.json: lacks {', '.join(missing)}; give the directory of a Whisper model")
        return Shape(
            d_model=config["d_model"], encoder_layers=config["encoder_layers"],
            decoder_layers=config["decoder_layers"], vocabulary=config["vocab_size"], n_mels=config["num_mel_bins"],
        )  # fmt: skip
    if not source.is_hub_id(base):
        source.find(base)  # says what is wrong
    for name, shape in reversed(operations.PUBLISHED.items()):
        if name in base and "distil" not in base:  # whose decoders have two layers
            return shape
    raise InputError(f"model.base = {base!r}: its size is not known before it is fetched; use a local directory")


def _probed(paths: Sequence[Path]) -> Load:
    """The length of recordings whose rows do not tell it, as far as they can be read; `ingest` rejects the others.

    Raises:
        InputError: none can be read.
    """
    known, failed = Load(), None
    for path in paths:
        try:
            known = known.plus(1, audio.probe(path).duration_s)
        except audio.AudioError as error:
            failed = failed or error
    if not known.rows and failed:
        raise failed
    return known


def _windows(run: Run, load: Load, *, lone: float = 1.0) -> float:
    """Windows of a view: a share of the clips alone, each counted as `lone`, the others packed with gaps."""
    settings = run.pipeline.encode
    alone = settings.single_share if settings.pack else 1.0
    gap_s = sum(settings.gap_s) / 2
    packed_s = (1 - alone) * (load.seconds + gap_s * load.rows)
    return max(1.0, lone * alone * load.rows + packed_s / (30 * FILL))


def _heard(run: Run, load: Load) -> float:
    """Windows whose states a view's decoder passes read: of one clip alone, all but some of the silence."""
    from speechft.adapt.passes import SILENCE_S, WHOLE_SHARE  # with torch

    part = min(1.0, (load.seconds / max(1, load.rows) + sum(SILENCE_S) / 2) / 30)
    return _windows(run, load, lone=WHOLE_SHARE + (1 - WHOLE_SHARE) * part)


def loads(run: Run) -> dict[str, Load]:
    """Rows and audio of each role, divided as `ingest` will.

    Raises:
        InputError: more rows cannot be read than `ingest` would let pass.
    """
    data = run.pipeline.data
    named = {"train": data.train, "dev": data.dev, "test": data.test, "general": data.general}
    rows: Counter[str] = Counter()
    told: dict[str, Load] = {}  # those that say how long they are
    samples = defaultdict[str, list[Path]](list)
    rejected, reject = 0, None
    for row in readers.Manifests({role: paths for role, paths in named.items() if paths}):
        if isinstance(row, Reject):
            rejected, reject = rejected + 1, reject or row
        else:
            rows[row.role] += 1
            place = rows[row.role] - 1
            if place >= PROBED:  # any row as likely as any other
                place = random.Random(f"{row.role}:{place}").randrange(rows[row.role])
            if place < PROBED:
                samples[row.role][place : place + 1] = [Path(row.utterance.audio_filepath or "")]
            if row.utterance.duration:
                told[row.role] = told.get(row.role, Load()).plus(1, row.utterance.duration)
    total = rows.total() + rejected
    if reject and rejected > data.max_rejected_share * total:
        raise InputError(f"{rejected:,} of {total:,} rows cannot be used (such as {reject.detail})")
    found = {role: Load() for role in readers.ROLES}
    for role, count in rows.items():
        known = told.get(role) or _probed(samples[role])
        seconds = count * known.seconds / known.rows
        for name, share in sides_of(role, data.general_dev_share, has_dev=bool(data.dev)).items():
            found[name] = found[name].plus(round(share * count), share * seconds)
    for role, lines in spoken.script_of(run).items():
        found[role] = found[role].plus(len(lines), len(lines) * SPOKEN_S)
    train, share = found["train"], data.train_share
    found["train"] = Load(rows=math.ceil(share * train.rows), seconds=share * train.seconds)
    return found
