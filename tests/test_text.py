"""Normalisers: equal to the reference package where they claim to be, and safe for jargon."""

from __future__ import annotations

import random

import pytest

from speechft import text
from speechft.errors import InputError
from speechft.text import Term

# What each string is under jargon-safe without a term list.
JARGON = [
    ("C++ and C#, or F#.", "c++ and c# or f#"),
    ("a 5 mm hole", "a 5 mm hole"),
    ("a 5mm hole", "a 5 mm hole"),
    ("gen 3 SSD rev B", "gen 3 ssd rev b"),
    ("col 4", "col 4"),
    ("lt pressure sr valve", "lt pressure sr valve"),
    ("I/O", "i/o"),
    ("give it (IV push) now", "give it iv push now"),
    ("type O blood", "type o blood"),
    ("blood group O+ or A-", "blood group o+ or a"),
    ("120/80 mmHg", "120/80 mmhg"),
    ("BP 120 / 80.", "bp 120/80"),
    ("5 mg/dL", "5 mg/dl"),
    ("5mg/kg/day", "5 mg/kg/day"),
    ("0.5 mL", "0.5 ml"),
    (".5 mL", "0.5 ml"),
    ("3.50 and 3.0", "3.50 and 3.0"),
    ("1,000,000 units", "1000000 units"),
    ("COVID-19", "covid-19"),
    ("IL-6 and TNF-alpha", "il-6 and tnf alpha"),
    ("an F-16", "an f-16"),
    ("RS-232 port", "rs-232 port"),
    ("part ABC-123-45", "part abc-123-45"),
    ("call 555-1234", "call 555-1234"),
    ("M3x0.5 screw", "m3x0.5 screw"),
    ("a 2N2222A transistor", "a 2n2222a transistor"),
    ("HbA1c and B12", "hba1c and b12"),
    ("H2O, CO2", "h2o co2"),
    ("Na+ and Ca2+", "na+ and ca2+"),
    ("v2.1.3", "v2.1.3"),
    ("node.js", "node.js"),
    (".NET", ".net"),
    ("user@host.com", "user@host.com"),
    ("max_length", "max_length"),
    ("issue #12", "issue #12"),
    ("AT&T R&D", "at&t r&d"),
    ("TCP/IP 24/7", "tcp/ip 24/7"),
    ("p < 0.05", "p <0.05"),
    (">90% of ±5", ">90% of ±5"),
    ("x=5", "x=5"),
    ("37 °C", "37 °c"),
    ("37°C", "37 °c"),
    ("98.6°F", "98.6 °f"),
    ("5 µm", "5 μm"),
    ("10:30 and 1:100", "10:30 and 1:100"),
    ("007", "007"),
    ("GPT-4o on 4K", "gpt-4o on 4k"),
    ("I.V. at 10 a.m.", "iv at 10 am"),
    ("C-M-U", "cmu"),
    ("Crohn's disease", "crohns disease"),
    ("-5 V", "-5 v"),
    ("tablet(s)", "tablets"),
    ("mg/week, ml/min", "mg/week ml/min"),
    ("5 $ 10", "5 10"),  # of which number is not known
    ("10–15 of IL–6", "10-15 of il-6"),
]
# Pairs that are the same to a listener and so must be the same words.
ALIKE = [
    ("five percent", "5%"),
    ("5 per cent", "5 %"),
    ("twenty one patients", "21 patients"),
    ("twenty-one patients", "21 patients"),
    ("type two", "type 2"),
    ("five mg", "5 mg"),
    ("one mg", "1 mg"),
    ("a ten-minute walk", "a 10 minute walk"),
    ("two and a half", "2.5"),
    ("point five percent", "0.5%"),
    ("zero point five", "0.5"),
    ("minus point five", "-.5"),
    ("it's won't they've", "it is will not they have"),
    ("he's been", "he has been"),
    ("haemoglobin colour", "hemoglobin color"),
    ("um, well uh-huh yes", "well yes"),
    ("naïve café", "naive cafe"),
    ("the patient’s “note”", "the patients note"),
    ("x-ray follow-up", "x ray follow up"),
    ("and/or", "and or"),
    ("[Music] hello (laughter)", "hello"),
    ("in the mid-1990s", "in the mid 1990s"),
    ("$5.50 five dollars", "$5.50 $5"),
    ("in 2015 five patients", "in 2015 5 patients"),
    ("３.５ ｍｇ", "3.5 mg"),
    ("…and then he waited—10 minutes.", "and then he waited, 10 minutes"),
    ("the dose—5 mg", "the dose, 5 mg"),
    ("“...no,” it--2", "no it 2"),
    ("5mg—then", "5 mg then"),
    ("nausea/vomiting HIV/AIDS", "nausea vomiting HIV AIDS"),
    ("yes/no his/her", "yes no his her"),
    ("20¢ and 5 €", "¢20 and €5"),
    ("5€", "five euros"),
    ("50%/50%", "50% 50%"),
    ("five milligrams, 10 micrograms or 10 mcg", "5 mg, 10 µg or 10 µg"),
    ("two millilitres in 5 minutes", "2 mL in 5 min"),
    ("thirty-seven degrees Celsius", "37 °C"),
]


@pytest.mark.parametrize(("written", "expected"), JARGON)
def test_jargon_survives(written: str, expected: str) -> None:
    assert text.get("jargon-safe")(written) == expected


@pytest.mark.parametrize(("one", "other"), ALIKE)
def test_the_rest_is_made_alike(one: str, other: str) -> None:
    normalise = text.get("jargon-safe")
    assert normalise(one) == normalise(other)


@pytest.mark.parametrize("written", [pair[0] for pair in JARGON + ALIKE])
def test_case_and_closing_punctuation_never_matter(written: str) -> None:
    normalise = text.get("jargon-safe")
    assert normalise(written.upper()) == normalise(written.lower())
    assert normalise(f"  {written},") == normalise(written)


def test_whisper_normaliser_destroys_what_jargon_safe_keeps() -> None:
    whisper = text.get("whisper-english")
    assert whisper("C++").strip() == whisper("C#").strip() == "c"
    assert whisper("5 mm hole").split() == ["5", "hole"]
    assert whisper("gen 3 SSD rev B").split() == ["general", "3", "ssd", "reverend", "b"]
    assert whisper("(IV push)").strip() == ""


TERMS = [
    Term(term="12-lead ECG"),
    Term(term="insulin"),
    Term(term="insulin glargine", variants=("Lantus",)),
    Term(term="dyspnoea", variants=("dyspnea",)),
    Term(term="anaemia"),
    Term(term="vitamin B12", variants=("vitamin B 12",)),
    Term(term="C"),
    Term(term="5 mg"),
    Term(term="Type 2 diabetes"),
    Term(term="UM"),
    Term(term="Crohn's disease"),
    Term(term="IT"),
]


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("the Lantus dose", "the insulin glargine dose"),
        ("insulin-glargine", "insulin glargine"),
        ("Dyspnea", "dyspnoea"),
        ("anemia", "anaemia"),  # American spelling needs no declaring
        ("vitamin B twelve, vitamin-B 12", "vitamin b12 vitamin b12"),
        ("a 12 lead ECG", "a 12-lead ecg"),
        ("C, not C++ nor C# at 5 °C", "c not c++ nor c# at 5 °c"),
        ("5 mg, five mg, 5mg", "5 mg 5 mg 5 mg"),
        ("15 mg 2.5 mg 5 mg/dL", "15 mg 2.5 mg 5 mg/dl"),
        ("type two diabetes", "type 2 diabetes"),
        ("UM, um", "um um"),  # listed, so no filler
        ("CROHNS DISEASE", "crohn's disease"),
        ("insulin's effect", "insulin effect"),
        ("it's IT's it'll it's been", "it is it is it will it has been"),
        ("insulin'll...insulin", "insulin will insulin"),
        ("five milligrams of insulin", "5 mg of insulin"),
        ("insulin/glucagon", "insulin glucagon"),
    ],
)
def test_terms_and_variants_become_the_canonical_spelling(written: str, expected: str) -> None:
    assert text.get("jargon-safe", TERMS)(written) == expected


def test_a_canonical_spelling_stays_itself() -> None:
    normalise = text.get("jargon-safe", TERMS)
    for term in TERMS:
        assert normalise(term.term) == normalise(normalise(term.term)) == term.term.lower()


def test_letters_keeps_spelled_letters_and_digits_apart() -> None:
    letters = text.get("letters")
    assert letters("C.M.U. spells C-M-U, R 2 D 2") == "c m u spells c m u r two d two"
    assert letters("three nine thirty nine 39") == "three nine thirty nine three nine"


def test_other_languages_keep_their_words() -> None:
    german = text.get("jargon-safe", language="de")
    assert german("Schön, fünf mg um 8 Uhr!") == "schön fünf mg um 8 uhr"
    hindi = "नमस्ते दुनिया"
    assert text.get("jargon-safe", language="hi")(hindi) == hindi
    assert text.get("jargon-safe", language="ja")("東京に、行きます。").split() == ["東京に", "行きます"]


def test_identity_tells_normalisers_terms_and_languages_apart() -> None:
    hashes = [text.get(name).hash for name in text.NAMES]
    hashes += [text.get("jargon-safe", TERMS).hash, text.get("jargon-safe", language="de").hash]
    assert len(set(hashes)) == len(hashes)
    assert text.get("raw", TERMS).hash == text.get("raw").hash  # raw does not look at terms
    again = [*TERMS[1:], TERMS[0]]
    assert text.get("jargon-safe", again).hash == text.get("jargon-safe", TERMS).hash
    assert text.get().identity() == {"name": "jargon-safe", "version": "3", "hash": text.get().hash}


def test_an_unknown_name_is_an_error() -> None:
    with pytest.raises(InputError, match=r"no normaliser 'whisper'.*whisper-english"):
        text.get("whisper")


@pytest.mark.parametrize("odd", ["", " ", "...", "- -", "#", "'", "''s", "%", "+ / +", "\ue0000\ue001", "\u200b"])
@pytest.mark.parametrize("name", text.NAMES)
def test_odd_input_does_not_fail(name: str, odd: str) -> None:
    assert isinstance(text.get(name, TERMS).words(odd), list)


def test_signs_in_words_belong_to_numbers_alone() -> None:
    normalise = text.get("jargon-safe")
    for written in (
        "tested positive and was", "hiv negative double blind", "c plus plus", "a point and click game", "2.5 point",
    ):  # fmt: skip
        assert normalise(written) == written
    assert normalise("minus five or point five, negative 10") == "-5 or 0.5 -10"


def test_a_language_by_any_of_its_names() -> None:
    assert {text.language_code(name) for name in ("en", "en-GB", "en_US", "eng", "English")} == {"en"}
    assert [text.language_code(name) for name in ("German", "de-AT", "Mandarin", "burmese")] == ["de", "de", "zh", "my"]
    assert text.language_code("Klingon") == "klingon"
    for name in ("zh_CN", "cmn", "chinese", "Japanese", "th-TH"):
        assert text.without_spaces([name], ["abc"])
    assert text.get("jargon-safe", language="en_US").hash == text.get("jargon-safe", language="en").hash


def test_languages_without_spaces() -> None:
    assert text.without_spaces(["ja", "zh-CN"], [])
    assert not text.without_spaces(["en"], ["東京"])
    assert text.without_spaces([None], ["東京に行きます", "ok"])
    assert not text.without_spaces([], ["hello"])


PIECES = """
the a I you don't won't it's he'd we've can't gonna colour realise centre theatre grey
organisation hmm um uh mhm (laughs) [noise] <unk> Mr. Mrs. Dr. St. Gen. Rev. twenty-one
two three hundred thousand million five oh zero double triple point and a half percent
per cent dollars pounds cents $5 £20.50 €3 5% 1,000 3.14 1960s 21st second third café
naïve Zürich 東京 München o'clock rock'n'roll C++ C# 120/80 mg/dL 5mm B12 I/O -5 +3 plus
minus one ones sixes twenties first 7 19 2023 cause kinda dunno sorta ... ? ! , ; : —
“quoted” ’tis ½ ² ™ & @ #1
""".split()


def test_whisper_normalisers_equal_the_reference_package() -> None:
    reference = pytest.importorskip("whisper.normalizers", reason="openai-whisper is not installed")
    choose = random.Random(7)
    sentences = [" ".join(choose.choices(PIECES, k=choose.randint(1, 14))) for _ in range(2000)]
    for name, expected in (
        ("whisper-english", reference.EnglishTextNormalizer()),
        ("whisper-basic", reference.BasicTextNormalizer()),
    ):
        ours = text.get(name)
        for sentence in sentences:
            assert ours(sentence) == expected(sentence), sentence
