"""The `speechft` command: stages of a pipeline, transcription of somebody's own audio, scoring, and the plan.

speechft run --pipeline pipelines/demo.toml
speechft run --pipeline pipelines/an4.toml --set finetune.strategy=full --run an4-full
speechft finetune --pipeline pipelines/demo.toml
speechft transcribe call.wav --model runs/demo/finetune/model
speechft score --reference test.jsonl --hypothesis before.jsonl after.jsonl --terms terms.jsonl --out scored
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import logging
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from speechft import __version__, config, files, stages
from speechft.errors import InputError, Stopped
from speechft.run import Run
from speechft.text import DEFAULT


def main(arguments: list[str] | None = None) -> int:
    """Run one command; 0 is success, 2 the user's input, 130 an interruption, 143 a SIGTERM."""
    options = build_parser().parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    for noisy in ("httpx", "transformers", "datasets", "matplotlib", "fontTools", "numba"):
        logging.getLogger(noisy).setLevel(logging.ERROR)
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    try:
        with _sigterm_interrupts():
            result: int = options.act(options)
        return result
    except InputError as error:
        print(f"speechft: {error}", file=sys.stderr)
        return 2
    except Stopped as stopped:
        print(f"speechft: {stopped}", file=sys.stderr)
        return stopped.status
    except KeyboardInterrupt as interrupt:
        print("speechft: interrupted; the same command goes on where it stopped", file=sys.stderr)
        return 128 + (signal.SIGTERM if isinstance(interrupt, _Terminated) else signal.SIGINT)
    except BrokenPipeError:
        with contextlib.suppress(OSError):
            sys.stdout.close()
        return 0
    except OSError as error:  # a full disk, a folder that may not be entered, a name too long
        if error.errno is None:  # not the system's: a fault of the program
            raise
        where = f"{error.filename}: " if error.filename else ""
        print(f"speechft: {where}{error.strerror}; mend that, and the same command goes on", file=sys.stderr)
        return 2
    except Exception as error:
        if os.strerror(errno.ENOSPC) not in str(error):  # which safetensors and PyTorch say by errors of their own
            raise
        print("speechft: no space is left on the disk; free some, and the same command goes on", file=sys.stderr)
        return 2


class _Terminated(KeyboardInterrupt):
    """SIGTERM came."""


@contextlib.contextmanager
def _sigterm_interrupts() -> Iterator[None]:
    """While inside, SIGTERM unwinds as Ctrl-C does, so that unfinished files go; training saves first."""

    def interrupt(number: int, frame: Any) -> None:
        raise _Terminated

    try:
        before = signal.signal(signal.SIGTERM, interrupt)
    except ValueError:  # not the main thread, which alone may ask for signals
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def build_parser() -> argparse.ArgumentParser:
    """The command line: one subcommand a stage, and `run`, `learning-curve`, `synth`."""
    parser = argparse.ArgumentParser(
        prog="speechft",
        description="Adapt Whisper to your speech, and prove on held-out audio what changed.",
        epilog=__doc__.split("\n", 2)[2] if __doc__ else None,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"speechft {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="command")
    run = _pipeline_command(commands, "run", "all stages of a pipeline, in order", run_all)
    run.add_argument("--plan", action="store_true", help="print steps, time, disk and memory; start nothing")
    text = "would more speech help? The run, and runs by parts of its training rows"
    curve = _pipeline_command(commands, "learning-curve", text, learning_curve)
    curve.add_argument(
        "--shares", type=float, nargs="+", metavar="X", help="of the training rows, beside all (default: 0.25 0.5)"
    )
    for name in stages.ORDER:
        if name not in ("transcribe", "score"):  # these two also take the user's own files
            stage = _pipeline_command(commands, name, (stages.STAGES[name].__doc__ or "").splitlines()[0], run_stage)
            if name == "ingest":
                _pipeline_command(commands, "synth", (stages.STAGES["synth"].__doc__ or "").splitlines()[0], run_stage)
            if name == "augment":
                stage.add_argument("--show", metavar="ID", help="make one view again (row#view1), and tell where it is")
    _transcribe_command(commands)
    _score_command(commands)
    return parser


def _pipeline_options(parser: argparse.ArgumentParser, *, required: bool) -> None:
    parser.add_argument("--pipeline", type=Path, required=required, help="a file of pipelines/")
    parser.add_argument("--run", help="name of the run; by default the pipeline file's")
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="folder of all runs (default: runs)")
    parser.add_argument("--set", action="append", default=[], metavar="a.b=c", help="override a setting; repeatable")


def _pipeline_command(commands: Any, name: str, text: str, act: Any) -> argparse.ArgumentParser:
    example = f"example: speechft {name} --pipeline pipelines/demo.toml --set finetune.epochs=3"
    parser: argparse.ArgumentParser = commands.add_parser(name, help=text, description=text, epilog=example)
    _pipeline_options(parser, required=True)
    parser.set_defaults(act=act)
    return parser


def _transcribe_command(commands: Any) -> None:
    text = "hypotheses of a run's reported rows, or of your own audio files"
    parser = commands.add_parser(
        "transcribe", help=text, description=text,
        epilog="examples: speechft transcribe a.wav b.flac --model runs/demo/finetune/model; "
        "speechft transcribe --pipeline pipelines/demo.toml",
    )  # fmt: skip
    parser.add_argument("audio", nargs="*", type=Path, help="audio files of any length")
    parser.add_argument("--model", help="model directory, hub id or nano (default)")
    parser.add_argument("--language", help="of a multilingual model; by default the one it was saved with, or en")
    _pipeline_options(parser, required=False)
    parser.set_defaults(act=transcribe)


def _score_command(commands: Any) -> None:
    text = "score a run, or anybody's output against references (JSON Lines, CSV or trn)"
    parser = commands.add_parser(
        "score", help=text,
        description=f"{text}: error rates with their intervals, terms, slices and, for two systems, the verdict",
        epilog="examples: speechft score --reference test.csv --hypothesis before.csv after.csv --terms terms.txt "
        "--out scored; speechft score --pipeline pipelines/demo.toml",
    )  # fmt: skip
    parser.add_argument("--reference", type=Path, help="file with id and text; .jsonl, .csv, .tsv or .trn")
    parser.add_argument(
        "--hypothesis",
        type=Path,
        nargs="+",
        metavar=("A", "B"),
        help="one system's output, or two's: before and after; id and text",
    )
    parser.add_argument(
        "--normaliser",
        metavar="NAME",
        help="of the main numbers: jargon-safe (default), raw, whisper-english, whisper-basic or letters",
    )
    parser.add_argument(
        "--terms",
        type=Path,
        help="the words that matter: a term a line, or CSV or JSON Lines with term, variants, kind",
    )
    parser.add_argument(
        "--general",
        type=Path,
        nargs="+",
        metavar="FILE",
        help="general speech, to see what was forgotten: its references, then its output of A and of B",
    )
    parser.add_argument(
        "--train", type=Path, help="training texts, to tell seen from unseen terms; with --general, to mine a term list"
    )
    parser.add_argument("--smallest-gain", type=float, metavar="X", help="a difference that matters, such as 0.02")
    parser.add_argument("--forgetting-budget", type=float, metavar="X", help="what general speech may lose")
    parser.add_argument("--language", metavar="CODE", help="of rows that do not name theirs, such as de; by default en")
    parser.add_argument(
        "--out", type=Path, help="folder for score.json, table.md, counts by row, and the .trn files of NIST's tools"
    )
    parser.add_argument(
        "--fail-if-worse",
        action="store_true",
        help="exit status 1 when the verdict is worse, or general speech is worse and not surely within its budget",
    )
    _pipeline_options(parser, required=False)
    parser.set_defaults(act=score)


def _run(options: argparse.Namespace) -> Run:
    pipeline = config.load(options.pipeline, options.set)
    name = (options.run or options.pipeline.stem).rstrip("/")
    if Path(name).name != name or name in ("..", "states"):
        what = "--run" if options.run else options.pipeline
        raise InputError(f"{what} {name}: a run is a folder in {options.runs}, by one plain name other than states")
    return Run(pipeline, options.runs / name)


def run_all(options: argparse.Namespace) -> int:
    """Every stage; the table and the verdict at the end."""
    _refuse_team(options)
    run = _run(options)
    if options.plan:
        from speechft import planning

        print(planning.describe(run))
        return 0
    did = stages.run_stages(run)
    if not any(did.values()):
        print(f"nothing to do: {run.dir} is up to date")
    _print_result(run)
    return 0


def learning_curve(options: argparse.Namespace) -> int:
    """A run and parts of it; the curve as a table."""
    from speechft import learning_curve as curve

    _refuse_team(options)
    run = _run(options)
    print(curve.markdown(curve.measure(run, options.shares or curve.SHARES)))
    print(f"the same: {run.dir / 'learning_curve' / 'table.md'}")
    return 0


def _refuse_team(options: argparse.Namespace) -> None:
    if os.environ.get("RANK", "0") != "0":
        raise InputError(f"{options.command}: runs as one process; accelerate launch is for finetune")


def run_stage(options: argparse.Namespace) -> int:
    """One stage, and those before it that are not up to date."""
    run = _run(options)
    if getattr(options, "show", None):
        stages.run_stages(run, ("ingest",))
        print(stages.show_view(run, options.show))
        return 0
    if options.command == "synth":
        stages.run_stages(run, ("synth",))
        return 0
    names = stages.ORDER[: stages.ORDER.index(options.command) + 1]
    if options.command != "finetune":
        _refuse_team(options)
    elif os.environ.get("RANK", "0") != "0":  # under accelerate launch the first process runs the stages before
        logging.getLogger().setLevel(logging.WARNING)
        names = ("finetune",)
    stages.run_stages(run, names)
    if options.command == "report":
        _print_result(run)
    return 0


def transcribe(options: argparse.Namespace) -> int:
    """A run's reported rows, or files named on the command line."""
    own = [name for name, given in vars(options).items() if name in ("audio", "model", "language") and given]
    if options.pipeline:
        if own:
            what = "audio files" if own[0] == "audio" else f"--{own[0]}"
            raise InputError(f"transcribe: {what} and --pipeline exclude each other: your own files, or a run's rows")
        return run_stage(options)
    if options.run or options.set:
        raise InputError("transcribe: --run and --set are for a run, named with --pipeline")
    if not options.audio:
        raise InputError("transcribe: name audio files, or a run's pipeline with --pipeline")
    from speechft.whisper import files_of_audio

    model = options.model
    if model is None:
        logging.warning("transcribe: by nano, which is for trials only; name a model with --model")
        model = "nano"
    for path, hypothesis in files_of_audio.transcribe(options.audio, model=model, language=options.language):
        print(f"{path}\t{hypothesis}" if len(options.audio) > 1 else hypothesis, flush=True)
    return 0


def score(options: argparse.Namespace) -> int:
    """A run's hypotheses, or files named on the command line."""
    from speechft.score import command

    names = (
        "reference", "hypothesis", "normaliser", "terms", "general", "train", "smallest_gain", "forgetting_budget",
        "language", "out",
    )  # fmt: skip
    own = [name.replace("_", "-") for name in names if getattr(options, name) is not None]
    if options.pipeline:
        if own:
            raise InputError(f"score: --{own[0]} is for your own files; a run's settings are its pipeline's, or --set")
        run_stage(options)
        folder = _run(options).dir / "score"
        print((folder / "table.md").read_text(encoding="utf-8"))
        result = files.read_json(folder / "score.json")
    elif options.run or options.set:
        raise InputError("score: --run and --set are for a run, named with --pipeline")
    elif not options.reference or not options.hypothesis or len(options.hypothesis) > 2:
        raise InputError("score: give --reference and one or two files after --hypothesis, or a run's --pipeline")
    else:
        before, after = (*options.hypothesis, None)[:2]
        if options.fail_if_worse and after is None:
            raise InputError("score: --fail-if-worse compares two systems: give two files after --hypothesis")
        for name in ("smallest_gain", "forgetting_budget"):
            if (given := getattr(options, name)) is not None and not 0 < given < 1:
                flag = name.replace("_", "-")
                raise InputError(f"score: --{flag} is a fraction above 0 and below 1, got {given:g}")
        result = command.run(
            options.reference, before, after, normaliser=options.normaliser or DEFAULT, terms=options.terms,
            general=options.general, train=options.train, smallest_gain=options.smallest_gain,
            forgetting_budget=options.forgetting_budget, language=options.language, out=options.out,
        )  # fmt: skip
        print(result["table"])
    return 1 if options.fail_if_worse and command.is_worse(result) else 0


def _print_result(run: Run) -> None:
    table = run.dir / "score" / "table.md"
    if table.exists():
        print(table.read_text(encoding="utf-8"))
    print(f"report: {run.dir / 'report.html'}")


if __name__ == "__main__":
    raise SystemExit(main())
