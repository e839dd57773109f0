"""Does each transform help? `nano` adapted with none, each family alone, all, and the default chain; equal steps.

    python benchmarks/augment_ablation.py --corpus demo     # also: an4, fsdd (data/an4, data/fsdd linked)
    python benchmarks/augment_ablation.py --table           # only write the page from what is there

Resumable: every run is a pipeline under runs/ablation/<corpus>/, and a line of runs/ablation/results.jsonl once it is
done. Test rows and their fixed conditions (babble, telephone, room, accents, from voices and rooms that training never
has) are made once and shared. Weights are taken at the best epoch on dev, without a blend, so that the chains differ in
nothing but what was heard. Writes docs/benchmarks/augment_ablation.md.
"""

from __future__ import annotations

import argparse
import dataclasses
import shutil
import subprocess
import sys
import time
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from speechft import files, manifest
from speechft.augment import settings as tables_of
from speechft.augment.settings import DEFAULT
from speechft.augment.views import make_conditions
from speechft.manifest import Utterance
from speechft.report.pipeline_text import to_toml
from speechft.score.score import score_run

ROOT = Path("runs/ablation")  # --root sets it
OUT = Path("docs/benchmarks/augment_ablation.md")
VIEWS = 2
FAMILIES: dict[str, tuple[str, ...]] = {
    "noise": ("noise",),
    "room": ("room",),
    "channel": ("clip", "band", "telephone", "codec", "gain"),
    "speed": ("speed",),
    "warp": ("tempo", "pitch", "formants", "contour", "rhythm"),
    "say": ("say",),
}
MASKS = {"time_masks": 2, "time_mask_s": 0.5, "channel_masks": 1, "channel_mask_share": 0.1}
CHAINS = ("none", *FAMILIES, "masks", "all", "default")
SEVERAL_SEEDS = ("none", "all", "default")
BABBLE = "manifests/clinical/audio/babble"  # eight voices that speak nowhere else
CONDITIONS: dict[str, dict[str, Any]] = {
    **{f"babble{snr}": {"noise": {"kinds": ["babble"], "babble_from": BABBLE, "snr_db": snr}} for snr in (0, 5, 10)},
    "telephone": {"telephone": {}},
    "room": {"room": {}},
    "said-scottish": {"say": {"accents": "en-gb-scotland", "foreign_share": 0.0, "substitute": 0.0}},
    "said-hindi": {"say": {"foreign": "hi", "foreign_share": 1.0, "substitute": 0.0}},
}
CLEAN = "clean"


@dataclass(frozen=True, kw_only=True)
class Corpus:
    """What to adapt to: the pipeline it starts from, its epochs, and the chains worth their time."""

    pipeline: Path
    epochs: int
    chains: tuple[str, ...]
    seeds: int


CORPORA = {
    "demo": Corpus(pipeline=Path("pipelines/demo.toml"), epochs=14, chains=CHAINS, seeds=3),
    "an4": Corpus(pipeline=Path("pipelines/an4.toml"), epochs=12, chains=CHAINS, seeds=3),
    "fsdd": Corpus(pipeline=Path("pipelines/an4.toml"), epochs=8, chains=("none", "all"), seeds=3),
}


def read_rows(corpus: str) -> dict[str, list[Utterance]]:
    """Clean rows by role. Of fsdd, training is by speakers of American English, the test by all others."""
    if corpus == "demo":
        folder = Path("manifests/clinical")
        rows = {role: manifest.read(folder / f"{role}.jsonl") for role in ("train", "dev", "test")}
        spoken = {row["id"]: row.get("spoken") for row in files.read_jsonl(folder / "sentences.jsonl")}
        # How a voice should say "120/80": without it, saying it again would teach "slash".
        rows["train"] = [with_spoken(row, spoken.get(row.id)) for row in rows["train"]]
        rows["test"] = [with_spoken(row, spoken.get(row.id.removeprefix("accent-"))) for row in rows["test"]]
        return rows
    whole = manifest.read(Path("data") / corpus / "manifest.jsonl")
    if corpus == "an4":
        return {role: [row for row in whole if row.split == role] for role in ("train", "test")}
    american = [row for row in whole if (row.accent or "").startswith("USA")]
    others = [row for row in whole if row not in american and row.split == "test"]
    return {"train": [row for row in american if row.split == "train"], "test": others}


def with_spoken(row: Utterance, spoken: str | None) -> Utterance:
    """The row with the words a voice should say for it."""
    return dataclasses.replace(row, extra={**row.extra, "spoken": spoken}) if spoken else row


def prepare(corpus: str, folder: Path, limit: int | None) -> dict[str, Path]:
    """Write the manifests that all chains share, the test set with its conditions among them; kept once made."""
    paths = {role: folder / f"{role}.jsonl" for role in ("train", "dev", "test")}
    if not paths["test"].exists():
        rows = {role: held[:limit] for role, held in read_rows(corpus).items()}
        made = make_conditions(
            rows["test"], conditions=CONDITIONS, seed=1, out=folder / "conditions", bank=folder / "rooms.npz"
        )
        for role in ("train", "dev"):
            if role in rows:
                manifest.write(paths[role], (dataclasses.replace(row, split=role) for row in rows[role]))
        manifest.write(paths["test"], (dataclasses.replace(row, split="test") for row in [*rows["test"], *made.rows]))
    return {role: path for role, path in paths.items() if path.exists()}


def chain_tables(chain: str) -> dict[str, dict[str, Any]]:
    """The transforms of a chain, each with its own default probability and ranges."""
    names: Sequence[str] = FAMILIES.get(chain, ())
    if chain == "all":
        names = [name for family in FAMILIES.values() for name in family]
    tables = DEFAULT if chain == "default" else {name: {} for name in names}
    checked = tables_of.check(tables)
    return {name: {"p": getattr(checked, name).p, **table} for name, table in tables.items()}


def pipeline_of(corpus: Corpus, chain: str, seed: int, paths: Mapping[str, Path], epochs: int) -> dict[str, Any]:
    """The corpus's pipeline with a chain: the same epochs over the same rows, nothing blended."""
    tree = tomllib.loads(corpus.pipeline.read_text(encoding="utf-8"))
    for table in ("conditions", "synth", "encode"):  # the recordings alone, packed as by default
        tree.pop(table, None)
    tree["data"] |= {role: str(path) for role, path in paths.items()}
    tree["data"]["allow_leaks"] = ["speaker", "text", "near_text"]  # accented copies of the test; commands in an4
    tables = chain_tables(chain)
    tree["augment"] = {"views": VIEWS if tables else 0, "seed": seed, **tables}
    tree["finetune"] |= {"epochs": epochs, "patience": epochs, "alphas": [1.0], "seed": seed}
    if chain == "masks":
        tree["finetune"] |= MASKS
    return tree


def run_one(corpus: str, chain: str, seed: int, paths: Mapping[str, Path], epochs: int) -> dict[str, Any]:
    """One whole pipeline; its training states are removed when it is done.

    Raises:
        SystemExit: the run failed; the same command goes on with it.
    """
    folder, name = ROOT / corpus, f"{chain}-{seed}"
    path = folder / f"{name}.toml"
    with files.atomic_write(path) as file:
        file.write(to_toml(pipeline_of(CORPORA[corpus], chain, seed, paths, epochs)))
    started = time.monotonic()
    command = [sys.executable, "scripts/run.py", "--pipeline", str(path), "--run", name, "--runs", str(folder)]
    done = subprocess.run(command, check=False, stdout=subprocess.DEVNULL)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}: failed with status {done.returncode}; the same command goes on")
    run = folder / name
    finetune = files.read_json(run / "finetune" / "stage.json")
    train = files.read_json(run / "encode" / "train.json")
    shutil.rmtree(folder / "states" / train["key"], ignore_errors=True)
    shutil.rmtree(run / "augment" / "views", ignore_errors=True)
    rows = manifest.read(run / "transcribe" / "after.jsonl", need_audio=False)
    result = score_run(rows, normaliser=normaliser_of(corpus), resamples=1000)
    return {
        "corpus": corpus, "chain": chain, "seed": seed, "epochs": epochs, "steps": finetune["steps"],
        "seconds": round(time.monotonic() - started, 1),
        "clean_wer": round(result["wer"]["value"], 4),
        "general_wer": general_of(run),
    }  # fmt: skip


def normaliser_of(corpus: str) -> str:
    """The normaliser that the corpus's pipeline scores with."""
    tree = tomllib.loads(CORPORA[corpus].pipeline.read_text(encoding="utf-8"))
    return str(tree.get("score", {}).get("normaliser", "jargon-safe"))


def general_of(run: Path) -> float | None:
    """General word error rate after adapting."""
    rate = files.read_json(run / "score" / "score.json").get("general_wer")
    return None if rate is None else round(rate["after"], 4)


def compare(corpus: str, chain: str, seeds: Sequence[int], base: str = "none") -> list[dict[str, Any]]:
    """Word error rates by condition, `base` before and `chain` after, seeds pooled; intervals over speakers."""
    sides = []
    for name in (base, chain):
        side = []
        for seed in seeds:
            path = ROOT / corpus / f"{name}-{seed}" / "transcribe" / "after.jsonl"
            for row in manifest.read(path, need_audio=False):
                side.append(dataclasses.replace(row, id=f"{row.id}@{seed}"))
        sides.append(side)
    result = score_run(*sides, normaliser=normaliser_of(corpus))
    clean = {"value": CLEAN, **{k: result["wer"][k] for k in ("before", "after", "delta", "delta_ci95", "words")}}
    slices = [entry for entry in result["slices"] if entry["by"] == "condition" and entry["value"] != CLEAN]
    return [clean, *slices]


def page(finished: Sequence[Mapping[str, Any]]) -> str:
    """The tables in Markdown, from the runs that are done."""
    lines = [
        "# Does each transform help?",
        "",
        "    " + "\n    ".join(f"python benchmarks/augment_ablation.py --corpus {corpus}" for corpus in CORPORA),
        "",
        "`nano`, adapted with each family of transforms alone, all of them, and the default chain; as many epochs over "
        "the same rows, no blend with the base. Word error rate in per cent; in brackets the difference to none in "
        "points with its 95 % interval (paired bootstrap over speakers, seeds pooled). Bold: the interval lies on one "
        "side of zero. Conditions use voices, rooms and noises that training never has.",
        "",
    ]
    for corpus in CORPORA:
        done = {(row["chain"], row["seed"]) for row in finished if row["corpus"] == corpus}
        seeds_of = {chain: sorted(seed for name, seed in done if name == chain) for chain in CHAINS}
        if not seeds_of["none"]:
            continue
        tables = {}
        for chain in CHAINS[1:]:
            seeds = [seed for seed in seeds_of[chain] if seed in seeds_of["none"]]
            if seeds:
                tables[chain] = (seeds, compare(corpus, chain, seeds))
        none = compare(corpus, "none", seeds_of["none"])
        names = [str(entry["value"]) for entry in none]
        lines += [f"## {corpus}", "", "| chain | seeds | " + " | ".join(names) + " |"]
        lines.append("| :-- | --: |" + " :-- |" * len(names))
        first = [f"{100 * entry['after']:.1f}" for entry in none]
        lines.append(f"| none | {len(seeds_of['none'])} | " + " | ".join(first) + " |")
        for chain, (seeds, entries) in tables.items():
            cells = {str(entry["value"]): cell(entry) for entry in entries}
            lines.append(f"| {chain} | {len(seeds)} | " + " | ".join(cells.get(name, "-") for name in names) + " |")
        rows = [row for row in finished if row["corpus"] == corpus]
        epochs, steps = ({row[key] for row in rows} for key in ("epochs", "steps"))
        words = ", ".join(f"{entry['value']} {entry['words']:,}" for entry in none)
        general = ", ".join(general_cell(rows, chain) for chain in CHAINS if seeds_of[chain])
        lines += [
            "",
            f"{min(epochs)} epochs, {min(steps)} to {max(steps)} steps; words by condition, all seeds: {words}.",
            f"General speech afterwards: {general}.",
            "",
        ]
    return "\n".join(lines)


def cell(entry: Mapping[str, Any]) -> str:
    """A rate, and how it differs from none."""
    interval = entry["delta_ci95"]
    if not interval:
        return f"{100 * entry['after']:.1f} ({100 * entry['delta']:+.1f})"
    told = f"{100 * entry['delta']:+.1f}, {100 * interval[0]:+.1f} to {100 * interval[1]:+.1f}"
    sure = interval[0] > 0 or interval[1] < 0
    return f"{100 * entry['after']:.1f} ({'**' if sure else ''}{told}{'**' if sure else ''})"


def general_cell(rows: Sequence[Mapping[str, Any]], chain: str) -> str:
    """Mean general rate of a chain's seeds."""
    rates = [row["general_wer"] for row in rows if row["chain"] == chain and row["general_wer"] is not None]
    return f"{chain} {100 * sum(rates) / len(rates):.1f}" if rates else f"{chain} not tested"


def main() -> int:
    """Run what is not done yet, a line and a page after each run."""
    global ROOT
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", choices=CORPORA, action="append", default=[])
    parser.add_argument("--chains", nargs="*", choices=CHAINS)
    parser.add_argument("--seeds", type=int, help="for none, all and default; one for single families")
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--rows", type=int, help="of train, dev and test, to try it out")
    parser.add_argument("--table", action="store_true", help="only write the page")
    parser.add_argument("--root", type=Path, default=Path("runs/ablation"))
    parser.add_argument("--out", type=Path, default=OUT)
    options = parser.parse_args()
    ROOT = options.root
    log = options.root / "results.jsonl"
    finished = files.read_jsonl(log) if log.exists() else []
    for name in () if options.table else options.corpus or ["demo"]:
        corpus = CORPORA[name]
        paths = prepare(name, options.root / name, options.rows)
        chains = options.chains or corpus.chains
        # Seed by seed, so that a run that is stopped early has every chain once.
        for seed in range(1, (options.seeds or corpus.seeds) + 1):
            for chain in chains:
                known = any((row["corpus"], row["chain"], row["seed"]) == (name, chain, seed) for row in finished)
                if known or (seed > 1 and chain not in SEVERAL_SEEDS):
                    continue
                finished.append(run_one(name, chain, seed, paths, options.epochs or corpus.epochs))
                files.write_jsonl(log, finished)
                last = finished[-1]
                print(f"{name} {chain} {seed}: clean {last['clean_wer']:.3f}, {last['seconds']:.0f} s", flush=True)
    with files.atomic_write(options.out) as file:
        file.write(page(finished))
    print(options.out)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
