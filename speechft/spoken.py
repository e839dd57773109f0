"""Rows that nobody has recorded: what `synth` is to say within a run, and the stage that has it said."""

from __future__ import annotations

import collections
import dataclasses
from typing import TYPE_CHECKING

from speechft import files, manifest
from speechft.errors import InputError
from speechft.progress import Progress
from speechft.run import Run
from speechft.text import language_code

if TYPE_CHECKING:
    from speechft.augment.script import Line


def script_of(run: Run) -> dict[str, list[Line]]:
    """What `synth` is to say, by role; nothing without a [synth] table.

    Raises:
        InputError: the term list, the templates or the sentences cannot be used.
    """
    settings, terms_path = run.pipeline.synth, run.pipeline.data.terms
    if settings is None:
        return {}
    from speechft.augment import script
    from speechft.score.terms import read_terms

    terms = read_terms(terms_path) if terms_path and settings.per_term != 0 else []
    sentences = [line for path in settings.sentences for line in script.read_sentences(path)]
    language = language_of(run)
    if terms and not settings.templates and language_code(language) != "en":
        raise InputError(
            f"synth.templates: the shipped sentences are English; name a file of sentences in {language!r}, each with "
            "{term} where the term goes"
        )
    carriers = script.read_carriers(settings.templates, terms)
    written = [role for role in run.spoken_roles if role != "general_train"]
    per_term = script.default_per_term(len(terms)) if settings.per_term is None else settings.per_term
    lines = script.write(terms, carriers, sentences, per_term=per_term, roles=written, seed=settings.seed)
    if settings.replay:
        lines["general_train"] = [line for path in settings.replay for line in script.read_sentences(path)]
    named = collections.Counter(line.id for role in lines.values() for line in role)
    if again := next((identity for identity, count in named.items() if count > 1), None):
        raise InputError(
            f"synth: {named[again]} sentences would be called {again!r}; give files of sentences different names, and "
            "sentences that have an `id` different ones"
        )
    return lines


def language_of(run: Run) -> str:
    """What `synth` is to speak.

    Raises:
        InputError: rows are to be written in another language than they are spoken in.
    """
    if run.spoken_language is None:
        raise InputError(
            "synth: a voice would speak the translation, not what is translated; leave [synth] out, or set "
            'model.task = "transcribe"'
        )
    return run.spoken_language


def synth(run: Run) -> bool:
    """Rows by synthetic voices, of sentences and of a term list: no recordings needed."""
    settings, terms_path = run.pipeline.synth, run.pipeline.data.terms
    if settings is None:
        raise InputError("synth: the pipeline has no [synth] table, so there is nothing to say")
    from speechft.augment import script
    from speechft.augment.settings import check_voices

    inputs = [
        *settings.sentences,
        *settings.replay,
        *([terms_path] if terms_path else []),
        settings.templates or script.SHIPPED,
    ]
    for path in inputs:
        if not path.exists():
            raise InputError(f"{path}: there is no such file; correct data.terms or the [synth] table")
    spoken = run.spoken_roles
    language = language_of(run)
    voices = check_voices(settings.voices)
    wanted = {**run.table("synth"), "roles": list(spoken), "language": language}
    stage = run.stage("synth", settings=wanted, inputs=inputs, seed=settings.seed)
    if stage.up_to_date():
        return False
    from speechft.augment.speak import speak

    run.check_ahead()
    lines = script_of(run)
    stage.begin()
    rejects = []
    with Progress("synth") as tell:
        for role in spoken:
            rows, failed = speak(
                lines[role], role=role, voices=voices, seed=settings.seed, out=stage.dir / role, language=language,
                progress=tell,
            )  # fmt: skip
            rejects += failed
            files.write_jsonl(stage.dir / "rejects.jsonl", (dataclasses.asdict(reject) for reject in rejects))
            if len(failed) > settings.max_failed_share * len(lines[role]):
                raise InputError(
                    f"synth: {len(failed):,} of {len(lines[role]):,} {role} lines could not be said, more than "
                    f"synth.max_failed_share = {settings.max_failed_share:g} allows; they are in "
                    f"{stage.dir / 'rejects.jsonl'}, the first: {failed[0].detail}"
                )
            manifest.write(stage.dir / f"{role}.jsonl", rows)
    total = sum(map(len, lines.values()))
    reasons = dict(collections.Counter(reject.reason for reject in rejects))
    stage.finish({"in": total, "out": total - len(rejects), "rejected": reasons}, stage.outputs())
    return True
