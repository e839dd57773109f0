"""What `augment_ablation.py` asks: the chains, the corpora, and which chains with which seeds make a page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from speechft import config
from speechft.augment import settings as tables_of
from speechft.augment.settings import DEFAULT

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
FRESHER = (7, 8, 9)  # "half as often" was noticed with seeds 1 to 3, beside a default confirmed with 4 to 6
OWN = "its own"  # what the corpus's pipeline names
VOICE = ("tempo", "pitch", "formants")
PARTS: dict[str, dict[str, Any]] = {  # what the default's tables become, None: it has none
    "default": {},
    "no noise": {"noise": None},
    "no room": {"room": None},
    "no voice": dict.fromkeys(VOICE),
    "noise from 0 dB": {"noise": {"snr_db": [0, 25]}},
    "speed too": {"speed": {}},
    "half as often": {name: {"p": getattr(tables_of.check(DEFAULT), name).p / 2} for name in DEFAULT},
}
BABBLE = "manifests/clinical/audio/babble"  # eight voices that no training row has; `nano` was trained on them
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
    replay_share: float
    chains: tuple[str, ...]
    twice: tuple[str, ...] = ()  # without their third seed, as a page must not take more than an hour


CORPORA = {
    "demo": Corpus(
        pipeline=Path("pipelines/demo.toml"),
        epochs=14,
        replay_share=0.5,
        chains=tuple(chain for chain in CHAINS if chain not in OTHER_SHARES),
        twice=("no noise", "no room", "no voice", "noise from 0 dB", "speed too"),
    ),
    "an4": Corpus(pipeline=Path("pipelines/an4.toml"), epochs=12, replay_share=0.25, chains=CHAINS),
    "fsdd": Corpus(pipeline=Path("pipelines/an4.toml"), epochs=8, replay_share=0.25, chains=("none", "all", "default")),
}


@dataclass(frozen=True, kw_only=True)
class Question:
    """A page: which chains with which seeds, and what they are compared with."""

    page: str  # docs/benchmarks/augment_<page>_<corpus>.md
    title: str
    told: str
    option: str = ""
    base: str = "none"
    runs: Mapping[str, tuple[int, ...]]  # chain to seeds
    epochs_share: float = 1.0  # of the corpus's

    def asked_of(self, corpus: str) -> list[tuple[str, int]]:
        """Chains and seeds, seed by seed, so that what is stopped early has every chain once."""
        twice = CORPORA[corpus].twice
        runs = [(chain, seed) for chain, seeds in self.runs.items() for seed in seeds[: 2 if chain in twice else None]]
        known = {*CORPORA[corpus].chains, *PARTS, OWN}
        return sorted([run for run in runs if run[0] in known], key=lambda run: run[1])

    def epochs(self, corpus: str) -> int:
        """For which every chain is trained."""
        return round(self.epochs_share * CORPORA[corpus].epochs)

    def name(self, corpus: str, chain: str, seed: int) -> str:
        """The folder of a run, which pages share where they ask the same."""
        epochs = "" if self.epochs_share == 1 else f"-{self.epochs(corpus)}-epochs"
        return f"{chain.replace(' ', '-')}-{seed}{epochs}"


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
    told=f"the default chain, with seeds {FRESH[0]} to {FRESHER[-1]}, by which nothing was chosen",
    option="--confirm",
    runs=dict.fromkeys(("none", "default"), FRESH + FRESHER),
)
BY_PARTS = Question(
    page="parts",
    title="Does each part of the default chain help?",
    told="the default chain, with it less its noise, its rooms, or its changes of voice (tempo, pitch, formants), with "
    "noise from 0 dB, where the default's begins at 5, with `speed` beside the others, and with all half as often",
    option="--parts",
    base="default",
    runs=dict.fromkeys(PARTS, SEEDS),
)
SHORT = Question(
    page="short",
    title="Which chain for short training?",
    told="half as many epochs as on the other pages and the default chain, or the one that the corpus's pipeline names",
    option="--short",
    runs=dict.fromkeys(("none", "default", OWN), SEEDS),
    epochs_share=0.5,
)
HALVED = Question(
    page="halved",
    title="Is the default chain better half as often?",
    told="none, the default chain, and with all of it half as often, with seeds "
    f"{FRESHER[0]} to {FRESHER[-1]}, by which nothing was chosen",
    option="--halved",
    base="half as often",
    runs=dict.fromkeys(("half as often", "default", "none"), FRESHER),
)


def chain_tables(corpus: str, chain: str) -> dict[str, dict[str, Any]]:
    """The transforms of a chain, each with its own default probability and ranges unless it names others."""
    if chain == OWN:
        return dict(config.load(str(CORPORA[corpus].pipeline)).augment.transforms)
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
