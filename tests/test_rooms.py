"""The rooms of the package: who may import whom, what comes without torch, and the names at the package's root."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile

import speechft

PROJECT = Path(__file__).resolve().parent.parent
PACKAGE = PROJECT / "speechft"
# A module may import from its own room and from rooms with smaller numbers. A module at the root that is not
# named here belongs to the core.
LEVELS = {
    "core": 0, "score": 1, "whisper": 2, "ingest": 3, "augment": 3, "adapt": 3, "deploy": 3, "report": 4, "pretrain": 4,
    "adaptation": 5, "encoding": 5, "learning_curve": 5, "planning": 5, "run": 5, "spoken": 5, "stages": 5,
    "transcription": 5, "cli": 6,
}  # fmt: skip
# One room: they put the others together.
COMPOSING = {"adaptation", "encoding", "learning_curve", "planning", "run", "spoken", "stages", "transcription"}


def modules() -> list[Path]:
    return sorted(path for path in PACKAGE.rglob("*.py") if "models" not in path.parts)


def room(dotted: str) -> str:
    """The room of `speechft.score.wer` is score; of `speechft.files`, core."""
    first = [*dotted.split("."), ""][1]
    return first if first in LEVELS else "core"


def name_of(path: Path) -> str:
    return ".".join(path.relative_to(PROJECT).with_suffix("").parts).removesuffix(".__init__")


def imported(path: Path) -> Iterator[str]:
    """Dotted names of everything of this package that a module imports, wherever in it."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.split(".")[0] == "speechft")
        elif isinstance(node, ast.ImportFrom):
            above = name_of(path).split(".")[: -node.level + (path.name == "__init__.py")] if node.level else []
            source = ".".join([*above, *([node.module] if node.module else [])])
            if source.split(".")[0] == "speechft":
                yield from (f"{source}.{alias.name}" for alias in node.names)


def fault(importer: str, imported_name: str) -> str | None:
    """Why one module may not import the other; None when it may."""
    ours, theirs = room(importer), room(imported_name)
    same = ours == theirs or {ours, theirs} <= COMPOSING
    if same or LEVELS[theirs] < LEVELS[ours]:
        return None
    return f"{importer} ({ours}) imports {imported_name} ({theirs})"


def test_every_folder_is_a_room_with_a_place() -> None:
    folders = {path.relative_to(PACKAGE).parts[0] for path in modules() if path.parent != PACKAGE}
    assert folders <= set(LEVELS)
    assert {"score", "whisper", "ingest", "augment", "adapt", "report"} <= folders


@pytest.mark.parametrize("path", modules(), ids=name_of)
def test_a_module_imports_only_from_rooms_further_left(path: Path) -> None:
    assert [wrong for name in imported(path) if (wrong := fault(name_of(path), name))] == []


@pytest.mark.parametrize(
    ("importer", "name", "allowed"),
    [
        ("speechft.files", "speechft.provenance", True),
        ("speechft.files", "speechft.score.wer", False),
        ("speechft.score.wer", "speechft.text", True),
        ("speechft.score.wer", "speechft.whisper.load", False),
        ("speechft.ingest.stage", "speechft.augment.plan", False),
        ("speechft.adapt.train", "speechft.augment", False),
        ("speechft.report.facts", "speechft.adapt.train", True),
        ("speechft.adapt.train", "speechft.report.facts", False),
        ("speechft.stages", "speechft.adaptation", True),
        ("speechft.stages", "speechft.cli", False),
        ("speechft.manifest", "speechft.stages", False),
    ],
)
def test_the_rule_itself(importer: str, name: str, allowed: bool) -> None:
    assert (fault(importer, name) is None) == allowed


def test_nothing_in_the_package_imports_scripts_tests_or_benchmarks() -> None:
    outside = {path.stem for name in ("scripts", "tests", "benchmarks") for path in (PROJECT / name).glob("*.py")}
    outside |= {"scripts", "tests", "benchmarks"}
    for path in modules():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            named = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            named += [node.module or ""] if isinstance(node, ast.ImportFrom) and not node.level else []
            assert not {name.split(".")[0] for name in named} & outside, path


def modules_after(code: str) -> set[str]:
    """The modules a fresh interpreter holds after running the code."""
    shown = subprocess.run(
        [sys.executable, "-c", f"{code}\nimport sys\nprint()\nprint('\\n'.join(sys.modules))"],
        cwd=PROJECT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    return set(shown.stdout.split("\n"))


def test_the_package_its_stages_and_its_scoring_come_without_torch() -> None:
    left = sorted((PACKAGE / "score").glob("*.py")) + sorted(PACKAGE.glob("*.py"))
    # `evaluate`, which the metric is a class of, imports torch where it is installed.
    names = [name_of(path) for path in left if path.stem not in ("adaptation", "encoding", "metric", "transcription")]
    held = modules_after("\n".join(f"import {name}" for name in names))
    assert {"speechft.cli", "speechft.stages", "speechft.score.wer"} <= held
    assert not held & {"torch", "torchaudio", "transformers"}


def test_a_finished_stage_is_found_up_to_date_without_torch(tmp_path: Path) -> None:
    for number, role in enumerate(("train", "dev", "test")):
        noise = np.random.default_rng(number).normal(0, 0.1, 16000)
        soundfile.write(tmp_path / f"{role}.wav", noise, 16000)
        row = {"audio_filepath": f"{role}.wav", "text": f"this is {role}", "speaker": role}
        (tmp_path / f"{role}.jsonl").write_text(json.dumps(row) + "\n")
    named = "\n".join(f'{role} = "{tmp_path / role}.jsonl"' for role in ("train", "dev", "test"))
    (tmp_path / "tiny.toml").write_text(f"[data]\n{named}\n")
    ask = f"""
from pathlib import Path
from speechft import config, stages
from speechft.run import Run
run = Run(config.load({str(tmp_path / "tiny.toml")!r}), Path({str(tmp_path / "run")!r}))
print(stages.run_stages(run, ("ingest",)))"""
    assert "{'ingest': True}" in modules_after(ask)
    held = modules_after(ask)
    assert "{'ingest': False}" in held
    assert "speechft.stages" in held
    assert not held & {"torch", "torchaudio", "transformers", "scipy", "soundfile"}


def test_the_root_has_the_version_of_the_project_and_few_names() -> None:
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert speechft.__version__ == project["version"]
    written = ast.parse((PACKAGE / "__init__.py").read_text(encoding="utf-8")).body
    given = [n for node in written if isinstance(node, ast.ImportFrom) for n in node.names]
    assert len(given) <= 6  # what a user types, no more
    for name in getattr(speechft, "__all__", []):
        assert hasattr(speechft, name)


def test_the_names_in_the_readmes_python_are_there() -> None:
    blocks = re.findall(r"```python\n(.*?)```", (PROJECT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines() if "speechft" in line and "import " in line]
    assert lines
    held = modules_after("\n".join(line for line in lines if "whisper" not in line))
    assert {"speechft.config", "speechft.stages"} <= held
    assert "torch" not in held
    for call in re.findall(r"\b((?:config|stages|files_of_audio)\.\w+)\(", blocks[0]):
        module, name = call.split(".")
        folder = PACKAGE / "whisper" if module == "files_of_audio" else PACKAGE
        tree = ast.parse((folder / f"{module}.py").read_text(encoding="utf-8"))
        assert name in {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)}, call
