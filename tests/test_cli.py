"""The command: what it cannot use is one readable sentence and exit status 2."""

import argparse
import json
import os
import signal
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile

from speechft import cli
from speechft.cli import main

PROJECT = Path(__file__).resolve().parent.parent
DEMO = str(PROJECT / "pipelines" / "demo.toml")
SPEECH = str(next((PROJECT / "manifests" / "clinical" / "audio").rglob("*.*")))


def pipeline(folder: Path, rows: str) -> str:
    (folder / "rows.jsonl").write_text(rows)
    path = folder / "p.toml"
    path.write_text(f'[data]\ntrain = "{folder}/rows.jsonl"\ntest = "{folder}/rows.jsonl"\n')
    return str(path)


ROW = json.dumps({"audio_filepath": "none.wav", "text": "one"})
CASES = {
    "no pipeline file": (["run", "--pipeline", "{folder}/none.toml"], "none.toml: cannot be read"),
    "an unknown setting": (["run", "--pipeline", DEMO, "--set", "finetune.nope=1"], "unknown setting finetune.nope"),
    "a wrong value": (["run", "--pipeline", DEMO, "--set", "finetune.epochs=0"], "finetune.epochs"),
    "a run that cannot be written": (["run", "--pipeline", DEMO, "--runs", "{folder}/file"], "cannot be written"),
    "an empty file": (["transcribe", "{folder}/empty.wav"], "empty.wav"),
    "no such model": (["transcribe", SPEECH, "--model", "./nowhere"], "no such directory"),
    "no such audio": (["transcribe", "{folder}/none.wav"], "none.wav"),
    "no audio named": (["transcribe"], "name audio files"),
    "no reference": (["score", "--reference", "{folder}/none.jsonl", "--hypothesis", "{folder}/file"], "none.jsonl"),
    "one system that cannot be worse": (
        ["score", "--reference", "{folder}/file", "--hypothesis", "{folder}/file", "--fail-if-worse"],
        "--fail-if-worse compares two systems",
    ),
    "a broken line": (["ingest", "--pipeline", "{broken}", "--runs", "{folder}/runs"], "rows.jsonl"),
    "a model that is none": (["transcribe", SPEECH, "--model", "{folder}/list"], "holds a list, not an object"),
    "a model without weights": (["transcribe", SPEECH, "--model", "{folder}/bare"], "holds no weights"),
    "a name too long": (["transcribe", "{folder}/" + "x" * 300], "File name too long"),
    "a manifest's name too long": (
        ["ingest", "--pipeline", "{unusable}", "--set", "data.train=" + "x" * 300],
        "File name too long",
    ),
    "samples that are no numbers": (["transcribe", "{folder}/nan.wav", SPEECH], "nan.wav"),
    "a transform that is none": (
        ["ingest", "--pipeline", DEMO, "--runs", "{folder}/runs", "--set", "augment.noize.p=1"],
        "noize",
    ),
    "no usable row": (["ingest", "--pipeline", "{unusable}", "--runs", "{folder}/runs"], "no usable row is left"),
}


@pytest.mark.parametrize("case", CASES)
def test_a_readable_sentence_and_status_2(case: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "empty.wav").write_bytes(b"")
    soundfile.write(tmp_path / "nan.wav", np.full(16000, np.nan), 16000, subtype="FLOAT")
    for name, config in (("list", "[]"), ("bare", '{"model_type": "whisper"}')):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text(config)
    (tmp_path / "list" / "model.safetensors").touch()
    made = {name: tmp_path / name for name in ("b", "u")}
    for folder in made.values():
        folder.mkdir()
    named = {
        "folder": tmp_path, "broken": pipeline(made["b"], ROW + "\n{half"), "unusable": pipeline(made["u"], ROW + "\n"),
    }  # fmt: skip
    arguments, told = CASES[case]
    assert main([argument.format(**named) for argument in arguments]) == 2
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert told in said
    assert "Traceback" not in said


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_in_any_stage_is_one_sentence(
    number: int, status: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    cleaned: list[bool] = []

    def act(options: argparse.Namespace) -> int:
        try:
            os.kill(os.getpid(), number)
            time.sleep(10)
        finally:
            cleaned.append(True)
        return 0

    parser = argparse.ArgumentParser()
    parser.set_defaults(act=act)
    monkeypatch.setattr(cli, "build_parser", lambda: parser)
    before = signal.getsignal(signal.SIGTERM)
    given = signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background is given none
    try:
        assert main([]) == status
    finally:
        signal.signal(signal.SIGINT, given)
    assert cleaned
    assert "interrupted; the same command goes on" in capsys.readouterr().err
    assert signal.getsignal(signal.SIGTERM) == before
