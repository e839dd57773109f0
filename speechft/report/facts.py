"""What a run's folder holds, gathered into the content of report.json and checked before anything is written."""

from __future__ import annotations

import datetime
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePath
from typing import Any

from speechft import files, manifest
from speechft.errors import InputError
from speechft.manifest import Utterance
from speechft.report import examples
from speechft.score.slices import condition_of

NEEDED_STAGES = ("ingest", "finetune", "transcribe", "score")
STAGES = ("synth", "ingest", "augment", "conditions", "encode", "finetune", "transcribe", "score")
RATES = ("wer", "cer", "raw_wer", "whisper_wer", "general_wer")
RATE_KEYS = ("before", "before_ci95", "after", "after_ci95", "delta", "delta_ci95", "words")
SCORE_KEYS: dict[str, tuple[str, ...]] = {
    "normaliser": ("name", "version", "hash"),
    "verdict": ("outcome", "general", "sentence", "minutes_needed"),
    "rows": ("wins", "losses", "ties"),
    "groups": ("count", "what", "drawn"),
    "counts": ("before", "after"),
    "survival": (),
    "slices": (),
    "terms": (),
    **dict.fromkeys(RATES, RATE_KEYS),
}
TERM_KEYS = ("recall", "precision", "f1", "seen_recall", "unseen_recall", "false_alarms")
SLICE_KEYS = ("by", "value", "words", "before", "after", "delta", "delta_ci95")
MAY_BE_NONE = ("general_wer", "terms")  # not tested, or no term list
WARNINGS_SHOWN = 3  # examples of each kind of odd row
OPENAI_LICENCE, TURBO_LICENCE = "apache-2.0", "mit"  # in the cards of the openai/whisper-* checkpoints


def collect(run_dir: Path, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Gather a run's results: the fields of report.json, and under `examples` the rows that the page shows.

    Rates are fractions. Fields beyond those a score has: `model`, `data`, `seconds`, `suppressed`,
    `leaks_allowed`, `leaks`, `conditions`, `synthetic`, `curve`, `choice`, `stages`, `versions`, `settings`.

    Args:
        run_dir: a run whose stages up to `score` have finished.
        settings: the resolved pipeline, as JSON values.

    Raises:
        InputError: a stage has not finished, or the score lacks something that the report must say.
    """
    run_dir = Path(run_dir)
    records = _records(run_dir)
    if not settings.get("synth"):
        records.pop("synth", None)  # of an earlier attempt, whose rows are no longer used
    score = _score(run_dir / "score" / "score.json")
    held = _transcripts(run_dir / "transcribe")
    reported = [row for name in ("before", "general_before") for row in held.get(name, [])]
    audit = _read(run_dir / "ingest" / "audit.json", "ingest")
    finetune = records["finetune"]
    synthetic_rows = sum(bool(row.extra.get("synthetic")) for row in reported)
    return {
        "run": run_dir.absolute().name,
        "made_at": _made_at(records["score"]),
        **score,
        "model": _model(settings, finetune),
        "data": _data(run_dir, settings, records["ingest"], audit),
        "conditions": _conditions(held["before"], settings),
        "synthetic": synthetic_rows > 0,
        "synthetic_rows": synthetic_rows,
        "reported_rows": len(reported),
        "leaks_allowed": list(audit.get("allow_leaks") or []),
        "leaks": [{k: v for k, v in leak.items() if k != "pairs"} for leak in audit.get("leaks") or []],
        "odd_rows": {
            kind: {"rows": entry["rows"], "examples": entry.get("examples", [])[:WARNINGS_SHOWN]}
            for kind, entry in (audit.get("warnings") or {}).items()
        },
        "rejected": _rejected(records),
        "suppressed": {
            "released": list(finetune.get("suppressed_released") or []),
            "base_blocks": list(records["transcribe"].get("base_suppresses") or []),
            "before_released": score.get("before_released"),
        },
        "choice": _optional(run_dir / "finetune" / "choice.json") or finetune.get("choice"),
        "curve": _curve(run_dir / "finetune" / "curve.jsonl"),
        "seconds": {name: record.get("seconds") for name, record in records.items()},
        "stages": {name: _stage(record) for name, record in records.items()},
        "versions": _versions(records.values()),
        "git_commit": records["score"].get("git_commit"),
        "settings": dict(settings),
        "examples": examples.gather(
            run_dir,
            held,
            score,
            terms=(settings.get("data") or {}).get("terms"),
            language=(settings.get("model") or {}).get("language"),
        ),
    }


def _read(path: Path, stage: str) -> Any:
    if not path.exists():
        raise InputError(f"{path}: is not there, so there is nothing to report; run the {stage} stage first")
    return files.read_json(path)


def _optional(path: Path) -> Any:
    return files.read_json(path) if path.exists() else None


def _records(run_dir: Path) -> dict[str, dict[str, Any]]:
    """The stages' records, in the order of the pipeline; those that need not have run may be absent."""
    found = {}
    for name in STAGES:
        path = run_dir / name / files.STAGE_FILE
        record = _read(path, name) if name in NEEDED_STAGES else _optional(path)
        if record is not None:
            found[name] = record
    return found


def _score(path: Path) -> dict[str, Any]:
    """The score, with everything in it that the report must say."""
    score = _read(path, "score")
    if not isinstance(score, dict):
        raise InputError(f"{path}: must hold a JSON object; run the score stage again")
    missing: list[str] = []
    for name, keys in SCORE_KEYS.items():
        value = score.get(name)
        if name not in score or (value is None and name not in MAY_BE_NONE):
            missing.append(name)
        elif value is not None:
            missing += [f"{name}.{key}" for key in keys if not isinstance(value, dict) or key not in value]
    for side in ("before", "after") if score.get("terms") else ():
        part = score["terms"].get(side) or {}
        missing += [f"terms.{side}.{key}" for key in TERM_KEYS if key not in part]
    for number, entry in enumerate(score.get("slices") or []):
        missing += [f"slices[{number}].{key}" for key in SLICE_KEYS if key not in entry]
    if missing:
        more = f" and {len(missing) - 4} more" if len(missing) > 4 else ""
        raise InputError(f"{path}: lacks {', '.join(missing[:4])}{more}; run the score stage again")
    return {"terms": None, "general_wer": None, "rate": "wer"} | score


def _transcripts(folder: Path) -> dict[str, list[Utterance]]:
    """Hypotheses before and after, of the test set and, where it was tested, of general speech."""
    held = {}
    for name in ("before", "after", "general_before", "general_after"):
        path = folder / f"{name}.jsonl"
        if path.exists():
            held[name] = manifest.read(path, need_audio=False)
        elif not name.startswith("general"):
            raise InputError(f"{path}: is not there, so there is nothing to report; run the transcribe stage")
    return held


def _made_at(record: Mapping[str, Any]) -> str | None:
    """When the score was written, so that the same score always gives the same report."""
    times = [output.get("mtime_ns", 0) for output in record.get("outputs", [])]
    if not times:
        return None
    made = datetime.datetime.fromtimestamp(max(times) / 1e9, tz=datetime.UTC)
    return made.isoformat(timespec="seconds")


def _model(settings: Mapping[str, Any], finetune: Mapping[str, Any]) -> dict[str, Any]:
    model = settings.get("model") or {}
    base = str(model.get("base", ""))
    recipe = finetune.get("recipe") or settings.get("finetune") or {}
    weights = {
        PurePath(output["path"]).name: output.get("sha256")
        for output in finetune.get("outputs", [])
        if PurePath(output["path"]).suffix == ".safetensors"
    }
    return {
        "base": base,
        "revision": finetune.get("revision") or model.get("revision"),
        "strategy": recipe.get("strategy"),
        "trainable": finetune.get("trainable"),
        "frozen": finetune.get("frozen"),
        "licence": licence_of(base),
        "language": model.get("language"),
        "task": model.get("task"),
        "weights_sha256": weights or None,
        "steps": finetune.get("steps"),
        "recipe": dict(recipe),
    }


def licence_of(base: str) -> str | None:
    """The licence a base model states: in the card of its directory, or in OpenAI's cards; None when unknown."""
    if base.startswith("openai/whisper-"):
        return TURBO_LICENCE if base.endswith("-turbo") else OPENAI_LICENCE
    folder = Path(__file__).resolve().parent.parent / "models" / "nano" if base == "nano" else Path(base).expanduser()
    card = folder / "README.md"
    if not card.is_file():
        return None
    lines = card.read_text(encoding="utf-8", errors="replace").splitlines()
    if not lines or lines[0].strip() != "---":
        return None
    for line in lines[1:]:
        if line.strip() == "---":
            return None
        if line.startswith("license:"):
            return line.split(":", 1)[1].strip().strip("\"'") or None
    return None


def _data(
    run_dir: Path, settings: Mapping[str, Any], ingest: Mapping[str, Any], audit: Mapping[str, Any]
) -> dict[str, dict[str, Any]]:
    """For each role its size, the hash of its checked rows, and the manifests it came from with their hashes."""
    named = settings.get("data") or {}
    hashes = {PurePath(entry["path"]).stem: entry.get("sha256") for entry in ingest.get("outputs", [])}
    data = {}
    for role, facts in (audit.get("roles") or {}).items():
        source = "general" if role.startswith("general") else role
        manifests = named.get(source) or (named.get("train") if role == "dev" else None) or []
        data[role] = {
            **facts,
            "sha256": hashes.get(role),
            "manifests": [
                {"path": str(path), "sha256": _input_hash(str(path), ingest)}
                for path in ([manifests] if isinstance(manifests, str) else manifests)
            ],
        }
    return data


def _input_hash(path: str, record: Mapping[str, Any]) -> str | None:
    parts = PurePath(path).parts
    for entry in record.get("inputs", []):
        if PurePath(entry["path"]).parts[-len(parts) :] == parts:
            return str(entry.get("sha256"))
    return None


def _conditions(rows: Iterable[Utterance], settings: Mapping[str, Any]) -> list[dict[str, Any]]:
    made = settings.get("conditions") or {}
    return [
        {"name": name, "rows": count, "transform": made.get(name)}
        for name, count in Counter(map(condition_of, rows)).items()
    ]


def _rejected(records: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, int]]:
    found = {name: dict((record.get("counts") or {}).get("rejected") or {}) for name, record in records.items()}
    return {name: reasons for name, reasons in found.items() if reasons}


def _curve(path: Path) -> list[dict[str, Any]]:
    return files.read_jsonl(path) if path.exists() else []


def _stage(record: Mapping[str, Any]) -> dict[str, Any]:
    counts = record.get("counts") or {}
    return {
        "in": counts.get("in"),
        "out": counts.get("out"),
        "rejected": sum((counts.get("rejected") or {}).values()),
        "seconds": record.get("seconds"),
        "peak_memory_mb": record.get("peak_memory_mb"),
        "device": record.get("device"),
    }


def _versions(records: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """Versions used; where stages differ, all of them."""
    found: dict[str, list[str]] = {}
    for record in records:
        for package, version in (record.get("versions") or {}).items():
            if version not in found.setdefault(package, []):
                found[package].append(version)
    return {package: ", ".join(versions) for package, versions in found.items()}
