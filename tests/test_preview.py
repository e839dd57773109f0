"""The preview page: what is chosen, what is told, and that it stands alone."""

import base64
import dataclasses
import io
import re
from pathlib import Path
from typing import Any

import browser
import numpy as np
import pytest
import soundfile

from speechft.audio import SAMPLE_RATE
from speechft.augment import preview
from speechft.manifest import Utterance


def row(folder: Path, identity: str, *steps: dict[str, Any], duration_s: float = 1.0, **more: Any) -> Utterance:
    path = folder / f"{identity}.wav"
    time_s = np.arange(round(duration_s * SAMPLE_RATE)) / SAMPLE_RATE
    soundfile.write(path, 0.3 * np.sin(2 * np.pi * 1000 * time_s), SAMPLE_RATE)
    return Utterance(
        id=identity, audio_filepath=path, text="<b>5 mg</b>", duration=duration_s, transform=list(steps), **more
    )


def test_every_transform_is_shown_before_one_is_shown_twice(tmp_path: Path) -> None:
    plain = [row(tmp_path, f"p{i}#view1", {"name": "gain", "gain_db": i}, parent=f"p{i}") for i in range(20)]
    rare = [
        row(tmp_path, "r1#view1", {"name": "noise", "kind": "hum"}, parent="r1"),
        row(tmp_path, "r2#view1", {"name": "codec", "codec": "opus"}, parent="r2"),
        row(tmp_path, "p0#view2", {"name": "clip"}, parent="p0"),
    ]
    chosen = preview.choose([*plain, *rare], 5)
    assert {"r1#view1", "r2#view1"} <= {chosen.id for chosen in chosen}
    assert chosen == preview.choose([*reversed(plain), *reversed(rare)], 5)
    assert len({row.parent for row in chosen}) == 5


def test_one_row_of_each_condition_and_no_long_ones(tmp_path: Path) -> None:
    rows = [
        row(tmp_path, f"t{i}#{name}", parent=f"t{i}", condition=name, duration_s=seconds)
        for name in ("hall", "phone")
        for i, seconds in enumerate((0.1, 13.0, 0.2))
    ]
    chosen = preview.choose(rows, 12, by_condition=True)
    assert sorted(row.condition or "" for row in chosen) == ["hall", "phone"]
    assert all((row.duration or 0) < 1 for row in chosen)


def test_numbers_are_told_with_their_units() -> None:
    told = preview.tell({"name": "room", "room": 3, "rt60_s": 0.30584, "size_m": [5.0, 6.25], "file": None})
    assert told == "3, RT60 0.306 s, size 5 m, 6.25 m"
    assert preview.tell({"name": "gain", "gain_db": -4.0}) == "-4 dB"
    assert preview.tell({"name": "codec", "codec": "mp3", "kbps": 24.0}) == "mp3, rate 24 kbit/s"
    assert preview.tell({"name": "telephone", "mu_law": True}) == "mu law"
    assert preview.tell({"name": "pitch", "semitones": 2}) == "2 semitones"
    assert preview.tell({"name": "noise", "kind": None, "skipped": "babble: nobody"}) == "left out: babble: nobody"


def test_summary_counts_views_and_what_was_left_out(tmp_path: Path) -> None:
    views = [
        row(tmp_path, "a", {"name": "gain", "gain_db": 1.0}),
        row(tmp_path, "b", {"name": "gain", "gain_db": 3.0}),
        row(tmp_path, "c", {"name": "gain", "gain_db": 8.0}, {"name": "noise", "skipped": "why"}),
        row(tmp_path, "d"),
    ]
    told = preview.Summary()
    assert list(told.counted(views)) == views
    assert told.views == 4
    gain, noise = told.rows()
    assert gain == {"name": "gain", "share": "75 %", "skipped": "", "spans": "gain 1 dB to 8 dB (median 3 dB)"}
    assert (noise["share"], noise["skipped"]) == ("0 %", "1")


def test_the_spectrogram_shows_a_tone_where_it_is() -> None:
    import matplotlib.image

    tone = np.sin(2 * np.pi * 2000 * np.arange(SAMPLE_RATE) / SAMPLE_RATE).astype(np.float32)
    picture = matplotlib.image.imread(io.BytesIO(preview.spectrogram(tone)))
    assert picture.shape[0] == preview.BANDS
    brightest = picture[:, :, :3].sum(axis=(1, 2)).argmax()
    assert preview.BANDS - brightest == pytest.approx(2000 / 62.5, abs=1)  # rows go down, frequencies up


@pytest.mark.parametrize("samples", [np.zeros(1, np.float32), np.zeros(1600, np.float32), np.ones(3, np.float32)])
def test_silence_and_the_shortest_clips_can_be_drawn(samples: np.ndarray) -> None:
    assert preview.spectrogram(samples).startswith(b"\x89PNG")
    assert "nan" not in preview.waveform(samples)


def test_the_page_stands_alone_and_plays_what_was_kept(tmp_path: Path) -> None:
    clean = row(tmp_path, "a", speaker="ann")
    view = row(tmp_path, "a#view1", {"name": "gain", "gain_db": 2.0}, parent="a", duration_s=0.5)
    fixed = row(tmp_path, "a#phone", {"name": "telephone"}, parent="a", condition="phone")
    preview.write(tmp_path / "preview.html", clean=[clean], views=[view], conditions=[fixed])
    page = (tmp_path / "preview.html").read_text(encoding="utf-8")
    assert not re.search(r"(src|href)=\"(?!data:)", page)
    assert "&lt;b&gt;5 mg" in page
    assert "test condition phone" in page
    assert re.search(r"gain.{0,60}\b2(\.0)?\b", page, re.DOTALL)
    assert page.count("data:image/png;base64,") == 4  # a spectrogram of each sound
    assert page.count('<path d="M') == 4  # and its waveform
    sounds = [
        soundfile.read(io.BytesIO(base64.b64decode(found)), dtype="int16")[0]
        for found in re.findall(r"data:audio/flac;base64,([^\"]+)", page)
    ]
    assert len(sounds) == 4
    assert view.audio_filepath is not None
    np.testing.assert_array_equal(sounds[1], soundfile.read(view.audio_filepath, dtype="int16")[0])
    assert "width: 50.0%" in page
    preview.write(tmp_path / "empty.html", clean=[clean], views=[], conditions=[])
    assert dataclasses.replace(clean) == clean


@pytest.mark.browser
@pytest.mark.skipif(browser.CHROMIUM is None, reason="no Chromium on this machine")
def test_the_page_in_a_browser(tmp_path: Path) -> None:
    """A dozen rows with both players and pictures, every sound can be played, and nothing overflows a phone."""
    clean = [row(tmp_path, f"a{i}", speaker="ann") for i in range(20)]
    views = [row(tmp_path, f"a{i}#view1", {"name": "gain", "gain_db": i}, parent=f"a{i}") for i in range(20)]
    preview.write(tmp_path / "preview.html", clean=clean, views=views, conditions=[])
    script = """
    const players = [...document.querySelectorAll("audio")];
    const drawn = [...document.querySelectorAll(".picture img")].filter((image) => image.naturalWidth > 0).length;
    const overflow = document.documentElement.scrollWidth - document.documentElement.clientWidth;
    let heard = 0;
    const say = () => { document.title = ["probe", players.length, drawn, overflow, heard].join(" "); };
    for (const player of players) {
      player.addEventListener("loadedmetadata", () => { heard += player.duration === 1; say(); });
      player.preload = "metadata";
      player.load();
    }
    say();
    """
    assert browser.answer(tmp_path / "preview.html", script, folder=tmp_path) == "probe 24 24 0 24"


def test_of_many_rows_some_are_looked_at_the_short_ones_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preview, "CONSIDERED", 2)
    views = [row(tmp_path, name, {"name": "gain", "gain_db": 1.0}) for name in "abcd"]
    views = [dataclasses.replace(view, duration=60.0 if view.id == "a" else 1.0) for view in views]
    chosen = preview.choose(iter(views), 12)
    assert len(chosen) == 2
    assert all(view.duration == 1.0 for view in chosen)
    assert chosen == preview.choose(iter(views[::-1]), 12)
