"""The whole job on other bases and by other strategies than the demo's, as make runs it."""

from __future__ import annotations

import json
from pathlib import Path

import any_whisper
import pytest
import torch
import transformers
from test_pipeline import CLINICAL, rows_of, write_pipeline

from speechft import cli, config, files, stages
from speechft.run import Run
from speechft.whisper import load


def finish(pipeline: Path, runs: Path, *settings: str, name: str) -> Path:
    """Run by the command, in this process, which has imported what it needs; the run's folder."""
    sets = [part for setting in settings for part in ("--set", setting)]
    assert cli.main(["run", "--pipeline", str(pipeline), "--runs", str(runs), "--run", name, *sets]) == 0
    return runs / name


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pipeline(tmp_path_factory.mktemp("small"))


def test_a_multilingual_whisper_from_a_directory(tmp_path: Path) -> None:
    """The same pipeline, without weights that know anything: 51865 tokens, German."""
    base = any_whisper.save(tmp_path / "base", 51865)
    model = transformers.WhisperForConditionalGeneration.from_pretrained(base)
    with torch.no_grad():  # it ends soon, where random weights babble to the last position
        towards = model.model.decoder.embed_tokens.weight[model.config.eos_token_id]
        towards += 0.1  # zeros so far, as the padding's
        model.model.decoder.layer_norm.bias += 100 * towards
    blocked = any_whisper.tokenizer(51865).encode(" 120/80", add_special_tokens=False)
    model.generation_config.suppress_tokens = blocked  # as the released models block it
    model.save_pretrained(base)
    pipeline = write_pipeline(tmp_path)
    rows = (tmp_path / "test.jsonl").read_text().splitlines()
    first = json.loads(rows[0])
    first["text"] += " 120/80"
    (tmp_path / "test.jsonl").write_text("\n".join([json.dumps(first), *rows[1:]]) + "\n")
    settings = (
        f"model.base={base}",
        "model.language=de",
        "finetune.epochs=1",
        "finetune.strategy=lora",
        "finetune.learning_rate=1e-4",  # so little that it still ends soon
    )
    run = finish(pipeline, tmp_path / "runs", *settings, name="german")
    report = json.loads((run / "report.json").read_text())
    assert report["wer"]["words"] > 20
    assert report["suppressed"]["base_blocks"]  # the base is scored with leave to write them too
    assert report["suppressed"]["before_released"]["words"] == report["wer"]["words"]
    assert (run / "transcribe" / "before_released.jsonl").exists()
    adapted = load.load(str(run / "finetune" / "model"))
    assert (adapted.language, adapted.multilingual) == ("de", True)
    weights = [load.load(str(path)).model.state_dict() for path in (base, run / "finetune" / "model")]
    changed = {name for name in weights[0] if not torch.equal(weights[0][name], weights[1][name])}
    assert changed
    assert all(name.startswith("model.decoder.layers.") for name in changed)


def test_everything_trains_from_audio_and_nothing_under_prompt(pipeline: Path) -> None:
    """The two ends of the strategies, by the same command, with what a share of the windows may get."""
    shares = ["finetune.timestamp_share=0.3", "finetune.previous_share=0.3"]
    terms = f"data.terms={CLINICAL / 'terms.jsonl'}"
    runs, base = pipeline.parent / "runs", load.load("nano").model.state_dict()
    changed: dict[str, set[str]] = {}
    for strategy, settings in (("full", shares), ("prompt", [terms])):
        given = ["finetune.epochs=1", f"finetune.strategy={strategy}", *settings]
        run = finish(pipeline, runs, *given, name=strategy)
        assert json.loads((run / "report.json").read_text())["wer"]["words"] > 20
        adapted = load.load(str(run / "finetune" / "model"))
        changed[strategy] = {n for n, value in adapted.model.state_dict().items() if not torch.equal(value, base[n])}
        choice = json.loads((run / "finetune" / "choice.json").read_text())
        assert (adapted.prompt or None) == (choice.get("prompt") or None)
        assert not list((run / "finetune").glob("*.pt"))  # checkpoints go once there is a model
    assert changed["prompt"] == set()
    assert {"model.encoder.conv1.weight", "model.decoder.layers.0.fc1.weight"} <= changed["full"]


def test_from_random_weights_by_one_word(tmp_path: Path) -> None:
    """`scratch` on anybody's rows: nothing of the base is left but its shape, and what is reported is the base's."""
    for name, count in (("train", 6), ("dev", 2), ("test", 2)):
        files.write_jsonl(tmp_path / f"{name}.jsonl", rows_of(f"{name}.jsonl", count=count))
    named = "\n".join(f'{name} = "{tmp_path / name}.jsonl"' for name in ("train", "dev", "test"))
    (tmp_path / "p.toml").write_text(
        f'[data]\n{named}\nallow_leaks = ["speaker"]\n[augment]\nviews = 0\n'
        '[finetune]\nstrategy = "scratch"\nepochs = 1\n'
    )
    run = Run(config.load(tmp_path / "p.toml"), tmp_path / "runs" / "p")
    stages.run_stages(run, ("ingest", "augment", "encode", "finetune"))
    made = files.read_json(run.dir / "finetune" / "stage.json")
    base, adapted = load.load("nano").model, load.load(str(run.dir / "finetune" / "model")).model
    assert (
        made["choice"]["dev_wer_before"] < 1.0 < made["choice"]["dev_wer"] + 0.5
    )  # of nano, and of what knows nothing
    assert [point["alpha"] for point in made["choice"]["points"]] == [1.0]
    assert made["recipe"]["learning_rate"] == pytest.approx(2e-3)
    still = [n for n, value in adapted.state_dict().items() if torch.equal(value, base.state_dict()[n])]
    assert still == []
    assert adapted.config.d_model == base.config.d_model
