"""The tables of speed.py: rows of speed.json, and their page in Markdown."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from speechft import config, files

SHARE = 0.1  # of the clips have a window of their own
CLIP_S, TOKENS = 5.0, 20
EPOCHS, VIEWS = (1, 5, 10), (1, 3)
TARGETS = {"tiny": 5.0, "small": 6.5, "turbo": 12.0}  # at 5 epochs and 1 view
NOTES = {("large", "cuda"): ", by code before graphs (27 November 2026)"}  # goes once it is measured anew
MEMORY_ROOM_GB = 0.05  # that two runs of the same differ by
ROUNDS = ("recipe-1", "ours", "recipe-2")
BY_DEFAULT = "ours_default"  # with the share of clips alone that is the default, in bf16
SHARES = {"ours": SHARE, BY_DEFAULT: config.Encode().single_share}


def counted(size: str, *, epochs: int, views: int, held: dict[str, Any]) -> float:
    """The recipe's operations over ours."""
    from speechft.whisper import operations

    shape, clips = operations.PUBLISHED[size], held["clips"]
    alone = operations.encoder(shape)
    theirs = epochs * clips * (alone + operations.decoder_training(shape, windows=1, tokens=24, labels=24))
    windows, tokens = held["windows"][0], held["tokens_computed"]
    labels = clips * TOKENS + windows
    step = operations.decoder_training(shape, windows=windows, tokens=tokens, labels=labels)
    return theirs / (sum(held["windows"][:views]) * alone + epochs * step)


def rows_of(
    size: str, precision: str, device: str, parts: dict[str, dict[str, Any]], *, part: str, single_share: float
) -> list[dict[str, Any]]:
    """One row for each number of epochs and views."""
    held = parts[part]
    per_clip = [parts[name]["s_per_clip"] for name in ("recipe-1", "recipe-2")]
    recipe_s = sum(per_clip) / 2
    rows = []
    for views in VIEWS:
        for epochs in EPOCHS:
            seconds = sum(held["view_s"][:views]) + sum(held["epoch_s"][:epochs])
            outside = sum(held["view_outside_s"][:views]) + sum(held["epoch_outside_s"][:epochs])
            clips = held["clips"] * epochs
            rows.append(
                {
                    "size": size, "device": device, "precision": precision, "single_share": single_share,
                    "epochs": epochs, "views": views, "windows": held["windows"][0],
                    "tokens": TOKENS, "ratio": round(recipe_s * clips / seconds, 2),
                    "counted_ratio": round(counted(size, epochs=epochs, views=views, held=held), 2),
                    "clips_per_s": round(clips / seconds, 3), "peak_gb": round(held["peak_gb"], 2),
                    "disk_gb": round(held["disk_gb"] * views, 3), "seconds_outside_model": round(outside, 2),
                    "seconds": round(seconds, 1), "recipe_s_per_clip": [round(s, 5) for s in per_clip],
                    "where": held.get("where"),
                    "recipe_peak_gb": round(max(parts[n]["peak_gb"] for n in ("recipe-1", "recipe-2")), 2),
                    "encode_s_per_view": round(sum(held["view_s"]) / len(held["view_s"]), 2),
                    "epoch_s": round(sum(held["epoch_s"]) / len(held["epoch_s"]), 2),
                }
            )  # fmt: skip
    return rows


def page(rows: list[dict[str, Any]]) -> str:
    """The rows in Markdown."""
    lines = [
        "# Training speed beside transformers' recipe",
        "",
        "    python benchmarks/speed.py",
        "",
        "Random weights, clips of 5 s with 20 tokens, a tenth of them alone in their window, 32 clips a step; our "
        "encoding included, its log-mels too; the recipe's log-mels are computed beforehand, and on CUDA other "
        "processes collate them. Ratio: the recipe's time over ours. Counted: by floating-point operations, a step's "
        "windows in one pass and heard whole. The recipe is measured before and after ours, both rates are in "
        "[speed.json](speed.json). Memory is the peak of the process, on CUDA of what tensors hold, without what "
        "PyTorch keeps free or for graphs; less or as much "
        f"as the recipe's is asked, and more by over {MEMORY_ROOM_GB:g} GB is said. Outside the model is what is done "
        "around passes and the optimiser: batches are put together inside. Targets at 5 epochs and 1 view: tiny 5, "
        "small 6.5, turbo 12; why a GPU misses them is in [adapting.md](../adapting.md#on-a-gpu). As windows are not "
        "split, a step of ours holds up to four clips more than 32. On a GPU states are encoded in fp16 throughout, "
        "and the first steps also record what the others launch at once. The recipe takes its 32 clips 16 at a time on "
        "a processor, at once on a card; it is timed for one to four steps after the first on a processor, eleven on "
        "a card, ours for whole epochs. On a card fp32 was not measured.",
        "",
        "| size | device | precision | epochs | views | ratio | counted | clips/s | outside the model | memory, GB "
        "| recipe's | disk, GB |",
        "| :-- | :-- | :-- | --: | --: | --: | --: | --: | --: | --: | --: | --: |",
    ]
    for row in (row for row in rows if row["single_share"] == SHARE):
        target = TARGETS.get(row["size"]) if (row["epochs"], row["views"]) == (5, 1) else None
        mark = "" if target is None else f" ({'meets' if row['ratio'] >= target else 'misses'} {target:g})"
        lines.append(
            f"| {row['size']} | {row['device']} | {row['precision']} | {row['epochs']} | {row['views']} "
            f"| {row['ratio']:.1f}{mark} | {row['counted_ratio']:.1f} | {row['clips_per_s']:.1f} "
            f"| {100 * row['seconds_outside_model'] / row['seconds']:.0f} % | {memory(row)} "
            f"| {row['recipe_peak_gb']:.1f} | {row['disk_gb']:.2f} |"
        )
    if default := [r for r in rows if r["single_share"] != SHARE and (r["epochs"], r["views"]) == (5, 1)]:
        lines += [
            "",
            f"With `encode.single_share` as it is by default, {default[0]['single_share']:g} of the clips alone, which "
            "reads single clips better and has about twice the windows (5 epochs, 1 view; no target was set for it):",
            "",
            "| size | device | precision | ratio | counted | clips/s | memory, GB | recipe's | disk, GB |",
            "| :-- | :-- | :-- | --: | --: | --: | --: | --: | --: |",
        ]
    for row in default:
        lines.append(
            f"| {row['size']} | {row['device']} | {row['precision']} | {row['ratio']:.1f} | {row['counted_ratio']:.1f} "
            f"| {row['clips_per_s']:.1f} | {memory(row)} | {row['recipe_peak_gb']:.1f} | {row['disk_gb']:.2f} |"
        )
    for device in sorted({row["device"] for row in rows}):
        held: dict[str, list[str]] = {}
        for row in (row for row in rows if row["device"] == device):
            where = row.get("where") or "a machine not recorded, earlier"
            named = held.setdefault(where + NOTES.get((row["size"], device), ""), [])
            if (name := f"{row['size']} {row['precision']}") not in named:
                named.append(name)
        lines += ["", f"{device}: " + "; ".join(f"{where} ({', '.join(named)})" for where, named in held.items()) + "."]
    return "\n".join(lines) + "\n"


def memory(row: dict[str, Any]) -> str:
    """Peak memory, and whether it is over the recipe's."""
    over = row["peak_gb"] > row["recipe_peak_gb"] + MEMORY_ROOM_GB
    return f"{row['peak_gb']:.1f}{' (over)' if over else ''}"


def write_tables(root: Path, out: Path) -> None:
    """speed.json and speed.md of every size that has all its parts; rows of others stay as they were."""

    def kind(row: dict[str, Any]) -> tuple[Any, ...]:
        return tuple(row[key] for key in ("size", "device", "precision", "single_share"))

    rows: list[dict[str, Any]] = []
    for path in root.glob("*-ours*.json"):
        size, precision, device, part = path.stem.split("-")
        paths = {name: root / f"{size}-{precision}-{device}-{name}.json" for name in ("recipe-1", "recipe-2", part)}
        if all(path.exists() for path in paths.values()):
            parts = {name: files.read_json(path) for name, path in paths.items()}
            rows += rows_of(size, precision, device, parts, part=part, single_share=SHARES[part])
    measured = {kind(row) for row in rows}
    rows += [row for row in (files.read_json(out) if out.exists() else []) if kind(row) not in measured]
    order = ("tiny", "base", "small", "medium", "large", "turbo")
    keys = ("precision", "single_share", "views", "epochs")
    rows.sort(key=lambda row: (row["device"], order.index(row["size"]), *(row[key] for key in keys)))
    files.write_json(out, rows)
    with files.atomic_write(out.with_suffix(".md")) as file:
        file.write(page(rows))
