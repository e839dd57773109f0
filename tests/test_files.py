"""Atomic writing, and stage records that survive a kill at any moment."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from speechft import files
from speechft.errors import InputError


def make_stage(tmp_path: Path, **changes: object) -> files.Stage:
    manifest = tmp_path / "in.jsonl"
    if not manifest.exists():
        manifest.write_text("{}\n")
    options = {"settings": {"share": 0.1}, "inputs": [manifest], "format": 1, "seed": 1, **changes}
    return files.Stage(tmp_path / "run", "ingest", **options)  # type: ignore[arg-type]


def finish(stage: files.Stage) -> dict:
    files.write_jsonl(stage.dir / "train.jsonl", [{"id": "a"}])
    return stage.finish({"in": 2, "out": 1, "rejected": {"missing file": 1}}, [stage.dir / "train.jsonl"])


def test_an_error_while_writing_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    files.write_json(path, {"name": "Zoë"})
    with pytest.raises(TypeError, match="set"):
        files.write_json(path, ["half", {1, 2}])  # a set cannot be written as JSON
    assert files.read_json(path) == {"name": "Zoë"}
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.json"]


def test_text_is_utf8_with_lf(tmp_path: Path) -> None:
    assert files.write_jsonl(tmp_path / "a.jsonl", [{"text": "naïve"}, {"text": "日本"}]) == 2
    assert (tmp_path / "a.jsonl").read_bytes() == '{"text": "naïve"}\n{"text": "日本"}\n'.encode()
    assert files.read_jsonl(tmp_path / "a.jsonl") == [{"text": "naïve"}, {"text": "日本"}]


def test_new_files_get_the_usual_permissions(tmp_path: Path) -> None:
    (tmp_path / "plain").write_text("")
    files.write_json(tmp_path / "a.json", 1)
    assert (tmp_path / "a.json").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_a_broken_line_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"a": 1}\n{"a": \n')
    with pytest.raises(InputError, match=r"a\.jsonl:2: is not valid JSON"):
        files.read_jsonl(tmp_path / "a.jsonl")


def test_rows_are_read_by_number(tmp_path: Path) -> None:
    rows = [{"text": "naïve"}, {"text": "日本"}, {"text": "x" * 10_000}]
    files.write_jsonl(tmp_path / "a.jsonl", rows)
    lines = files.JsonLines(tmp_path / "a.jsonl")
    assert [len(lines), lines[1], lines[2], lines[0], lines[-1]] == [3, rows[1], rows[2], rows[0], rows[2]]
    assert list(lines) == rows
    with pytest.raises(IndexError):
        lines[3]
    (tmp_path / "a.jsonl").unlink()
    with pytest.raises(InputError, match=r"a\.jsonl: cannot be read"):
        lines[0]


def test_fingerprint_of_known_bytes(tmp_path: Path) -> None:
    (tmp_path / "abc").write_bytes(b"abc")
    found = files.fingerprint(tmp_path / "abc")
    assert found["size"] == 3
    assert found["sha256"] == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_a_finished_stage_is_up_to_date_and_says_what_it_did(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    stage = make_stage(tmp_path)
    assert not stage.up_to_date()
    stage.begin()
    with caplog.at_level("INFO"):
        record = finish(stage)
    assert make_stage(tmp_path).up_to_date()
    assert sorted(path.name for path in stage.dir.iterdir()) == ["stage.json", "train.jsonl"]
    assert json.loads((stage.dir / "stage.json").read_text()) == record
    assert record["counts"] == {"in": 2, "out": 1, "rejected": {"missing file": 1}}
    assert record["versions"]["speechft"] == "0.1.0"
    assert record["peak_memory_mb"] > 1
    assert caplog.messages[0].startswith("ingest: 2 in, 1 out, 1 rejected (missing file 1), 0.")


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"settings": {"share": 0.2}}, "share was 0.1, is 0.2"),
        ({"settings": {"share": {"of": 0.1}}}, "share was 0.1, is None; share.of was None, is 0.1"),
        ({"seed": 2}, "seed was 1, is 2"),
        ({"format": 2}, "this version writes it otherwise"),
        ({"inputs": []}, "what it reads has changed"),
    ],
    ids=str,
)
def test_other_settings_seed_format_or_inputs_clear_the_folder(
    tmp_path: Path, changes: dict, why: str, caplog: pytest.LogCaptureFixture
) -> None:
    stage = make_stage(tmp_path)
    stage.begin()
    finish(stage)
    other = make_stage(tmp_path, **changes)
    assert not other.up_to_date()
    with caplog.at_level("INFO"):
        other.begin()
    assert caplog.messages[-1] == f"ingest: begins anew, as {why}"
    assert [path.name for path in other.dir.iterdir()] == ["started.json"]


def test_a_touched_input_is_the_same_and_a_changed_one_is_not(tmp_path: Path) -> None:
    stage = make_stage(tmp_path)
    stage.begin()
    finish(stage)
    os.utime(tmp_path / "in.jsonl", ns=(1, 1))
    assert stage.up_to_date()
    (tmp_path / "in.jsonl").write_text("[]\n")  # as long as before
    assert not stage.up_to_date()


def test_a_folder_as_input_counts_with_every_file_in_it(tmp_path: Path) -> None:
    model = tmp_path / "model"
    model.mkdir()
    (model / "config.json").write_text("{}")
    stage = make_stage(tmp_path, inputs=[model])
    stage.begin()
    finish(stage)
    assert stage.up_to_date()
    (model / "weights").write_text("1")
    assert not stage.up_to_date()


@pytest.mark.parametrize("damage", ["unlink", "shorten"])
def test_a_lost_or_shortened_output_is_noticed(tmp_path: Path, damage: str) -> None:
    stage = make_stage(tmp_path)
    stage.begin()
    finish(stage)
    output = stage.dir / "train.jsonl"
    output.unlink() if damage == "unlink" else output.write_text("")
    assert not stage.up_to_date()


KILLED = """
import os, signal, sys
from speechft import files
inputs = [sys.argv[1] + "/in.jsonl"]
stage = files.Stage(sys.argv[1] + "/run", "ingest", settings={"share": 0.1}, inputs=inputs, format=1, seed=1)
stage.begin()
files.write_jsonl(stage.dir / "part-0.jsonl", [{"id": "a"}])
with files.atomic_write(stage.dir / "part-1.jsonl") as file:
    file.write("half")
    file.flush()
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_killed_between_data_and_stage_json_it_is_not_done_and_resumes(tmp_path: Path) -> None:
    stage = make_stage(tmp_path)
    done = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], check=False)
    assert done.returncode == -signal.SIGKILL
    assert not stage.up_to_date()
    assert not (stage.dir / "part-1.jsonl").exists()
    stage.begin()
    assert sorted(path.name for path in stage.dir.iterdir()) == ["part-0.jsonl", "started.json"]
    finish(stage)
    assert stage.up_to_date()


def test_partial_work_of_other_settings_is_cleared(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-c", KILLED, str(make_stage(tmp_path).dir.parent.parent)], check=False)
    other = make_stage(tmp_path, settings={"share": 0.2})
    other.begin()
    assert [path.name for path in other.dir.iterdir()] == ["started.json"]


def test_seconds_of_killed_attempts_are_added(tmp_path: Path) -> None:
    stage = make_stage(tmp_path)
    stage.begin()
    started = stage.dir / "started.json"
    facts = files.read_json(started)
    files.write_json(started, {**facts, "started_at": facts["started_at"] - 100})  # as if begun 100 s ago
    stage.begin()
    assert 100 <= finish(stage)["seconds"] < 110


def test_a_damaged_record_counts_as_not_done(tmp_path: Path) -> None:
    stage = make_stage(tmp_path)
    stage.begin()
    finish(stage)
    (stage.dir / "stage.json").write_text('{"settings": ')
    assert not stage.up_to_date()
    stage.begin()
    assert not (stage.dir / "train.jsonl").exists()


def test_files_that_no_stage_wrote_are_left_alone(tmp_path: Path) -> None:
    stage = make_stage(tmp_path)
    stage.dir.mkdir(parents=True)
    (stage.dir / "thesis.txt").write_text("mine")
    with pytest.raises(InputError, match="left alone"):
        stage.begin()
    assert (stage.dir / "thesis.txt").read_text() == "mine"


def test_an_unwritable_run_directory_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("a file where the folder should be")
    with pytest.raises(InputError, match=r"run/ingest: cannot be written \(Not a directory\); choose another"):
        make_stage(tmp_path).begin()
    with pytest.raises(InputError, match="cannot be written"):
        files.write_json(tmp_path / "run" / "a.json", {})


def test_a_missing_input_clears_nothing(tmp_path: Path) -> None:
    stage = make_stage(tmp_path)
    stage.begin()
    finish(stage)
    with pytest.raises(InputError, match=r"gone\.jsonl: needed by ingest, cannot be read"):
        make_stage(tmp_path, inputs=[tmp_path / "gone.jsonl"]).begin()
    assert stage.up_to_date()


def test_up_to_date_is_said_without_torch(tmp_path: Path) -> None:
    stage = make_stage(tmp_path)
    stage.begin()
    finish(stage)
    code = (
        "import sys; from speechft import files; d = sys.argv[1];"
        "s = files.Stage(d + '/run', 'ingest', settings={'share': 0.1}, inputs=[d + '/in.jsonl'],"
        " format=1, seed=1); print(s.up_to_date(), 'torch' in sys.modules, 'numpy' in sys.modules)"
    )
    said = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True)
    assert said.stdout.split() == ["True", "False", "False"]
