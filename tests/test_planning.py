"""The plan that is printed before anything starts."""

from pathlib import Path

import any_whisper
import numpy as np
import pytest
import soundfile
import torch

from speechft import config, planning
from speechft.adapt import strategies
from speechft.augment import settings
from speechft.errors import InputError
from speechft.run import Run
from speechft.whisper import load, operations, windows

PROJECT = Path(__file__).resolve().parent.parent


def run_of(monkeypatch: pytest.MonkeyPatch, name: str, *overrides: str) -> Run:
    monkeypatch.chdir(PROJECT)
    return Run(config.load(f"pipelines/{name}.toml", overrides), Path("runs/none"))


def minutes(plan: str, stage: str) -> float:
    return next(float(line.split()[-2]) for line in plan.splitlines() if line.startswith(stage))


def test_rows_and_windows_of_the_demo(monkeypatch: pytest.MonkeyPatch) -> None:
    """Against what its stages count: 1,080 training rows with the spoken ones, 2,392 windows, 610 reported rows."""
    run = run_of(monkeypatch, "demo")
    loads = planning.loads(run)
    assert loads["train"].rows == 1080
    assert loads["general_train"].rows == 870
    plan = planning.describe(run)
    windows = int(plan.split("about ")[1].split(" windows")[0].replace(",", ""))
    assert windows == pytest.approx(2392, rel=0.2)
    assert "1,320 sentences" in plan
    assert 2 < minutes(plan, "all") < 20


def test_values_that_train_are_counted_as_they_are_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory is planned by them: adapters and the head need little beside a whole decoder."""
    model = load.load("nano").model
    shape = planning.Shape(
        d_model=model.config.d_model, encoder_layers=model.config.encoder_layers,
        decoder_layers=model.config.decoder_layers, vocabulary=model.config.vocab_size,
        n_mels=model.config.num_mel_bins,
    )  # fmt: skip
    for strategy in ("prompt", "head", "upper", "decoder", "progressive", "full"):
        run = run_of(monkeypatch, "demo", f"finetune.strategy={strategy}")
        trained, _ = strategies.freeze(model, strategy, upper_layers=2, epoch=1, epochs=2)
        assert planning.trained_values(run, shape) == pytest.approx(trained, rel=0.03), strategy
    for encoder in (False, True):
        run = run_of(monkeypatch, "demo", "finetune.strategy=lora", f"finetune.lora_encoder={str(encoder).lower()}")
        rank = run.pipeline.finetune.lora_rank
        adapted = strategies.adapter_values(model, rank=rank, encoder=encoder)
        assert planning.trained_values(run, shape) == adapted


def test_rows_are_divided_as_ingest_divides_them(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A tenth of train where no dev is named, and general speech by the share that the pipeline gives."""
    row = '{{"id": "{}", "audio_filepath": "a.wav", "text": "x", "duration": 2.0}}\n'
    for name in ("train", "test", "general"):
        (tmp_path / f"{name}.jsonl").write_text("".join(map(row.format, range(100))))
    (tmp_path / "a.wav").touch()
    named = [f"data.{name}={tmp_path / name}.jsonl" for name in ("train", "test", "general")]
    run = run_of(monkeypatch, "start", *named, "data.general_dev_share=0.25")
    rows = {role: load.rows for role, load in planning.loads(run).items()}
    assert rows == {
        "train": 90, "dev": 10, "test": 100, "general_train": 50, "general_dev": 25, "general_test": 25,
    }  # fmt: skip
    assert planning.loads(run)["train"].seconds == pytest.approx(180)


def test_recordings_of_no_told_length_are_looked_at_as_far_as_they_can_be(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    soundfile.write(tmp_path / "a.wav", np.zeros(16_000), 16_000)
    soundfile.write(tmp_path / "b.wav", np.zeros(48_000), 16_000)
    told = [f'{{"id": "{n}", "audio_filepath": "{n}.wav", "text": "x"}}\n' for n in ("gone", "a", "b")]
    for name in ("train", "test"):
        (tmp_path / f"{name}.jsonl").write_text("".join(told))
    run = run_of(monkeypatch, "start", f"data.train={tmp_path}/train.jsonl", f"data.test={tmp_path}/test.jsonl")
    assert planning.loads(run)["test"] == planning.Load(rows=3, seconds=6.0)
    (tmp_path / "test.jsonl").write_text(told[0])
    with pytest.raises(InputError, match=r"gone\.wav: there is no such file"):
        planning.loads(run)


def test_a_directory_of_another_kind_of_model(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"d_model": 64, "model_type": "whisper"}')
    (tmp_path / "model.safetensors").touch()
    (tmp_path / "vocab.json").write_text('{"<|en|>": 1, "<|transcribe|>": 2}')
    with pytest.raises(InputError, match="lacks encoder_layers"):
        planning.describe(run_of(monkeypatch, "demo", f"model.base={tmp_path}"))


def test_what_a_later_stage_would_refuse_is_told_by_the_plan(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="noize"):
        planning.describe(run_of(monkeypatch, "demo", "augment.noize.p=0.5"))
    with pytest.raises(InputError, match="nosuch"):
        planning.describe(run_of(monkeypatch, "demo", "conditions.loud.nosuch.p=0.5"))
    (tmp_path / "config.json").write_text('{"model_type": "whisper"}')
    with pytest.raises(InputError, match="holds no weights"):
        planning.describe(run_of(monkeypatch, "demo", f"model.base={tmp_path}"))
    (tmp_path / "model.safetensors").touch()
    with pytest.raises(InputError, match="holds no tokenizer"):
        planning.describe(run_of(monkeypatch, "demo", f"model.base={tmp_path}"))


def test_a_language_that_the_model_does_not_have_is_told_by_the_plan(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    base = any_whisper.save(tmp_path / "base", 51865)
    planning.describe(run_of(monkeypatch, "demo", f"model.base={base}", "model.language=de", "synth.voices.accents=de"))
    with pytest.raises(InputError, match=r"synth\.voices\.accents: none speaks 'de'"):
        planning.describe(run_of(monkeypatch, "demo", f"model.base={base}", "model.language=de"))
    with pytest.raises(InputError, match=r"no token <\|german\|>.*given by code"):
        planning.describe(run_of(monkeypatch, "demo", f"model.base={base}", "model.language=german"))


def test_heavier_work_takes_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    light = planning.describe(run_of(monkeypatch, "demo", "finetune.strategy=prompt"))
    usual = planning.describe(run_of(monkeypatch, "demo"))
    full = planning.describe(run_of(monkeypatch, "demo", "finetune.strategy=full"))
    assert minutes(light, "encode") < minutes(usual, "encode")
    assert minutes(full, "encode") < minutes(usual, "encode")  # only the rows that are decoded
    assert minutes(full, "finetune") > minutes(usual, "finetune")
    large = planning.describe(run_of(monkeypatch, "demo", "model.base=openai/whisper-large-v3"))
    assert minutes(large, "all") > 50 * minutes(usual, "all")


def test_dear_transforms_cost_what_they_were_measured_to(monkeypatch: pytest.MonkeyPatch) -> None:
    """14 s of a core for an hour by the default chain, 117 more where all of it is coded as Opus."""
    run = run_of(monkeypatch, "demo", 'augment.codec.formats="opus"', "augment.codec.p=1.0")
    roles = {"train": planning.Load(rows=720, seconds=3600.0), "test": planning.Load()}
    only_opus = planning._making_s(run, roles)
    assert only_opus == pytest.approx(run.pipeline.augment.views * (8 + 117) / 2, rel=0.1)
    assert planning._core_s(settings.check(settings.DEFAULT)) * 3600 == pytest.approx(14, rel=0.1)


def test_the_plan_says_what_machine_it_is_for(monkeypatch: pytest.MonkeyPatch) -> None:
    plans = {}
    for name, precision in (("cpu", torch.bfloat16), ("cpu", torch.float32), ("cuda", torch.bfloat16)):
        device = load.Device(name=name, precision=precision, reason="a test")
        monkeypatch.setattr(load, "choose_device", lambda device=device: device)
        plans[name, precision] = planning.describe(run_of(monkeypatch, "demo"))
    usual, slow, card = plans.values()
    assert "2 CPU cores with bf16" in usual
    assert minutes(slow, "encode") == pytest.approx(planning.FLOAT32_SLOWER * minutes(usual, "encode"), rel=0.1)
    assert minutes(slow, "augment") == minutes(usual, "augment")
    assert "by one H200's rates" in card
    # docs/log.md, 2026-11-27: 22.5 s and 41.3 s, starting included, the second before passes were recorded.
    assert minutes(card, "encode") * 60 == pytest.approx(22.5, rel=0.5)
    assert 10 < minutes(card, "finetune") * 60 < 41.3


def test_silence_behind_lone_clips_costs_little(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 3 s alone in a window, 5.5 s of 30 are learned from, and all 30 in a tenth of the steps."""
    run = run_of(monkeypatch, "demo", "encode.single_share=1")
    load = planning.Load(rows=1000, seconds=3000.0)
    assert planning._windows(run, load) == pytest.approx(1000, rel=0.001)
    assert planning._heard(run, load) == pytest.approx(1000 * (0.1 + 0.9 * 5.5 / 30))
    packed = run_of(monkeypatch, "demo", "encode.single_share=0")
    assert planning._heard(packed, load) == planning._windows(packed, load)


def test_an_unknown_size_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="its size is not known"):
        planning.describe(run_of(monkeypatch, "demo", "model.base=someone/whisper-thing"))


def test_counts_are_of_the_windows_that_are_encoded() -> None:
    assert operations.FRAMES == windows.N_FRAMES


def test_published_sizes_have_their_published_parameters() -> None:
    """In millions, Radford et al. 2022, table 1; turbo's from its model card."""
    told = {"tiny": 39, "base": 74, "small": 244, "medium": 769, "large": 1550, "turbo": 809}
    for name, millions in told.items():
        assert operations.PUBLISHED[name].parameters / 1e6 == pytest.approx(millions, rel=0.04)
