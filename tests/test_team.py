"""Two processes under `accelerate launch` against one: the same losses and weights for the same steps."""

import json
import os
import subprocess
import sys
from pathlib import Path

import any_whisper
import pytest
import torch

PROJECT = Path(__file__).resolve().parent.parent
LAUNCH = [  # --multi_gpu is its word for several processes, with GPUs or without
    "-m", "accelerate.commands.launch", "--multi_gpu", "--num_machines", "1", "--mixed_precision", "no",
    "--dynamo_backend", "no", "--main_process_port", "0",
]  # fmt: skip
SCRIPT = """
import json, os, signal, sys
from pathlib import Path
import torch
sys.path.insert(0, "tests")
torch.set_num_threads(1)
from speechft.adapt.team import Team
from speechft.adapt.train import train
from speechft.whisper import load
from test_train import CPU, FROM_AUDIO, FROM_STATES, RECIPE, TEXTS, items
import dataclasses
from speechft.errors import Stopped
base, out, *stop = sys.argv[1:]
team = Team()
for strategy in ("decoder",) if stop else ("decoder", "lora", "full"):
    times = 3 if strategy == "decoder" else 1
    whisper, into = load.load(base), Path(out) / strategy
    into.mkdir(exist_ok=True)
    recipe = dataclasses.replace(
        RECIPE, strategy=strategy, batch_clips=5, replay_share=0.4, distil=0.5, epochs=times,
        l2sp=0.0 if strategy == "lora" else 1e-3,
    )
    mixed = items(whisper, TEXTS * times) + items(whisper, ["eight nine", "ten"], replay=True)
    losses = []
    def tell(step, total, loss):  # after the step's signals were counted: the other process begins the next step
        losses.append(loss)
        if stop and step == 2 and team.rank == 1:
            os.kill(os.getpid(), signal.SIGTERM)
    try:
        train(whisper, mixed, recipe, device=CPU, **(FROM_AUDIO if strategy == "full" else FROM_STATES), out=into,
              team=team, evaluate=lambda: {"dev_wer": 1.0}, progress=tell)
    except Stopped as stopped:
        Path(f"{into}/stopped-{team.rank}.txt").write_text(str(stopped))
        sys.exit()
    torch.save(whisper.model.state_dict(), f"{into}/weights-{team.rank}.pt")
    Path(f"{into}/losses-{team.rank}.json").write_text(json.dumps(losses))
"""
STEPS = {"decoder": 9, "lora": 2, "full": 2}  # at least


@pytest.mark.parametrize("processes", [2])
def test_processes_share_a_step(tmp_path: Path, processes: int) -> None:
    base = any_whisper.save(tmp_path / "base", 51865)
    script = tmp_path / "job.py"
    script.write_text(SCRIPT)
    launch = [*LAUNCH, "--num_processes", str(processes)]
    for name, command in (("one", []), ("two", launch)):
        out = tmp_path / name
        out.mkdir()
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": f"{PROJECT}"}
        done = subprocess.run(
            [sys.executable, *command, str(script), str(base), str(out)], cwd=PROJECT, env=environment,
            capture_output=True, text=True, timeout=240,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr[-2000:]
    for strategy, steps in STEPS.items():
        one, two, other = (
            json.loads((tmp_path / name / strategy / f"losses-{rank}.json").read_text())
            for name, rank in (("one", 0), ("two", 0), ("two", 1))
        )
        assert len(one) >= steps
        assert two == pytest.approx(one, rel=1e-4), strategy
        assert other == two
        first, second = (torch.load(tmp_path / "two" / strategy / f"weights-{rank}.pt") for rank in (0, 1))
        assert all(torch.equal(first[name], second[name]) for name in first), strategy


def test_processes_leave_together_when_one_is_asked(tmp_path: Path) -> None:
    """Asked after a step's signals were counted, a process takes part in the next step before all leave."""
    base = any_whisper.save(tmp_path / "base", 51865)
    script = tmp_path / "job.py"
    script.write_text(SCRIPT)
    done = subprocess.run(
        [sys.executable, *LAUNCH, "--num_processes", "2", str(script), str(base), str(tmp_path), "stop"],
        cwd=PROJECT, env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": f"{PROJECT}"}, capture_output=True,
        text=True, timeout=240,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    told = {(tmp_path / "decoder" / f"stopped-{rank}.txt").read_text() for rank in (0, 1)}
    assert told == {"finetune: stopped after step 3; the same command goes on from there"}
    saved = torch.load(tmp_path / "decoder" / "checkpoint.pt", weights_only=True)
    assert json.loads(saved["progress"])["step"] == 3
