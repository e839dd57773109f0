"""Strategy `prompt`: terms as previous text, saved with the model and read by every decode."""

from pathlib import Path

import any_whisper
import pytest
import torch

from speechft.adapt import prompt
from speechft.whisper import decode, load, tokens

CPU = load.Device(name="cpu", precision=torch.float32, reason="tests repeat exactly")


def test_terms_heard_most_come_first() -> None:
    assert prompt.order(["b", "A-1", "c"], ["b and a-1", "again A-1"]) == ["A-1", "b", "c"]
    assert prompt.order(["ace", "pain"], ["a pace", "a place", "pain"]) == ["pain", "ace"]  # whole words only


def test_a_prompt_holds_what_fits() -> None:
    count = lambda text: len(text.split())  # noqa: E731
    terms = [f"term{number}" for number in range(300)]
    assert count(prompt.write(terms, share=1.0, count=count)) == tokens.MAX_PREVIOUS_TOKENS
    assert count(prompt.write(terms, share=0.25, count=count)) == tokens.MAX_PREVIOUS_TOKENS // 4
    assert prompt.write(terms, share=0.0, count=count) == ""


def test_a_saved_prompt_is_given_with_every_window(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whisper = load.load(str(any_whisper.save(tmp_path / "base", 51865)))
    whisper.prompt = "metformin, XR-500"
    load.save(whisper, tmp_path / "model")
    again = load.load(str(tmp_path / "model"))
    assert again.prompt == "metformin, XR-500"
    given: list[list[int]] = []
    forward = again.model.model.decoder.forward

    def noted(*args, **kwargs):
        given.append(kwargs["input_ids"][0].tolist())
        return forward(*args, **kwargs)

    monkeypatch.setattr(again.model.model.decoder, "forward", noted)
    encoded = torch.randn(1, 1500, 64, generator=torch.Generator().manual_seed(1))
    ids = decode.decode_ids(again, encoded, device=CPU, max_new_tokens=4)[0]
    previous = tokens.encode_text(again.tokenizer, again.prompt)
    assert given[0] == [again.ids.previous, *previous, *again.ids.prompt, again.ids.no_timestamps]
    assert len(ids) <= 4
    assert again.ids.previous not in ids
