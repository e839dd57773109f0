"""The whole job on a small part of the demo, as make runs it: once, again, and killed in the middle."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import soundfile
import torch
from test_team import LAUNCH

from speechft import adaptation, cli, config, files, learning_curve, locks, manifest, stages, text
from speechft.errors import InputError
from speechft.run import Run
from speechft.transcription import encoder_is_base
from speechft.whisper import decode, load, tokens

PROJECT = Path(__file__).resolve().parent.parent
CLINICAL = PROJECT / "manifests" / "clinical"
# One thread: a killed and a whole run are compared number by number.
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}


def rows_of(name: str, *, keep: Callable[[dict], bool] = lambda row: True, count: int) -> list[dict]:
    rows = [json.loads(line) for line in (CLINICAL / name).read_text().splitlines()]
    chosen = [row for row in rows if keep(row)][:count]
    return [{**row, "audio_filepath": str(CLINICAL / row["audio_filepath"])} for row in chosen]


def write_pipeline(folder: Path) -> Path:
    parts = {
        "train": rows_of("train.jsonl", count=16),
        "dev": rows_of("dev.jsonl", count=4),
        "test": rows_of("test.jsonl", count=6),
        "general": [
            row
            for split, count in (("general_train", 8), ("general_dev", 4), ("general_test", 6))
            for row in rows_of("general_speech.jsonl", keep=lambda row, split=split: row["split"] == split, count=count)  # type: ignore[misc]
        ],
    }
    for name, rows in parts.items():
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    named = "\n".join(f'{name} = "{folder / name}.jsonl"' for name in parts)
    path = folder / "small.toml"
    path.write_text(
        f"[data]\n{named}\n[augment]\nviews = 1\n[augment.gain]\np = 1.0\n"
        "[finetune]\nepochs = 3\nbatch_clips = 8\nreplay_share = 0.25\nalphas = [1.0]\n[score]\nresamples = 200\n"
    )
    return path


def command(pipeline: Path, runs: Path, *more: str) -> list[str]:
    return [sys.executable, "scripts/run.py", "--pipeline", str(pipeline), "--runs", str(runs), "--run", "small", *more]


def finish(pipeline: Path, runs: Path, *more: str) -> str:
    """Run to the end; what was said."""
    done = subprocess.run(command(pipeline, runs, *more), cwd=PROJECT, env=ENVIRONMENT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


def kill_when(reached: Callable[[], bool], pipeline: Path, runs: Path, number: int = signal.SIGKILL) -> int:
    """Start the job and send it a signal as soon as something is there; its exit status."""
    process = subprocess.Popen(
        command(pipeline, runs), cwd=PROJECT, env=ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        start_new_session=True,
    )  # fmt: skip
    ends = time.monotonic() + 120
    while not reached():
        assert process.poll() is None, "the job ended before it could be killed"
        assert time.monotonic() < ends
        time.sleep(0.02)
    os.killpg(process.pid, number)
    return process.wait()


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pipeline(tmp_path_factory.mktemp("small"))


@pytest.fixture(scope="module")
def whole(pipeline: Path) -> Path:
    """The folder of a run that nothing stopped."""
    finish(pipeline, pipeline.parent / "whole")
    return pipeline.parent / "whole" / "small"


def test_the_job_ends_with_a_report_a_model_and_a_verdict(whole: Path) -> None:
    report = json.loads((whole / "report.json").read_text())
    assert report["wer"]["words"] > 20
    assert report["general_wer"]["words"] > 20
    assert report["verdict"]["sentence"]
    assert report["synthetic"] is True
    for name in ("report.html", "report.md", "augment/preview.html", "finetune/model/model.safetensors"):
        assert (whole / name).stat().st_size > 0, name
    assert all(seconds > 0 for seconds in report["seconds"].values())


def test_a_second_run_has_nothing_to_do(whole: Path, pipeline: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in whole.rglob("stage.json")}
    made = ["make", "-o", f"{sys.prefix}/.ready", f"VENV={sys.prefix}", "run", f"PIPELINE={pipeline}"]
    done = subprocess.run(
        [*made, f"RUNS={whole.parent}", "RUN=small"], cwd=PROJECT, env=ENVIRONMENT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "nothing to do" in done.stdout
    assert done.stderr.count(": up to date") == 7
    assert {path: path.stat().st_mtime_ns for path in whole.rglob("stage.json")} == before


def test_a_learning_curve_is_of_runs_with_as_many_steps(
    whole: Path, pipeline: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    named = ["--pipeline", str(pipeline), "--runs", str(whole.parent), "--run", "small"]
    assert cli.main(["learning-curve", *named, "--shares", "0.5"]) == 0
    result = files.read_json(whole / "learning_curve" / "learning_curve.json")
    half, all_rows = result["points"]
    assert (half["rows"], all_rows["rows"], half["run"]) == (8, 16, "small-share-0.5")
    assert abs(half["steps"] - all_rows["steps"]) <= 1
    assert all_rows["rate"] == json.loads((whole / "report.json").read_text())["wer"]["after"]
    assert result["difference"]["value"] == pytest.approx(all_rows["rate"] - half["rate"])
    assert [more["times"] for more in result["further"]] == [2, 4]
    assert "From 50 % of the training rows to all of them, word errors changed by" in capsys.readouterr().out
    surely = result | {"difference": {"value": -0.2, "ci95": [-0.3, -0.1], "drawn": "over 5 speakers"}}
    assert "would change by" in learning_curve.sentence(surely)
    assert "would change" not in learning_curve.sentence(surely | {"further": []})  # no error is left
    with pytest.raises(InputError, match="different fractions"):
        learning_curve.measure(Run(config.load(pipeline), whole), [0.5, 1.0])
    (whole.parent / "small-share-0.4").symlink_to(whole)
    with pytest.raises(InputError, match=r"small-share-0\.4 holds another run"):
        learning_curve.measure(Run(config.load(pipeline), whole), [0.4])


def test_a_killed_run_ends_with_the_same_report(whole: Path, pipeline: Path) -> None:
    runs = pipeline.parent / "killed"
    run = runs / "small"
    kill_when(lambda: any((run / "augment" / "views").rglob("*.json")), pipeline, runs)
    kill_when(lambda: any(runs.glob("states/*/shard-*.npy")), pipeline, runs)
    ingested = (run / "ingest" / "stage.json").stat().st_mtime_ns
    kill_when(lambda: (run / "finetune" / "best.pt").exists(), pipeline, runs)
    checkpoint = run / "finetune" / "checkpoint.pt"
    killed = checkpoint.stat().st_mtime_ns
    ended = kill_when(lambda: checkpoint.stat().st_mtime_ns > killed, pipeline, runs, signal.SIGTERM)
    assert ended == 128 + signal.SIGTERM
    assert not (run / "finetune" / "stage.json").exists()
    finish(pipeline, runs)
    assert (run / "ingest" / "stage.json").stat().st_mtime_ns == ingested
    scores = [json.loads((folder / "score" / "score.json").read_text()) for folder in (whole, run)]
    assert scores[0] == scores[1]
    curves = [(folder / "finetune" / "curve.jsonl").read_text() for folder in (whole, run)]
    assert curves[0] == curves[1]


def test_the_model_transcribes_somebodys_own_file(whole: Path) -> None:
    row = rows_of("train.jsonl", count=1)[0]
    done = subprocess.run(
        [str(Path(sys.executable).parent / "speechft"), "transcribe", row["audio_filepath"],
         "--model", str(whole / "finetune" / "model")],
        cwd=PROJECT, env=ENVIRONMENT, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.split()) >= 3


def test_a_change_repeats_what_depends_on_it_and_nothing_else(
    whole: Path, pipeline: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Test conditions retrain nothing; another run that makes the same views finds their states; where the encoder
    stays, no row is decoded from audio."""
    monkeypatch.setattr(decode, "from_audio", lambda *_, **__: pytest.fail("decoded from audio"))
    runs = tmp_path / "runs"
    shutil.copytree(whole.parent, runs)
    again = runs / "small"

    def redone(*settings: str) -> set[str]:
        before = {path.parent.name: path.stat().st_mtime_ns for path in again.glob("*/stage.json")}
        stages.run_stages(Run(config.load(pipeline, ["finetune.epochs=1", *settings]), again))
        after = {path.parent.name: path.stat().st_mtime_ns for path in again.glob("*/stage.json")}
        return {name for name in after if after[name] != before.get(name)}

    redone()  # the copy's paths are new
    condition = "conditions.loud.gain.p=1.0"
    assert redone(condition) == {"conditions", "encode", "transcribe", "score", "report"}
    assert redone(condition, "decode.beam=2") == {"finetune", "transcribe", "score", "report"}
    other = redone(condition, "finetune.strategy=head", "finetune.learning_rate=1e-4")
    assert other == {"finetune", "transcribe", "score", "report"}  # from the same states
    stores = {path.name for path in (runs / "states").iterdir()}
    shutil.rmtree(again)
    redone(condition)
    assert {path.name for path in (runs / "states").iterdir()} == stores


def test_a_recording_made_anew_is_noticed(tmp_path: Path) -> None:
    path = write_pipeline(tmp_path)
    rows = files.read_jsonl(tmp_path / "train.jsonl")
    own = tmp_path / "own.flac"
    shutil.copy(rows[0]["audio_filepath"], own)
    files.write_jsonl(tmp_path / "train.jsonl", [{**rows[0], "audio_filepath": str(own)}, *rows[1:]])
    run = Run(config.load(path), tmp_path / "runs" / "small")
    assert stages.ingest(run)
    assert not stages.ingest(run)
    before = {row.id: row.extra[manifest.SOUND] for row in run.rows("train")}
    soundfile.write(own, soundfile.read(own)[0][::-1], soundfile.info(own).samplerate)
    assert stages.ingest(run)
    after = {row.id: row.extra[manifest.SOUND] for row in run.rows("train")}
    assert [identity for identity in before if before[identity] != after[identity]] == [rows[0]["id"]]


def test_what_the_encoder_learns_from_is_part_of_what_finetune_depends_on(tmp_path: Path) -> None:
    """Under `full` no store of states tells that the views sound otherwise, at the same paths and lengths."""
    path, told = write_pipeline(tmp_path), []
    for gain in ("[-10.0, -9.0]", "[-3.0, -2.0]"):
        settings = [f"augment.gain.db={gain}", "finetune.strategy=full"]
        run = Run(config.load(path, settings), tmp_path / "runs" / "small")
        stages.run_stages(run, ("ingest", "augment", "encode"))
        told.append(files.read_jsonl(run.dir / "encode" / "windows.jsonl"))
    assert told[0] != told[1]
    for window in [*told[0], *told[1]]:
        for clip in window["clips"]:
            del clip["sound"]
    assert told[0] == told[1]


def test_noise_that_cannot_be_used_is_named_counted_and_never_of_test_rows(tmp_path: Path) -> None:
    """A folder with a good file, a broken one and copies of a test and of a general test row, under other names."""
    path = write_pipeline(tmp_path)
    (tmp_path / "noise").mkdir()
    (tmp_path / "noise" / "broken.wav").write_bytes(b"RIFF but not really")
    speech = {name: files.read_jsonl(tmp_path / f"{name}.jsonl") for name in ("train", "test", "general")}
    checked = next(row for row in speech["general"] if row["split"] == "general_test")
    for name, row in (("good", speech["train"][0]), ("test", speech["test"][0]), ("general", checked)):
        shutil.copy(row["audio_filepath"], (tmp_path / "noise" / name).with_suffix(Path(row["audio_filepath"]).suffix))
    noise = [f"augment.noise.{what}" for what in ('kinds=["recorded"]', "p=1.0", f"from={tmp_path / 'noise'}")]
    run = Run(config.load(path, noise), tmp_path / "runs" / "small")
    stages.run_stages(run, ("ingest", "augment"))
    told = files.read_jsonl(run.dir / "augment" / "rejects.jsonl")
    assert {Path(row["row"]["audio_filepath"]).stem for row in told} == {"broken", "test", "general"}
    counted = files.read_json(run.dir / "augment" / "stage.json")["counts"]["rejected"]
    assert sum(counted.values()) == 3
    assert counted["noise: kept apart"] == 2
    views = [row for row in files.read_jsonl(run.dir / "augment" / "train.jsonl") if row.get("view")]
    heard = {Path(step["source"]).stem for row in views for step in row["transform"] if step["name"] == "noise"}
    assert heard == {"good"}


def test_terms_alone_by_one_make_target(tmp_path: Path) -> None:
    """What make would run, as a plan: every stage from the spoken rows on."""
    (tmp_path / "terms.txt").write_text("flibanserin\nzolpidem\n")
    make = ["make", "-o", f"{sys.prefix}/.ready", f"VENV={sys.prefix}", "terms"]
    named = ["-n", f"TERMS={tmp_path / 'terms.txt'}", f"RUNS={tmp_path}", 'SET=data.allow_leaks=["text","audio"]']
    told = subprocess.run([*make, *named], cwd=PROJECT, capture_output=True, text=True, check=True).stdout
    words = shlex.split(next(line for line in told.splitlines() if "scripts/run.py" in line))  # make may say more
    planned = subprocess.run([*words, "--plan"], cwd=PROJECT, env=ENVIRONMENT, capture_output=True, text=True)
    assert planned.returncode == 0, planned.stderr
    assert 'data.allow_leaks=["text","audio"]' in words
    assert all(stage in planned.stdout for stage in ("synth", *stages.ORDER))
    unnamed = subprocess.run(make, cwd=PROJECT, capture_output=True, text=True)
    assert unnamed.returncode == 2
    assert "name a term list" in unnamed.stderr


def test_states_serve_only_where_the_encoder_is_the_bases(pipeline: Path, tmp_path: Path) -> None:
    for strategy, trained, serve in (
        ("decoder", True, True), ("full", True, False), ("full", False, True), ("lora", True, True),
    ):  # fmt: skip
        run = Run(config.load(pipeline, [f"finetune.strategy={strategy}"]), tmp_path)
        assert encoder_is_base(run, SimpleNamespace(trained=trained)) is serve, strategy
    run = Run(config.load(pipeline, ["finetune.strategy=lora", "finetune.lora_encoder=true"]), tmp_path)
    assert not encoder_is_base(run, SimpleNamespace(trained=True))


def test_a_score_by_another_version_of_the_normaliser_is_made_anew(
    whole: Path, pipeline: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Run(config.load(str(pipeline)), shutil.copytree(whole, tmp_path / "small"))
    stages.score(run)  # the copy's paths are new
    assert not stages.score(run)
    monkeypatch.setitem(text.VERSIONS, run.pipeline.score.normaliser, "of another day")
    assert stages.score(run)


def test_two_processes_finetune_under_accelerate(pipeline: Path, whole: Path) -> None:
    """On the states of one process, as docs/adapting.md says: the epoch's loss is that process's. (Nearly so where the
    processor has bf16, as other windows share a pass; in fp32 tests/test_team.py asks for 1e-4.)"""
    run = Run(config.load(pipeline, ["finetune.epochs=1"]), whole.parent / "team")
    stages.run_stages(run, ("ingest", "augment", "encode", "finetune"))
    alone = files.read_jsonl(run.dir / "finetune" / "curve.jsonl")[1]
    shutil.rmtree(run.dir / "finetune")
    options = ["--pipeline", str(pipeline), "--runs", str(whole.parent), "--run", "team", "--set", "finetune.epochs=1"]
    done = subprocess.run(
        [sys.executable, *LAUNCH, "--num_processes", "2", "scripts/finetune.py", *options], cwd=PROJECT,
        env=ENVIRONMENT, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    shared = files.read_jsonl(run.dir / "finetune" / "curve.jsonl")[1]
    assert shared["loss"] == pytest.approx(alone["loss"], rel=2e-3)
    assert (run.dir / "finetune" / "model" / "model.safetensors").exists()


def test_a_prompt_that_helps_is_kept_and_read(
    pipeline: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the shares of the term list one that is best on dev, by a stand-in for dev's error rate; no weight moves."""

    def measure(chooser: adaptation.Chooser) -> dict[str, float]:
        read = len(tokens.encode_text(chooser.whisper.tokenizer, chooser.whisper.prompt or ""))
        return {"dev_wer": 0.3 + abs(read - 100) / 1000, "general_wer": 0.1}

    monkeypatch.setattr(adaptation.Chooser, "measure", measure)
    given = ["finetune.strategy=prompt", f"data.terms={CLINICAL / 'terms.jsonl'}"]
    run = Run(config.load(pipeline, given), shutil.copytree(whole, tmp_path / "small"))
    stages.run_stages(run, ("ingest", "augment", "encode", "finetune"))
    choice = files.read_json(run.dir / "finetune" / "choice.json")
    prompt = (run.dir / "finetune" / "model" / "prompt.txt").read_text().strip()
    assert (choice["alpha"], choice["prompt"]) == (0.5, prompt)
    base, adapted = load.load("nano"), load.load(str(run.dir / "finetune" / "model"))
    assert adapted.prompt == prompt
    assert 90 < len(tokens.encode_text(base.tokenizer, prompt)) <= 111
    held = base.model.state_dict()
    assert all(torch.equal(value, held[name]) for name, value in adapted.model.state_dict().items())


def test_a_whole_run_is_one_process(pipeline: Path, tmp_path: Path) -> None:
    """Not the first of a team, it would work without the lock that the first one has."""
    done = subprocess.run(
        command(pipeline, tmp_path), cwd=PROJECT, env={**ENVIRONMENT, "RANK": "1"}, capture_output=True, text=True
    )
    assert done.returncode == 2
    assert "run: runs as one process; accelerate launch is for finetune" in done.stderr
    assert not list(tmp_path.iterdir())


def test_a_second_process_on_a_run_is_told_so(pipeline: Path, whole: Path) -> None:
    with locks.only_one(whole):
        done = subprocess.run(
            command(pipeline, whole.parent), cwd=PROJECT, env=ENVIRONMENT, capture_output=True, text=True
        )
    assert done.returncode == 2
    assert "another process is at work on this run" in done.stderr
    assert "Traceback" not in done.stderr
