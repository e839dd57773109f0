"""Does each transform help? `nano` adapted with none, each family alone, all, and the default chain; equal epochs.

    python benchmarks/augment_ablation.py demo             # also: an4, fsdd
    python benchmarks/augment_ablation.py demo --confirm   # the default and none again, with seeds nobody chose by
    python benchmarks/augment_ablation.py demo --parts     # the default less each of its parts, and with another
    python benchmarks/augment_ablation.py demo --short     # none, the default and the pipeline's own, half the epochs
    python benchmarks/augment_ablation.py demo --halved    # none, the default, and it half as often, with other seeds
    python benchmarks/augment_ablation.py demo --table     # only write the page from what is there

an4 wants data/an4 (see the README), fsdd the Free Spoken Digit Dataset
(https://github.com/Jakobovski/free-spoken-digit-dataset) as data/fsdd with a manifest.jsonl: a row a recording, with
`speaker`, `accent` ("USA/..." trains, all others are tested) and `split`, `train` or `test`.

Resumable: every run is a pipeline under runs/ablation/<corpus>/ with a result.json once it is done; one runs on each
core. Test rows and their fixed conditions (babble, telephone, room, accents, from voices and rooms that adapting
never hears) are made once and shared. Weights are taken at the best epoch on dev, without a blend, so that the chains
differ in nothing but what was heard; nine clips in ten share a window, which halves the time. Writes
docs/benchmarks/augment_<page>_<corpus>.md; the pages are in augment_chains.py.
"""

from __future__ import annotations

import argparse
import dataclasses
import multiprocessing
import os
import shutil
import subprocess
import sys
import time
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from augment_chains import (
    ABLATION,
    BY_PARTS,
    CLEAN,
    CONDITIONS,
    CONFIRMED,
    CORPORA,
    HALVED,
    MASKS,
    SHORT,
    SINGLE_SHARE,
    VIEWS,
    Question,
    chain_tables,
)

from speechft import config, files, manifest
from speechft.augment.views import make_conditions
from speechft.manifest import Utterance
from speechft.report.pipeline_text import to_toml
from speechft.run import Run
from speechft.score.score import score_run
from speechft.score.stats import MIN_GROUPS

ROOT = Path("runs/ablation")
OUT = Path("docs/benchmarks")


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


def prepare(corpus: str, folder: Path) -> dict[str, Path]:
    """Write the manifests that all chains share, the test set with its conditions among them; kept once made."""
    paths = {role: folder / f"{role}.jsonl" for role in ("train", "dev", "test")}
    if not paths["test"].exists():
        rows = read_rows(corpus)
        made = make_conditions(
            rows["test"], conditions=CONDITIONS, seed=1, out=folder / "conditions", bank=folder / "rooms.npz"
        )
        for role in ("train", "dev"):
            if role in rows:
                manifest.write(paths[role], (dataclasses.replace(row, split=role) for row in rows[role]))
        manifest.write(paths["test"], (dataclasses.replace(row, split="test") for row in [*rows["test"], *made.rows]))
    return {role: path for role, path in paths.items() if path.exists()}


def pipeline_of(name: str, chain: str, seed: int, paths: Mapping[str, Path], epochs: int) -> dict[str, Any]:
    """The corpus's pipeline with a chain: the same epochs over the same rows, nothing blended."""
    corpus = CORPORA[name]
    tree = tomllib.loads(corpus.pipeline.read_text(encoding="utf-8"))
    for table in ("conditions", "synth"):  # the recordings alone
        tree.pop(table, None)
    tree["encode"] = {"single_share": SINGLE_SHARE}
    tree["data"] |= {role: str(path) for role, path in paths.items()}
    tree["data"]["allow_leaks"] = ["speaker", "text", "near_text"]  # accented copies of the test; commands in an4
    tables = chain_tables(name, chain)
    tree["augment"] = {"views": VIEWS if tables else 0, "seed": seed, **tables}
    tree["finetune"] |= {
        "epochs": epochs, "patience": epochs, "replay_share": corpus.replay_share, "alphas": [1.0], "seed": seed
    }  # fmt: skip
    if chain == "masks":
        tree["finetune"] |= MASKS
    return tree


def run_one(question: Question, corpus: str, chain: str, seed: int) -> dict[str, Any]:
    """Adapt and transcribe; training views and states are removed when it is done.

    Raises:
        RuntimeError: the run failed; the same command goes on with it.
    """
    folder, name, epochs = ROOT / corpus, question.name(corpus, chain, seed), question.epochs(corpus)
    path = folder / f"{name}.toml"
    paths = prepare(corpus, folder)
    text = to_toml(pipeline_of(corpus, chain, seed, paths, epochs))
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        with files.atomic_write(path) as file:
            file.write(text)
    started = time.monotonic()
    command = [sys.executable, "scripts/finetune.py", "--pipeline", str(path), "--run", name, "--runs", str(folder)]
    done = subprocess.run(command, check=False, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    if done.returncode:
        raise RuntimeError(  # SystemExit would end a worker unheard
            f"{' '.join(command)}: failed; the same command goes on\n{done.stderr[-2000:]}"
        )
    from speechft import transcription
    from speechft.whisper import load

    run = Run(config.load(str(path)), folder / name)
    adapted, device = load.load(str(run.dir / "finetune" / "model")), load.choose_device()
    adapted.trained = True
    rates: dict[str, float] = {}
    for role in ("test", "general_test"):
        if rows := run.evaluated(role).get(role):
            found = transcription.hypotheses(run, adapted, rows, device, store="reported")
            rows = [dataclasses.replace(row, hypothesis=h) for row, h in zip(rows, found, strict=True)]
            manifest.write(run.dir / f"{role}.jsonl", rows)
            rates[role] = score_run(rows, normaliser=normaliser_of(corpus), resamples=100)["wer"]["value"]
    train = files.read_json(run.dir / "encode" / "train.json")
    shutil.rmtree(folder / "states" / train["key"], ignore_errors=True)
    shutil.rmtree(run.dir / "augment" / "views", ignore_errors=True)
    result = {
        "chain": chain, "seed": seed, "epochs": epochs,
        "steps": files.read_json(run.dir / "finetune" / "stage.json")["steps"],
        "seconds": round(time.monotonic() - started, 1), "clean_wer": round(rates["test"], 4),
        "general_wer": round(rates["general_test"], 4) if "general_test" in rates else None,
    }  # fmt: skip
    files.write_json(run.dir / "result.json", result)
    print(f"{corpus} {chain} {seed}: clean {result['clean_wer']:.3f}, {result['seconds']:.0f} s", flush=True)
    return result


def normaliser_of(corpus: str) -> str:
    """The normaliser that the corpus's pipeline scores with."""
    tree = tomllib.loads(CORPORA[corpus].pipeline.read_text(encoding="utf-8"))
    return str(tree.get("score", {}).get("normaliser", "jargon-safe"))


def compare(question: Question, corpus: str, chain: str, seeds: Sequence[int]) -> list[dict[str, Any]]:
    """Word error rates by condition, the base before and `chain` after, seeds pooled; intervals over speakers, or over
    clips, a clip's seeds as one piece, where there are too few speakers to draw from."""
    sides = []
    for name in (question.base, chain):
        side = []
        for seed in seeds:
            path = ROOT / corpus / question.name(corpus, name, seed) / "test.jsonl"
            rows = manifest.read(path, need_audio=False)
            if len({row.speaker for row in rows if row.condition is None}) < MIN_GROUPS:
                rows = [dataclasses.replace(row, speaker=None, recording=row.id) for row in rows]
            side += [dataclasses.replace(row, id=f"{row.id}@{seed}") for row in rows]
        sides.append(side)
    result = score_run(*sides, normaliser=normaliser_of(corpus))
    clean = {"value": CLEAN, **{k: result["wer"][k] for k in ("before", "after", "delta", "delta_ci95", "words")}}
    slices = [entry for entry in result["slices"] if entry["by"] == "condition" and entry["value"] != CLEAN]
    order = list(CONDITIONS)
    slices.sort(key=lambda entry: order.index(entry["value"]) if entry["value"] in order else len(order))
    return [clean, *slices]


def page(corpus: str, question: Question) -> str:
    """The table in Markdown, from the runs that are done."""
    asked, base = question.asked_of(corpus), question.base
    paths = {run: ROOT / corpus / question.name(corpus, *run) / "result.json" for run in asked}
    finished = [files.read_json(path) for path in paths.values() if path.exists()]
    seeds_of: dict[str, list[int]] = {chain: [] for chain in question.runs}
    for row in finished:
        seeds_of[row["chain"]].append(row["seed"])
    lines = [
        f"# {question.title} {corpus}",
        "",
        f"    python benchmarks/augment_ablation.py {corpus} {question.option}".rstrip(),
        "",
        f"`nano`, adapted with {question.told} (an epoch hears the recordings or one of two views); as many "
        "epochs over the same rows, a tenth of them alone in their window, no blend with the base. Word error rate in "
        f"per cent; in brackets the difference to {base} by the same seeds, in points with its 95 % interval (paired "
        "bootstrap over speakers, in the said columns synthetic ones, over clips where there are fewer than "
        f"{MIN_GROUPS} speakers; seeds pooled). Bold: the interval lies on one side of zero, for these seeds. "
        "Conditions use voices, rooms and noises that adapting never hears; `nano` was trained on all of babble's "
        "voices, on the Scottish one, and on all timbres of the said columns but one.",
        "",
    ]
    if not seeds_of[base]:
        return "\n".join([*lines, "Nothing is measured yet.", ""])
    first = compare(question, corpus, base, seeds_of[base])
    names = [str(entry["value"]) for entry in first]
    lines += ["| chain | seeds | " + " | ".join(names) + " |", "| :-- | --: |" + " :-- |" * len(names)]
    lines.append(f"| {base} | {len(seeds_of[base])} | " + " | ".join(f"{100 * e['after']:.1f}" for e in first) + " |")
    for chain in question.runs:
        seeds = [seed for seed in seeds_of[chain] if seed in seeds_of[base]]
        if seeds and chain != base:
            cells = {str(entry["value"]): cell(entry) for entry in compare(question, corpus, chain, seeds)}
            lines.append(f"| {chain} | {len(seeds)} | " + " | ".join(cells.get(name, "-") for name in names) + " |")
    epochs, steps = ({row[key] for row in finished} for key in ("epochs", "steps"))
    words = ", ".join(f"{entry['value']} {entry['words']:,}" for entry in first)
    general = ", ".join(general_cell(finished, chain) for chain in question.runs if seeds_of[chain])
    by_seed = ", ".join(
        f"{chain} " + " ".join(f"{100 * rate:.1f}" for rate in clean_rates(finished, chain))
        for chain in question.runs
        if len(seeds_of[chain]) > 1
    )
    return "\n".join([
        *lines,
        "",
        f"{min(epochs)} epochs, {min(steps)} to {max(steps)} steps, as views of other lengths fill other numbers of "
        f"windows; words by condition, all seeds: {words}.",
        f"Clean, seed by seed: {by_seed}." if by_seed else "One seed.",
        f"General speech afterwards: {general}.",
        f"{sum(row['seconds'] for row in finished) / 60:.0f} minutes of a core for {len(finished)} runs.",
        "",
    ])  # fmt: skip


def clean_rates(rows: Sequence[Mapping[str, Any]], chain: str) -> list[float]:
    """A chain's rates on clean rows, in the order of its seeds."""
    return [row["clean_wer"] for row in sorted(rows, key=lambda row: row["seed"]) if row["chain"] == chain]


def cell(entry: Mapping[str, Any]) -> str:
    """A rate, and how it differs from the base's."""
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
    """Run what is not done yet, a run on each core, and the page after each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", choices=CORPORA)
    parser.add_argument("--chains", nargs="*", metavar="CHAIN", help="these alone, by their names in the page")
    parser.add_argument("--jobs", type=int, default=len(os.sched_getaffinity(0)), help="runs at a time, one core each")
    which = parser.add_mutually_exclusive_group()
    for asks, told in (
        (CONFIRMED, "none and the default, seeds nothing was chosen by"),
        (BY_PARTS, "the default less each of its parts, and with another"),
        (SHORT, "none, the default and the pipeline's own, half the epochs"),
        (HALVED, "none, the default, and it half as often, with other seeds"),
    ):
        which.add_argument(asks.option, dest="question", action="store_const", const=asks, default=ABLATION, help=told)
    parser.add_argument("--table", action="store_true", help="only write the page")
    options = parser.parse_args()
    name = options.corpus
    question = options.question
    asked = question.asked_of(name)
    if unknown := {*(options.chains or ())} - {chain for chain, _ in asked}:
        parser.error(f"--chains: {', '.join(sorted(unknown))}: not asked of {name} here")
    todo = [
        (chain, seed)
        for chain, seed in asked
        if (not options.chains or chain in options.chains)
        and not (ROOT / name / question.name(name, chain, seed) / "result.json").exists()
    ]

    def finish(runs: Sequence[tuple[str, int]], jobs: int) -> None:
        with multiprocessing.get_context("spawn").Pool(jobs, maxtasksperchild=1) as pool:
            started = [pool.apply_async(run_one, (question, name, chain, seed)) for chain, seed in runs]
            for one in started:
                one.get()
                write_page(name, question)

    if todo and not options.table:
        os.environ["OMP_NUM_THREADS"] = "1"
        prepare(name, ROOT / name)  # here, as the workers below may not start others
        finish(todo[:1], 1)  # alone, as it makes the states that all share
        finish(todo[1:], options.jobs)
    print(write_page(name, question))
    return 0


def write_page(corpus: str, question: Question) -> Path:
    """Write the page of what is done."""
    path = OUT / f"augment_{question.page}_{corpus}.md"
    with files.atomic_write(path) as file:
        file.write(page(corpus, question))
    return path


if __name__ == "__main__":
    raise SystemExit(main())
