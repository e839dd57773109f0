"""Does each transform help? `nano` adapted with none, each family alone, all, and the default chain; equal steps.

    python benchmarks/augment_ablation.py demo             # also: an4, fsdd
    python benchmarks/augment_ablation.py demo --confirm   # the default and none again, with seeds nobody chose by
    python benchmarks/augment_ablation.py demo --parts     # the default less each of its parts, and with another
    python benchmarks/augment_ablation.py demo --table     # only write the page from what is there

an4 wants data/an4 (see the README), fsdd the Free Spoken Digit Dataset
(https://github.com/Jakobovski/free-spoken-digit-dataset) as data/fsdd with a manifest.jsonl: a row a recording, with
`speaker`, `accent` ("USA/..." trains, all others are tested) and `split`, `train` or `test`.

Resumable: every run is a pipeline under runs/ablation/<corpus>/ with a result.json once it is done; one runs on each
core. Test rows and their fixed conditions (babble, telephone, room, accents, from voices and rooms that training never
has) are made once and shared. Weights are taken at the best epoch on dev, without a blend, so that the chains differ in
nothing but what was heard; nine clips in ten share a window, which halves the time. Writes
docs/benchmarks/augment_ablation_<corpus>.md, or augment_confirmed_<corpus>.md, or augment_parts_<corpus>.md.
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
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from speechft import config, files, manifest
from speechft.augment import settings as tables_of
from speechft.augment.settings import DEFAULT
from speechft.augment.views import make_conditions
from speechft.manifest import Utterance
from speechft.report.pipeline_text import to_toml
from speechft.run import Run
from speechft.score.score import score_run

ROOT = Path("runs/ablation")
OUT = Path("docs/benchmarks")
VIEWS = 2
SINGLE_SHARE = 0.1  # of clips alone in their window
FAMILIES: dict[str, tuple[str, ...]] = {
    "noise": ("noise",),
    "room": ("room",),
    "channel": ("clip", "band", "telephone", "codec", "gain"),
    "speed": ("speed",),
    "warp": ("tempo", "pitch", "formants", "contour", "rhythm"),
    "say": ("say",),
}
MASKS = {"time_masks": 2, "time_mask_s": 0.5, "channel_masks": 1, "channel_mask_share": 0.1}
SAID = {"say": 0.3, "say-0.15": 0.15, "say-0.6": 0.6, "say-1": 1.0, "all": 0.3}  # of the views
SAY_SHARE = tables_of.Say().p
OTHER_SHARES = ("say-0.15", "say-0.6", "say-1")
CHAINS = ("none", *FAMILIES, *OTHER_SHARES, "masks", "all", "default", "default-say")
SEEDS = (1, 2, 3)
OFTEN = ("none", "all", "default", "default-say")  # with every seed; the others with one
FRESH = (4, 5, 6)  # the default was chosen by seeds 1 to 3, which therefore flatter it
VOICE = ("tempo", "pitch", "formants")
PARTS: dict[str, dict[str, Any]] = {  # what the default's tables become, None: it has none
    "default": {},
    "no noise": {"noise": None},
    "no room": {"room": None},
    "no voice": dict.fromkeys(VOICE),
    "noise from 0 dB": {"noise": {"snr_db": [0, 25]}},
    "speed too": {"speed": {}},
}
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
class Question:
    """A page: which chains with which seeds, and what they are compared with."""

    page: str  # docs/benchmarks/augment_<page>_<corpus>.md
    title: str
    told: str
    option: str = ""
    base: str = "none"
    runs: Mapping[str, tuple[int, ...]]  # chain to seeds

    def asked_of(self, corpus: str) -> list[tuple[str, int]]:
        """Chains and seeds, seed by seed, so that what is stopped early has every chain once."""
        runs = [(chain, seed) for chain, seeds in self.runs.items() for seed in seeds]
        known = {*CORPORA[corpus].chains, *PARTS}
        return sorted([run for run in runs if run[0] in known], key=lambda run: run[1])


ABLATION = Question(
    page="ablation",
    title="Does each transform help?",
    told="each family of transforms alone, all of them, and the default chain, without and with `say`; `say` and `all` "
    f"say the text again in 0.3 of the views, or in the share named, `default-say` in {SAY_SHARE:g}",
    runs={chain: SEEDS if chain in OFTEN else SEEDS[:1] for chain in CHAINS},
)
CONFIRMED = Question(
    page="confirmed",
    title="Does the default chain help, once chosen?",
    told=f"the default chain, with seeds {FRESH[0]} to {FRESH[-1]}, by which nothing was chosen",
    option=" --confirm",
    runs=dict.fromkeys(("none", "default"), FRESH),
)
BY_PARTS = Question(
    page="parts",
    title="Does each part of the default chain help?",
    told="the default chain, with it less its noise, its rooms, or its changes of voice (tempo, pitch, formants), with "
    "noise from 0 dB, where the default's begins at 5, and with `speed` beside the others",
    option=" --parts",
    base="default",
    runs=dict.fromkeys(PARTS, SEEDS),
)


@dataclass(frozen=True, kw_only=True)
class Corpus:
    """What to adapt to: the pipeline it starts from, its epochs, and the chains worth their time."""

    pipeline: Path
    epochs: int
    replay_share: float
    chains: tuple[str, ...]


CORPORA = {
    "demo": Corpus(
        pipeline=Path("pipelines/demo.toml"),
        epochs=14,
        replay_share=0.5,
        chains=tuple(chain for chain in CHAINS if chain not in OTHER_SHARES),
    ),
    "an4": Corpus(pipeline=Path("pipelines/an4.toml"), epochs=12, replay_share=0.25, chains=CHAINS),
    "fsdd": Corpus(pipeline=Path("pipelines/an4.toml"), epochs=8, replay_share=0.25, chains=("none", "all", "default")),
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


def chain_tables(chain: str) -> dict[str, dict[str, Any]]:
    """The transforms of a chain, each with its own default probability and ranges."""
    names: Sequence[str] = FAMILIES.get(chain, ())
    if chain == "all":
        names = [name for family in FAMILIES.values() for name in family]
    if chain == "default-say":
        names = ["say", *DEFAULT]
    tables: dict[str, Any] = {name: {} for name in names}
    if chain in PARTS:
        tables = {name: table for name, table in {**DEFAULT, **PARTS[chain]}.items() if table is not None}
    if chain in SAID:
        tables = {**tables, "say": {"p": SAID[chain]}}
    checked = tables_of.check(tables)
    return {name: {"p": getattr(checked, name).p, **table} for name, table in tables.items()}


def pipeline_of(corpus: Corpus, chain: str, seed: int, paths: Mapping[str, Path], epochs: int) -> dict[str, Any]:
    """The corpus's pipeline with a chain: the same epochs over the same rows, nothing blended."""
    tree = tomllib.loads(corpus.pipeline.read_text(encoding="utf-8"))
    for table in ("conditions", "synth"):  # the recordings alone
        tree.pop(table, None)
    tree["encode"] = {"single_share": SINGLE_SHARE}
    tree["data"] |= {role: str(path) for role, path in paths.items()}
    tree["data"]["allow_leaks"] = ["speaker", "text", "near_text"]  # accented copies of the test; commands in an4
    tables = chain_tables(chain)
    tree["augment"] = {"views": VIEWS if tables else 0, "seed": seed, **tables}
    tree["finetune"] |= {
        "epochs": epochs, "patience": epochs, "replay_share": corpus.replay_share, "alphas": [1.0], "seed": seed
    }  # fmt: skip
    if chain == "masks":
        tree["finetune"] |= MASKS
    return tree


def run_one(corpus: str, chain: str, seed: int, epochs: int) -> dict[str, Any]:
    """Adapt and transcribe; training views and states are removed when it is done.

    Raises:
        RuntimeError: the run failed; the same command goes on with it.
    """
    folder, name = ROOT / corpus, name_of(chain, seed)
    path = folder / f"{name}.toml"
    paths = prepare(corpus, folder)
    text = to_toml(pipeline_of(CORPORA[corpus], chain, seed, paths, epochs))
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


def name_of(chain: str, seed: int) -> str:
    """The run's folder."""
    return f"{chain.replace(' ', '-')}-{seed}"


def normaliser_of(corpus: str) -> str:
    """The normaliser that the corpus's pipeline scores with."""
    tree = tomllib.loads(CORPORA[corpus].pipeline.read_text(encoding="utf-8"))
    return str(tree.get("score", {}).get("normaliser", "jargon-safe"))


def compare(corpus: str, chain: str, seeds: Sequence[int], base: str) -> list[dict[str, Any]]:
    """Word error rates by condition, `base` before and `chain` after, seeds pooled; intervals over speakers."""
    sides = []
    for name in (base, chain):
        side = []
        for seed in seeds:
            path = ROOT / corpus / name_of(name, seed) / "test.jsonl"
            for row in manifest.read(path, need_audio=False):
                side.append(dataclasses.replace(row, id=f"{row.id}@{seed}"))
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
    paths = {(chain, seed): ROOT / corpus / name_of(chain, seed) / "result.json" for chain, seed in asked}
    finished = [files.read_json(path) for path in paths.values() if path.exists()]
    seeds_of: dict[str, list[int]] = {chain: [] for chain in question.runs}
    for row in finished:
        seeds_of[row["chain"]].append(row["seed"])
    lines = [
        f"# {question.title} {corpus}",
        "",
        f"    python benchmarks/augment_ablation.py {corpus}{question.option}",
        "",
        f"`nano`, adapted with {question.told} (an epoch hears the recordings or one of two views); as many "
        "epochs over the same rows, a tenth of them alone in their window, no blend with the base. Word error rate in "
        f"per cent; in brackets the difference to {base} in points with its 95 % interval (paired bootstrap over "
        "speakers, seeds pooled). Bold: the interval lies on one side of zero. Conditions use voices, rooms and noises "
        "that training never has.",
        "",
    ]
    if not seeds_of[base]:
        return "\n".join([*lines, "Nothing is measured yet.", ""])
    first = compare(corpus, base, seeds_of[base], base)
    names = [str(entry["value"]) for entry in first]
    lines += ["| chain | seeds | " + " | ".join(names) + " |", "| :-- | --: |" + " :-- |" * len(names)]
    lines.append(f"| {base} | {len(seeds_of[base])} | " + " | ".join(f"{100 * e['after']:.1f}" for e in first) + " |")
    for chain in question.runs:
        seeds = [seed for seed in seeds_of[chain] if seed in seeds_of[base]]
        if seeds and chain != base:
            cells = {str(entry["value"]): cell(entry) for entry in compare(corpus, chain, seeds, base)}
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
    """Run what is not done yet, a run on each core, and the page after each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", choices=CORPORA)
    parser.add_argument("--chains", nargs="*", metavar="CHAIN", help="these alone, by their names in the page")
    parser.add_argument("--jobs", type=int, default=len(os.sched_getaffinity(0)), help="runs at a time, one core each")
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--confirm", action="store_true", help="none and the default, seeds nothing was chosen by")
    which.add_argument("--parts", action="store_true", help="the default less each of its parts, and with another")
    parser.add_argument("--table", action="store_true", help="only write the page")
    options = parser.parse_args()
    name, epochs = options.corpus, CORPORA[options.corpus].epochs
    question = CONFIRMED if options.confirm else BY_PARTS if options.parts else ABLATION
    asked = question.asked_of(name)
    if unknown := {*(options.chains or ())} - {chain for chain, _ in asked}:
        parser.error(f"--chains: {', '.join(sorted(unknown))}: not asked of {name} here")
    todo = [
        (chain, seed)
        for chain, seed in asked
        if (not options.chains or chain in options.chains)
        and not (ROOT / name / name_of(chain, seed) / "result.json").exists()
    ]

    def finish(runs: Sequence[tuple[str, int]], jobs: int) -> None:
        with multiprocessing.get_context("spawn").Pool(jobs, maxtasksperchild=1) as pool:
            started = [pool.apply_async(run_one, (name, chain, seed, epochs)) for chain, seed in runs]
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
