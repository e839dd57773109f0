"""Ingest on made-up sound: bad rows named, splits that share nothing, leaks found and allowed by name."""

import dataclasses
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from speechft import files, manifest
from speechft.errors import InputError
from speechft.ingest import audit, checks, overlap, split, stage
from speechft.ingest.ledger import Ledger, Places, Row
from speechft.ingest.readers import Manifests
from speechft.manifest import Reject, Utterance

SETTINGS: dict[str, Any] = {
    "allow_leaks": [],
    "max_rejected_share": 0.5,
    "general_dev_share": 0.25,
    "split_by": None,
    "seed": 1,
    "train_share": 1.0,
}
NUMBERS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven"]


def sound(path: Path, *, seed: int, duration_s: float = 0.5, rate: int = 16000, channels: int = 1) -> str:
    noise = np.random.default_rng(seed).normal(0, 0.1, (round(duration_s * rate), channels))
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, noise, rate, subtype="FLOAT" if path.suffix == ".wav" else None)
    return path.name


def clips(folder: Path, name: str, count: int, *, seed: int, **keys: Any) -> list[dict[str, Any]]:
    """Rows with a sound, a text and a speaker each of their own."""
    return [
        {
            "id": f"{name}{number}",
            "audio_filepath": sound(folder / f"{name}{number}.wav", seed=seed + number),
            "text": f"{name} says {NUMBERS[number % 12]} {number}",
            "speaker": f"{name}-speaker{number}",
            **keys,
        }
        for number in range(count)
    ]


def save(path: Path, rows: Sequence[dict[str, Any] | str]) -> Path:
    lines = [row if isinstance(row, str) else json.dumps(row, ensure_ascii=False) for row in rows]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def run(folder: Path, roles: dict[str, list[Path]], **changes: Any) -> dict[str, Any]:
    return stage.ingest(roles, out=folder / "out", **{**SETTINGS, **changes})


def ids(folder: Path, role: str) -> list[str]:
    return [utterance.id for utterance in manifest.read(folder / "out" / f"{role}.jsonl")]


def audited(folder: Path) -> dict[str, Any]:
    facts: dict[str, Any] = files.read_json(folder / "out" / "audit.json")
    return facts


def row(identity: str, text: str, *, speaker: str | None = None, sha: str = "", **keys: Any) -> Row:
    utterance = Utterance(
        id=identity,
        audio_filepath=Path(keys.pop("file", f"/{identity}.wav")),
        text=text,
        speaker=speaker,
        **keys,
    )
    return Row(
        utterance=utterance,
        where=f"m.jsonl:{identity}",
        text_key=overlap.text_key(text),
        audio_sha256=sha or identity,
    )


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with Ledger(tmp_path) as kept:
        yield kept


def keep(ledger: Ledger, rows: Sequence[Row]) -> Places:
    return np.array([ledger.append(held) for held in rows], dtype=np.int64)


def audit_of(ledger: Ledger, rows: dict[str, list[Row]]) -> tuple[dict[str, Any], list[audit.Leak]]:
    return audit.audit(ledger, {role: keep(ledger, held) for role, held in rows.items()})


def sides_of(ledger: Ledger, rows: Sequence[Row], **options: Any) -> dict[str, list[Row]]:
    division = split.divide(ledger, keep(ledger, rows), **{"seed": 1, **options})
    return {side: list(ledger.each(places)) for side, places in division.sides.items()}


def test_a_ledger_gives_rows_as_they_were_in_any_order(ledger: Ledger) -> None:
    rows = [row(f"r{n}", "x" * 9000 * n, duration=1.5, extra={"mood": [n]}) for n in range(5)]
    places = keep(ledger, rows[:3])
    assert [ledger[2], ledger[0]] == [rows[2], rows[0]]
    places = np.concatenate([places, keep(ledger, rows[3:])])
    assert list(ledger.each(places[::-1])) == rows[::-1]
    backwards = list(zip(rows, rows[::-1], strict=True))
    assert list(zip(ledger.each(places), ledger.each(places[::-1]), strict=True)) == backwards
    assert ledger.column("words", places).tolist() == [0, 1, 1, 1, 1]


def test_good_rows_of_every_kind_pass_with_their_duration(tmp_path: Path) -> None:
    rows = [
        {"audio_filepath": sound(tmp_path / "stereo.wav", seed=1, channels=2), "text": "one"},
        {"audio_filepath": sound(tmp_path / "8k.wav", seed=2, rate=8000), "text": "two"},
        {"audio_filepath": sound(tmp_path / "96k.wav", seed=3, rate=96000), "text": "three"},
        {"audio_filepath": sound(tmp_path / "Zoë 日本.flac", seed=4), "text": "naïve 日本"},
        {"audio_filepath": sound(tmp_path / "quiet.flac", seed=5), "text": "", "mood": "calm"},
        {"audio_filepath": "8k.wav", "offset": 0.1, "duration": 0.3, "text": "four"},
        {"audio_filepath": sound(tmp_path / "up.wav", seed=6), "duration": 0.54, "text": "five"},
        {"audio_filepath": sound(tmp_path / "down.wav", seed=7), "duration": 0.46, "text": "six"},
    ]
    counts = run(tmp_path, {"test": [save(tmp_path / "m.jsonl", rows)]})
    assert (counts["in"], counts["out"], counts["rejected"]) == (8, 8, {})
    written = manifest.read(tmp_path / "out" / "test.jsonl")
    assert [utterance.duration for utterance in written] == [0.5, 0.5, 0.5, 0.5, 0.5, 0.3, 0.5, 0.5]
    assert written[3].audio_filepath == tmp_path / "Zoë 日本.flac"
    assert written[3].text == "naïve 日本"
    assert (written[4].text, written[4].extra["mood"], written[4].split) == ("", "calm", "test")
    assert len(written[4].extra[manifest.SOUND]) == 32
    assert counts["roles"]["test"]["rows"] == 8


def test_a_smaller_share_of_train_is_a_part_of_a_larger_one_and_all_else_stays(tmp_path: Path) -> None:
    manifests = {
        "train": [save(tmp_path / "train.jsonl", clips(tmp_path, "train", 40, seed=1))],
        "test": [save(tmp_path / "test.jsonl", clips(tmp_path, "test", 4, seed=100))],
    }
    held = {}
    for share in (1.0, 0.5, 0.25):
        counts = run(tmp_path, manifests, train_share=share)
        held[share] = {role: ids(tmp_path, role) for role in ("train", "dev", "test")}
        assert counts["not_learned"] == 36 - len(held[share]["train"])
    assert [len(sides["train"]) for sides in held.values()] == [36, 18, 9]
    assert set(held[0.25]["train"]) < set(held[0.5]["train"]) < set(held[1.0]["train"])
    assert held[0.5]["train"] == [one for one in held[1.0]["train"] if one in held[0.5]["train"]]  # in their order
    assert held[0.25]["dev"] == held[1.0]["dev"]
    assert held[0.25]["test"] == held[1.0]["test"]


def test_each_bad_row_is_named_counted_and_kept_in_rejects(tmp_path: Path) -> None:
    good = clips(tmp_path, "good", 12, seed=100)
    (tmp_path / "zero.wav").write_bytes(b"")
    (tmp_path / "text.wav").write_text("not sound\n" * 50)
    sound(tmp_path / "whole.wav", seed=1)
    (tmp_path / "cut.wav").write_bytes((tmp_path / "whole.wav").read_bytes()[:9000])
    soundfile.write(tmp_path / "nan.wav", np.full(8000, np.nan), 16000, subtype="FLOAT")
    soundfile.write(tmp_path / "long.wav", np.zeros(31 * 8000), 8000)
    bad: list[tuple[str, dict[str, Any] | str]] = [
        ("missing file", {"audio_filepath": "gone.wav", "text": "x"}),
        ("empty audio", {"audio_filepath": "zero.wav", "text": "x"}),
        ("not audio", {"audio_filepath": "text.wav", "text": "x"}),
        ("truncated", {"audio_filepath": "cut.wav", "text": "x"}),
        ("NaN samples", {"audio_filepath": "nan.wav", "text": "x"}),
        ("segment past end", {"audio_filepath": "whole.wav", "offset": 0.3, "duration": 0.6, "text": "x"}),
        ("too long", {"audio_filepath": "long.wav", "text": "x"}),
        ("missing text", {"audio_filepath": "whole.wav"}),
        ("missing key", {"text": "no audio"}),
        ("broken line", '{"audio_filepath": "whole.wav", "text": "x'),
        ("duplicate id", {**good[0], "text": "again"}),
    ]
    path = save(tmp_path / "m.jsonl", [*good, *(line for _, line in bad)])
    counts = run(tmp_path, {"test": [path]})
    assert counts["rejected"] == {reason: 1 for reason, _ in bad}
    assert (counts["in"], counts["out"]) == (23, 12)
    rejects = {reject["reason"]: reject for reject in files.read_jsonl(tmp_path / "out" / "rejects.jsonl")}
    for line, (reason, _) in enumerate(bad, start=13):
        assert rejects[reason]["where"] == f"{path}:{line}"
        assert rejects[reason]["detail"].startswith(f"{path}:{line}: ")
    assert rejects["missing text"]["row"]["audio_filepath"] == str(tmp_path / "whole.wav")
    assert rejects["broken line"]["row"] == {"line": bad[9][1]}


def test_originals_are_not_touched(tmp_path: Path) -> None:
    path = save(tmp_path / "m.jsonl", clips(tmp_path, "a", 3, seed=1))
    before = {file: file.read_bytes() for file in tmp_path.iterdir()}
    run(tmp_path, {"test": [path]})
    assert {file: file.read_bytes() for file in tmp_path.iterdir() if file.is_file()} == before


def test_too_many_rejects_stop_the_run(tmp_path: Path) -> None:
    rows = [*clips(tmp_path, "a", 3, seed=1), {"audio_filepath": "gone.wav", "text": "x"}]
    roles = {"test": [save(tmp_path / "m.jsonl", rows)]}
    sentence = r"1 of 4 rows were rejected \(missing file 1; all in .*rejects\.jsonl\), more than .* = 0\.2 allows"
    with pytest.raises(InputError, match=sentence):
        run(tmp_path, roles, max_rejected_share=0.2)
    assert len(files.read_jsonl(tmp_path / "out" / "rejects.jsonl")) == 1
    assert not (tmp_path / "out" / "test.jsonl").exists()
    assert run(tmp_path, roles, max_rejected_share=0.25)["out"] == 3


def test_a_role_without_usable_rows_stops_the_run(tmp_path: Path) -> None:
    train = save(tmp_path / "train.jsonl", clips(tmp_path, "a", 8, seed=1))
    bad = save(tmp_path / "test.jsonl", [{"audio_filepath": "gone.wav", "text": "x"}])
    with pytest.raises(InputError, match=r"data\.test: no usable row is left in .*test\.jsonl: 1 of 9 .*missing file"):
        run(tmp_path, {"train": [train], "test": [bad]})
    with pytest.raises(InputError, match=r"data\.dev: no usable row is left in .*: no row is meant for it"):
        run(tmp_path, {"train": [train], "dev": [save(tmp_path / "empty.jsonl", [])]})
    with pytest.raises(InputError, match=r"set data\.train and data\.test"):
        run(tmp_path, {"train": []})


def test_an_unwritable_folder_is_one_sentence(tmp_path: Path) -> None:
    path = save(tmp_path / "m.jsonl", clips(tmp_path, "a", 2, seed=1))
    (tmp_path / "out").write_text("a file where the folder should be")
    with pytest.raises(InputError, match="cannot be written"):
        run(tmp_path, {"test": [path]})


def test_one_manifest_named_for_several_roles_is_shared_out_by_split(tmp_path: Path) -> None:
    rows = [
        *clips(tmp_path, "a", 8, seed=1, split="train"),
        *clips(tmp_path, "b", 2, seed=20, split="validation"),
        *clips(tmp_path, "c", 3, seed=30, split="Test"),
        *clips(tmp_path, "d", 2, seed=40, split="unused"),
        *clips(tmp_path, "e", 1, seed=50),
    ]
    path = save(tmp_path / "m.jsonl", rows)
    counts = run(tmp_path, {"train": [path], "dev": [path], "test": [path]})
    assert {role: facts["rows"] for role, facts in counts["roles"].items()} == {
        "train": 8,
        "dev": 2,
        "test": 3,
    }
    assert (counts["rejected"], counts["other_split"], counts["in"]) == ({"missing split": 1}, 2, 14)
    assert ids(tmp_path, "dev") == ["b0", "b1"]
    assert "2 rows say split 'unused', and no setting of [data] takes it" in audited(tmp_path)["notes"][0]
    run(tmp_path, {"train": [path], "test": [path]})
    assert "2 rows say split 'dev', and data.dev is not named" in audited(tmp_path)["notes"][0]


def test_a_speaker_of_test_is_found_wherever_the_split_put_it(tmp_path: Path) -> None:
    """Dev is cut from train, and would hide the speaker whom it drew."""
    voices = "abcdefghij"
    train = [
        {**each, "speaker": name}
        for name in voices
        for each in clips(tmp_path, name, 1, seed=ord(name), text=f"{name} says")
    ]
    sides = set()
    for speaker in voices:
        test = [{**clips(tmp_path, "t", 1, seed=500)[0], "speaker": speaker}]
        roles = {"train": [save(tmp_path / "m.jsonl", train)], "test": [save(tmp_path / "t.jsonl", test)]}
        with pytest.raises(InputError, match="speaker leak: 1 of 1 test rows have a speaker of") as caught:
            run(tmp_path, roles)
        sides.add(str(caught.value).split(" speaker of ")[1].split()[0])
    assert sides == {"train", "dev"}


def test_languages_are_counted_by_code(tmp_path: Path) -> None:
    rows = [*clips(tmp_path, "a", 2, seed=1, lang="German"), *clips(tmp_path, "b", 1, seed=9, lang="en-GB")]
    assert run(tmp_path, {"test": [save(tmp_path / "m.jsonl", rows)]})["languages"] == {"de": 2, "en": 1}


def test_a_misspelt_speaker_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    rows = [
        {"speakr" if key == "speaker" else key: value for key, value in each.items()}
        for each in clips(tmp_path, "a", 4, seed=1)
    ]
    run(tmp_path, {"test": [save(tmp_path / "m.jsonl", rows)]})
    assert "'speakr' is not known, is 'speaker' meant?" in audited(tmp_path)["notes"][0]
    assert "no row of test names its speaker" in caplog.text


def test_a_manifest_named_again_by_a_link_is_the_same(tmp_path: Path) -> None:
    path = save(tmp_path / "m.jsonl", clips(tmp_path, "a", 4, seed=1))
    (tmp_path / "link.jsonl").symlink_to(path)
    assert run(tmp_path, {"test": [path, tmp_path / "link.jsonl"]})["roles"]["test"]["rows"] == 4
    shared = clips(tmp_path, "b", 3, seed=10, split="train") + clips(tmp_path, "c", 2, seed=20, split="dev")
    save(path, shared)
    counts = run(tmp_path, {"train": [path], "dev": [tmp_path / "link.jsonl"]})
    assert {role: facts["rows"] for role, facts in counts["roles"].items()} == {"train": 3, "dev": 2}


def test_named_for_one_role_a_manifest_gives_it_every_row(tmp_path: Path) -> None:
    path = save(tmp_path / "m.jsonl", clips(tmp_path, "a", 4, seed=1, split="train"))
    assert run(tmp_path, {"test": [path]})["roles"]["test"]["rows"] == 4
    assert "4 rows named for test say another split" in audited(tmp_path)["notes"][0]


@pytest.mark.parametrize("prefix", ["", "general_"])
def test_split_values_in_a_general_manifest_are_obeyed(tmp_path: Path, prefix: str) -> None:
    rows = [
        line
        for number, side in enumerate(("train", "dev", "test"))
        for line in clips(tmp_path, side, number + 1, seed=10 * number, split=prefix + side)
    ]
    counts = run(tmp_path, {"general": [save(tmp_path / "g.jsonl", rows)]})
    assert {role: facts["rows"] for role, facts in counts["roles"].items()} == {
        "general_train": 1,
        "general_dev": 2,
        "general_test": 3,
    }


def test_a_general_manifest_with_some_split_values_rejects_rows_without(tmp_path: Path) -> None:
    rows = [*clips(tmp_path, "a", 3, seed=1, split="general_test"), *clips(tmp_path, "b", 1, seed=20)]
    counts = run(tmp_path, {"general": [save(tmp_path / "g.jsonl", rows)]})
    assert (counts["out"], counts["rejected"]) == (3, {"missing split": 1})


def test_ids_are_made_unique_across_manifests_and_parents_follow(tmp_path: Path) -> None:
    for seed, name in enumerate(("one", "two")):
        (tmp_path / name).mkdir()
        rows = clips(tmp_path / name, "a", 2, seed=10 * seed)
        rows[1]["parent"] = "a0"
        save(tmp_path / name / f"{name}.jsonl", rows)
    held = list(Manifests({"train": [tmp_path / "one/one.jsonl"], "test": [tmp_path / "two/two.jsonl"]}))
    assert [(row.role, row.utterance.id) for row in held[:2]] == [("train", "a0"), ("train", "a1")]
    second = [row.utterance for row in held[2:]]
    assert [utterance.id for utterance in second] == ["two:a0", "two:a1"]
    assert second[1].parent == "two:a0"
    assert second[0].extra["source_id"] == "a0"


def test_general_is_split_by_speaker_into_three_that_share_nothing(tmp_path: Path) -> None:
    rows = clips(tmp_path, "g", 24, seed=1)
    for number, line in enumerate(rows):
        line["speaker"] = f"s{number % 8}"
    path = save(tmp_path / "g.jsonl", rows)
    counts = run(tmp_path, {"general": [path]})
    assert {role: facts["rows"] for role, facts in counts["roles"].items()} == {
        "general_train": 12,
        "general_dev": 6,
        "general_test": 6,
    }
    sides = {role: manifest.read(tmp_path / "out" / f"{role}.jsonl") for role in counts["roles"]}
    speakers = [{utterance.speaker for utterance in side} for side in sides.values()]
    assert sum(map(len, speakers)) == 8
    assert audited(tmp_path)["split"]["general"]["by"] == "speaker"


def test_a_split_depends_on_seed_labels_and_texts_only(ledger: Ledger) -> None:
    rows = [row(f"r{n}", f"{NUMBERS[n % 12]} apples {n}", speaker=f"s{n % 10}") for n in range(40)]
    shares = {"test": 0.2, "dev": 0.2, "train": 0.6}

    def sides(given: list[Row], seed: int) -> dict[str, set[str]]:
        divided = sides_of(ledger, given, shares=shares, seed=seed)
        return {side: {held.utterance.id for held in group} for side, group in divided.items()}

    first = sides(rows, 1)
    assert sides(rows[::-1], 1) == first
    assert sides(rows, 2) != first
    assert {side: len(group) for side, group in first.items()} == {"test": 8, "dev": 8, "train": 24}


def test_with_two_speakers_the_text_decides(ledger: Ledger) -> None:
    rows = [row(f"r{n}", f"number {n // 2}", speaker=f"s{n % 2}") for n in range(40)]
    divided = split.divide(ledger, keep(ledger, rows), shares={"dev": 0.25, "train": 0.75}, seed=1)
    assert divided.by == "text"
    dev, train = ({held.text_key for held in ledger.each(side)} for side in divided.sides.values())
    assert (len(dev), len(train), dev & train) == (5, 15, set())


def test_speakers_who_read_the_same_sentences_are_split_both_ways(ledger: Ledger) -> None:
    rows = [row(f"s{s}t{t}", f"sentence {t}", speaker=f"s{s}") for s in range(4) for t in range(40)]
    places, shares = keep(ledger, rows), {"dev": 0.25, "train": 0.75}
    divided = split.divide(ledger, places, shares=shares, seed=1)
    dev, train = (list(ledger.each(side)) for side in divided.sides.values())
    assert {held.utterance.speaker for held in dev} & {held.utterance.speaker for held in train} == set()
    assert {held.text_key for held in dev} & {held.text_key for held in train} == set()
    assert len({held.text_key for held in [*dev, *train]}) == 40  # nothing is lost but the crossing rows
    assert len(dev) + len(train) + len(divided.dropped) == 160
    allowed = split.divide(ledger, places, shares=shares, seed=1, apart=())
    assert (len(allowed.sides["dev"]), len(allowed.sides["train"])) == (40, 120)


def test_copies_and_near_copies_stay_on_one_side(ledger: Ledger) -> None:
    long = "the quick brown fox number {} jumps over {} lazy dog near the river"
    rows = [row(f"r{n}", long.format(NUMBERS[n] * 3, "a")) for n in range(12)]
    rows += [row(f"n{n}", long.format(NUMBERS[n] * 3, "the")) for n in range(12)]
    rows += [row(f"c{n}", f"copy {n}", sha=f"r{n}") for n in range(12)]
    sides = sides_of(ledger, rows, shares={"dev": 0.25, "train": 0.75})
    dev = {held.utterance.id for held in sides["dev"]}
    assert 3 <= len(dev) <= 12
    assert {identity[1:] for identity in dev} & {held.utterance.id[1:] for held in sides["train"]} == set()


def test_too_few_groups_cannot_be_split(ledger: Ledger) -> None:
    rows = [row("a", "yes"), row("b", "yes")]
    with pytest.raises(InputError, match="cannot be split into dev, train"):
        sides_of(ledger, rows, shares={"dev": 0.1, "train": 0.9})
    with pytest.raises(InputError, match=r'data\.split_by must be one of text, speaker, .* got "shoe"'):
        sides_of(ledger, rows, shares={"dev": 0.1, "train": 0.9}, split_by="shoe")


def test_without_dev_a_tenth_of_train_becomes_dev(tmp_path: Path) -> None:
    roles = {
        "train": [save(tmp_path / "train.jsonl", clips(tmp_path, "a", 20, seed=1))],
        "test": [save(tmp_path / "test.jsonl", clips(tmp_path, "b", 3, seed=50))],
    }
    counts = run(tmp_path, roles)
    assert {role: facts["rows"] for role, facts in counts["roles"].items()} == {
        "train": 18,
        "dev": 2,
        "test": 3,
    }
    first = {file.name: file.read_bytes() for file in (tmp_path / "out").iterdir()}
    run(tmp_path, roles)
    assert {file.name: file.read_bytes() for file in (tmp_path / "out").iterdir()} == first


def test_an_id_that_a_segment_has_too_is_rejected_however_it_came_about(tmp_path: Path) -> None:
    """One manifest's ids are renamed, so that what its segments are called is known only then."""
    told = [{"start": 0.0, "end": 20.0, "text": "one two"}, {"start": 20.0, "end": 40.0, "text": "three"}]
    for seed, name in enumerate(("one", "two")):
        sound(tmp_path / name / "talk.wav", seed=seed, duration_s=41.0)
        talk = {"id": "x", "audio_filepath": "talk.wav", "text": "", "segments": told}
        plain = clips(tmp_path / name, name, 2, seed=10 * seed)
        plain[0]["id"], plain[1]["id"] = "x", "x@0.00"
        save(tmp_path / name / f"{name}.jsonl", [talk, plain[1]] if name == "two" else plain)
    paths = [tmp_path / "one/one.jsonl", tmp_path / "two/two.jsonl"]
    counts = run(tmp_path, {"train": paths, "dev": [save(tmp_path / "dev.jsonl", clips(tmp_path, "d", 2, seed=40))]})
    assert ids(tmp_path, "train") == ["x", "x@0.00", "two:x@0.00", "two:x@20.00"]
    assert (counts["in"], counts["rejected"]) == (7, {"duplicate id": 1})
    [reject] = files.read_jsonl(tmp_path / "out" / "rejects.jsonl")
    assert reject["detail"] == f'{paths[1]}:2: id "two:x@0.00" was used in {paths[1]}:1'


def test_ids_that_come_more_than_twice_are_told_against_the_first(tmp_path: Path) -> None:
    rows = clips(tmp_path, "a", 6, seed=1)
    for number, identity in enumerate(("x", "y", "x", "z", "y", "x")):
        rows[number]["id"] = identity
    path = save(tmp_path / "m.jsonl", rows)
    assert run(tmp_path, {"test": [path]})["rejected"] == {"duplicate id": 3}
    assert ids(tmp_path, "test") == ["x", "y", "z"]
    told = [reject["detail"] for reject in files.read_jsonl(tmp_path / "out" / "rejects.jsonl")]
    pairs = [(3, "x", 1), (5, "y", 2), (6, "x", 1)]
    assert told == [f'{path}:{line}: id "{name}" was used in {path}:{first}' for line, name, first in pairs]


def test_a_manifest_that_is_written_to_meanwhile_is_an_error(tmp_path: Path) -> None:
    path = save(tmp_path / "m.jsonl", clips(tmp_path, "a", 3, seed=1))
    manifests = Manifests({"test": [path]})
    path.write_text(path.read_text() + path.read_text().splitlines()[0] + "\n")
    with pytest.raises(InputError, match=r"m\.jsonl: was changed while it was read"):
        list(manifests)


def test_a_pipe_is_no_manifest_to_ingest(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "m.jsonl")
    with pytest.raises(InputError, match=r"m\.jsonl: is a pipe"):
        run(tmp_path, {"test": [tmp_path / "m.jsonl"]})


LONG = "please write down that the patient takes {} small white tablet every single morning"


def leaky(kind: str, folder: Path) -> dict[str, list[Path]]:
    """A train and a test manifest that share one thing: the kind of leak."""
    train = clips(folder, "a", 3, seed=1)
    dev = clips(folder, "d", 2, seed=20)
    test = clips(folder, "b", 3, seed=50)
    if kind == "speaker":
        test[1]["speaker"] = train[2]["speaker"]
    if kind == "text":
        train[2]["text"], test[1]["text"] = "Mix 5 mg/dL, now!", "mix 5 mg dl NOW"
    if kind == "near_text":
        train[2]["text"], test[1]["text"] = LONG.format("a"), LONG.format("one")
    if kind == "audio":
        samples, rate = soundfile.read(folder / train[2]["audio_filepath"])
        samples = np.round(samples * 32768) / 32768  # as 16 bits hold it
        soundfile.write(folder / train[2]["audio_filepath"], samples, rate, subtype="FLOAT")
        test[1]["audio_filepath"] = "copy.flac"
        soundfile.write(folder / "copy.flac", samples, rate, subtype="PCM_16")
    if kind == "segment":
        sound(folder / "talk.wav", seed=9, duration_s=3.0)
        train[2] |= {"audio_filepath": "talk.wav", "offset": 0.0, "duration": 1.5}
        (folder / "link.wav").symlink_to("talk.wav")
        test[1] |= {"audio_filepath": "link.wav", "offset": 1.0, "duration": 1.5}
    return {
        role: [save(folder / f"{role}.jsonl", rows)] for role, rows in (("train", train), ("dev", dev), ("test", test))
    }


@pytest.mark.parametrize("kind", overlap.KINDS)
def test_each_kind_of_leak_stops_the_run_and_can_be_allowed_by_name(tmp_path: Path, kind: str) -> None:
    roles = leaky(kind, tmp_path)
    others = [other for other in overlap.KINDS if other != kind]
    with pytest.raises(InputError) as caught:
        run(tmp_path, roles, allow_leaks=others)
    message = str(caught.value)
    assert message.startswith(f"{kind} leak: 1 of 3 test rows ")
    assert '"a2" and "b1"' in message
    assert f'data.allow_leaks=["{kind}"]' in message
    assert not (tmp_path / "out" / "test.jsonl").exists()
    [leak] = audited(tmp_path)["leaks"]
    assert (leak["kind"], leak["rows"], leak["allowed"], leak["pairs"]) == (kind, 1, False, [["a2", "b1"]])
    assert run(tmp_path, roles, allow_leaks=[kind])["roles"]["test"]["rows"] == 3
    assert audited(tmp_path)["leaks"][0]["allowed"] is True


def test_all_kinds_at_once_are_named_together(tmp_path: Path) -> None:
    rows = clips(tmp_path, "a", 3, seed=1)
    roles = {role: [save(tmp_path / f"{role}.jsonl", rows)] for role in ("train", "dev", "test")}
    with pytest.raises(InputError, match=r'data\.allow_leaks=\["speaker","text","audio"\]'):
        run(tmp_path, roles)
    with pytest.raises(InputError, match=r"data\.allow_leaks must name kinds of leak .* got 'all'"):
        run(tmp_path, roles, allow_leaks=["all"])


def test_neighbouring_segments_are_no_leak(ledger: Ledger) -> None:
    left = row("a", "one", file="/talk.wav", offset=0.0, duration=2.0)
    touching = row("b", "two", file="/talk.wav", offset=1.95, duration=2.0)
    inside = row("c", "three", file="/talk.wav", offset=0.5, duration=0.5)
    places = keep(ledger, [left, touching, inside])
    assert list(overlap.segment_pairs(ledger, places[:1], places[1:2])) == []
    assert list(overlap.segment_pairs(ledger, places[:1], places[1:])) == [(0, 1)]


def test_silence_is_not_a_shared_text(ledger: Ledger) -> None:
    rows = {"train": [row("a", "")], "test": [row("b", "")]}
    assert audit_of(ledger, rows)[1] == []


def test_replay_may_share_speakers_with_test_but_not_texts_and_not_with_general_test(ledger: Ledger) -> None:
    rows = {
        "test": [row("t", "take two", speaker="s")],
        "general_train": [row("g", "good morning", speaker="s"), row("h", "take two", speaker="q")],
        "general_test": [row("u", "good evening", speaker="s")],
    }
    found = {(leak.kind, leak.learned, leak.held_out) for leak in audit_of(ledger, rows)[1]}
    assert found == {("text", "general_train", "test"), ("speaker", "general_train", "general_test")}


def test_one_voice_split_by_text_is_told_but_does_not_stop(tmp_path: Path) -> None:
    rows = clips(tmp_path, "g", 12, seed=1, speaker="only")
    run(tmp_path, {"general": [save(tmp_path / "g.jsonl", rows)]})
    leaks = {(leak["kind"], leak["held_out"]): leak for leak in audited(tmp_path)["leaks"]}
    assert set(leaks) == {("speaker", "general_test")}
    assert leaks["speaker", "general_test"]["excuse"] == "one manifest was split by text"


@pytest.mark.parametrize(
    ("one", "other", "near"),
    [
        (LONG.format("a"), LONG.format("one"), True),
        (LONG.format("a"), LONG.format("a") + " now", True),
        (
            "patient takes lisinopril ten milligrams daily",
            "patient takes metformin ten milligrams daily",
            False,
        ),
        (LONG.format("a"), "the weather was fine all week and nobody stayed at home for long", False),
        ("本日の会議は午後三時から第二会議室で行われます", "本日の会議は午後三時から第二会議室で行われました", True),
        ("本日の会議は午後三時から第二会議室で行われます", "明日の試験は午前九時から大講堂で始まりますので", False),
    ],
)
def test_near_texts_differ_in_little_words_only(one: str, other: str, near: bool) -> None:
    one, other = overlap.text_key(one), overlap.text_key(other)
    assert overlap.is_near(one, other) is near
    assert list(overlap.near_pairs([one], [other])) == ([(one, other)] if near else [])


def test_texts_are_told_apart_by_vowel_marks_and_the_signs_of_codes() -> None:
    for one, other in [("वह का है", "वह की है"), ("ดี", "ดู"), ("C++ code", "C# code")]:
        assert overlap.text_key(one) != overlap.text_key(other)
    assert overlap.text_key("東京に、行きます。") == overlap.text_key("東京に 行きます")
    assert overlap.text_key("Well, (cough) it's C++!") == overlap.text_key("well it s c++")


def test_near_texts_are_found_among_many() -> None:
    draw = np.random.default_rng(1)
    words = [f"{a}{b}" for a in ("mor", "tal", "ven", "sil", "bru") for b in ("ning", "ker", "dow", "post")]
    pool = [" ".join(draw.choice(words, 12)) for _ in range(300)]
    queries = [f"{text} a" for text in pool[:100]]
    found = set(overlap.near_pairs(queries, pool))
    assert len({query for query, _ in found}) >= 99


def test_duplicates_inside_a_role_are_counted(ledger: Ledger) -> None:
    rows = {"test": [row("a", "yes"), row("b", "Yes!"), row("c", "no", sha="a"), row("d", "")]}
    facts, leaks = audit_of(ledger, rows)
    assert leaks == []
    assert facts["roles"]["test"]["duplicate_texts"] == 1
    assert facts["roles"]["test"]["duplicate_audio"] == 1
    assert facts["roles"]["test"]["silent_rows"] == 1


@pytest.mark.parametrize(
    ("text", "duration_s", "level", "kinds"),
    [
        ("one two three", 1.0, 0.1, []),
        ("one two three four five six seven eight", 1.0, 0.1, ["fast text"]),
        ("one", 6.0, 0.1, ["slow text"]),
        ("今日は天気がいいので散歩に行きましょうと彼は言った", 6.0, 0.1, []),
        ("one", 1.0, 0.0, ["silent audio"]),
        ("", 1.0, 0.0, []),
    ],
)
def test_odd_rows_are_warned_of_and_kept(
    tmp_path: Path, ledger: Ledger, text: str, duration_s: float, level: float, kinds: list[str]
) -> None:
    noise = np.random.default_rng(1).normal(0, 1, round(16000 * duration_s)) * level
    soundfile.write(tmp_path / "a.wav", noise, 16000)
    utterance = Utterance(id="a", audio_filepath=tmp_path / "a.wav", text=text)
    checked = checks.check(Row(utterance=utterance, where="m.jsonl:1"))
    assert isinstance(checked, Row)
    assert [kind for kind, _ in checked.warnings] == kinds
    facts, _ = audit_of(ledger, {"test": [checked]})
    assert list(facts["warnings"]) == kinds


def test_the_order_of_results_does_not_depend_on_workers(tmp_path: Path) -> None:
    rows = [
        Row(utterance=utterance, where=str(number))
        for number, utterance in enumerate(manifest.read(save(tmp_path / "m.jsonl", clips(tmp_path, "a", 40, seed=1))))
    ]
    gone = dataclasses.replace(rows[7].utterance, audio_filepath=tmp_path / "gone.wav")
    rows[7] = dataclasses.replace(rows[7], utterance=gone)
    one = list(checks.check_all(rows, workers=1))
    assert list(checks.check_all(rows, workers=3)) == one
    assert [held.where for held in one] == [str(number) for number in range(40)]
    assert [(held.reason, held.where) for held in one if isinstance(held, Reject)] == [("missing file", "7")]
