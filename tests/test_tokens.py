"""Decoder inputs and labels are, id for id, the reference package's."""

import any_whisper
import pytest
import torch

from speechft.errors import InputError
from speechft.whisper import tokens

TEXTS = ["hello world", "HbA1c was 120/80 mg/dL, she's naïve ☕ 数字", "C# and I/O (IV push)", ""]


def layout(vocabulary: int, **options) -> tokens.Layout:
    chosen = {"multilingual": vocabulary > 51864, "language": "en", "task": "transcribe"} | options
    return tokens.layout(any_whisper.tokenizer(vocabulary), **chosen)


@pytest.mark.parametrize("vocabulary", [51864, 51865, 51866])
@pytest.mark.parametrize("text", TEXTS)
def test_plain_text_matches_the_reference(vocabulary: int, text: str) -> None:
    reference, ids = any_whisper.reference(vocabulary), layout(vocabulary)
    words = tuple(reference.encoding.encode(" " + text)) if text else ()
    assert tokens.encode_text(any_whisper.tokenizer(vocabulary), text) == words
    made = tokens.example(ids, [tokens.Segment(tokens=words, start_s=0, end_s=1)], timestamps=False)
    expected = (*reference.sot_sequence_including_notimestamps, *words, reference.eot)
    assert made.decoder_input_ids == expected[:-1]
    prompt = len(reference.sot_sequence_including_notimestamps)
    assert made.labels == (tokens.IGNORED,) * (prompt - 1) + expected[prompt:]
    assert made.decoder_input_ids.count(reference.sot) == 1  # six public recipes double it


@pytest.mark.parametrize("vocabulary", [51864, 51865, 51866])
def test_timestamps_and_previous_text_match_the_reference(vocabulary: int) -> None:
    reference, ids = any_whisper.reference(vocabulary), layout(vocabulary)
    first, second, previous = (tuple(reference.encoding.encode(t)) for t in (" one", " two", " before that"))
    segments = [
        tokens.Segment(tokens=first, start_s=0.0, end_s=1.2),
        tokens.Segment(tokens=second, start_s=1.5, end_s=30.0),
    ]
    made = tokens.example(ids, segments, timestamps=True, previous=previous)
    begin = reference.timestamp_begin
    body = (begin, *first, begin + 60, begin + 75, *second, begin + 1500, reference.eot)
    expected = (reference.sot_prev, *previous, *reference.sot_sequence, *body)
    assert made.decoder_input_ids == expected[:-1]
    assert [label for label in made.labels if label != tokens.IGNORED] == list(body)


@pytest.mark.parametrize("vocabulary", [51865, 51866])
@pytest.mark.parametrize(("language", "task"), [("hi", "translate"), ("de", "transcribe"), ("cy", "transcribe")])
@pytest.mark.parametrize("timestamps", [False, True])
def test_other_language_and_task(vocabulary: int, language: str, task: str, timestamps: bool) -> None:
    reference, ids = any_whisper.reference(vocabulary, language, task), layout(vocabulary, language=language, task=task)
    text, previous = (tuple(reference.encoding.encode(t)) for t in (" grüße", " before"))
    segment = tokens.Segment(tokens=text, start_s=0.0, end_s=1.0)
    made = tokens.example(ids, [segment], timestamps=timestamps, previous=previous)
    start = reference.sot_sequence if timestamps else reference.sot_sequence_including_notimestamps
    begin = reference.timestamp_begin
    body = (begin, *text, begin + 50) if timestamps else text
    assert made.decoder_input_ids == (reference.sot_prev, *previous, *start, *body)


def test_an_unknown_language() -> None:
    with pytest.raises(InputError, match=r"<\|xx\|>"):
        layout(51866, language="xx")


def test_previous_text_is_cut_as_the_reference_cuts_it() -> None:
    made = tokens.example(layout(51865), [], timestamps=False, previous=tuple(range(1000)))
    assert made.decoder_input_ids[1] == 1000 - 223
    assert len(made.decoder_input_ids) == 1 + 223 + 4


def test_previous_text_gives_way_to_the_label() -> None:
    label = tuple([7] * 400)
    made = tokens.example(
        layout(51865), [tokens.Segment(tokens=label, start_s=0, end_s=30)], timestamps=False, previous=tuple(range(200))
    )
    assert len(made.labels) == tokens.MAX_TARGET_POSITIONS - 1
    assert [token for token in made.labels if token != tokens.IGNORED] == [*label, layout(51865).end]


def test_too_long_a_label_is_refused_not_cut() -> None:
    segment = tokens.Segment(tokens=tuple([7] * 444), start_s=0, end_s=1)
    with pytest.raises(InputError, match="449 tokens"):
        tokens.example(layout(51865), [segment], timestamps=False)


def test_padding_is_masked_by_length_so_that_the_end_is_learned() -> None:
    ids = layout(51865)
    short, long = (
        tokens.example(ids, [tokens.Segment(tokens=t, start_s=0, end_s=1)], timestamps=False) for t in ((5,), (5, 6, 7))
    )
    inputs, labels = tokens.collate([short, long], end=ids.end)
    assert inputs.shape == labels.shape == (2, 7)
    assert labels[0].tolist() == [-100, -100, -100, 5, ids.end, -100, -100]
    assert torch.equal(inputs[0, 5:], torch.full((2,), ids.end))


def test_special_tokens_spelled_in_a_transcript_are_plain_characters() -> None:
    words = tokens.encode_text(any_whisper.tokenizer(51865), "say <|endoftext|> now")
    assert layout(51865).end not in words
    assert any_whisper.tokenizer(51865).decode(list(words)) == " say <|endoftext|> now"
