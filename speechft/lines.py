"""The lines of a manifest (JSON Lines, CSV, TSV) as rows of values, each with what is wrong with it."""

import csv
import io
import itertools
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from speechft.errors import InputError

DELIMITERS = {".csv": ",", ".tsv": "\t"}


def read(path: Path, *, need_audio: bool) -> Iterator[tuple[int, dict[str, Any], str]]:
    """(line number, row, fault) for each line of JSON Lines, CSV or TSV, read a line at a time.

    Raises:
        InputError: the file is missing or unreadable, or its heading cannot be used.
    """
    try:
        with path.open("rb") as file:
            first = file.readline()
            if first.startswith((b"\xff\xfe", b"\xfe\xff")):
                raise InputError(f"{path}: is UTF-16; save the manifest as UTF-8")
            lines = itertools.chain([first.removeprefix(b"\xef\xbb\xbf")], file)
            if path.suffix.lower() in DELIMITERS:
                yield from _csv_lines(path, lines, need_audio=need_audio)
            else:
                yield from _json_lines(lines)
    except FileNotFoundError as error:
        raise InputError(f"{path}: there is no such manifest; check the path") from error
    except OSError as error:
        raise InputError(f"{path}: the manifest cannot be read ({error.strerror})") from error


def _json_lines(lines: Iterable[bytes]) -> Iterator[tuple[int, dict[str, Any], str]]:
    """On a fault the row holds the line as it stood."""
    clash: str | None = None

    def last(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        """As JSON is read everywhere; `clash` is a key of the object that ends last, the row, with two values."""
        nonlocal clash
        found = dict(pairs)
        clash = next((key for key, value in pairs if found[key] != value), None) if len(found) < len(pairs) else None
        return found

    for number, raw in enumerate(lines, start=1):
        if not raw.strip():
            continue
        line = raw.decode("utf-8", errors="replace").strip()
        try:
            row = json.loads(raw.decode("utf-8"), object_pairs_hook=last)
            # A lone surrogate is valid JSON but cannot be written as UTF-8 again.
            json.dumps(row, ensure_ascii=False).encode("utf-8")
        except UnicodeError:
            yield number, {"line": line}, "the line is not valid UTF-8; save the manifest as UTF-8"
        except (ValueError, RecursionError) as error:
            yield number, {"line": line}, f"the line is not valid JSON ({error})"
        else:
            if isinstance(row, dict) and clash is not None:
                yield number, {"line": line}, f'the line gives "{clash}" twice, and not the same'
            elif isinstance(row, dict):
                yield number, row, ""
            else:
                yield number, {"line": line}, f"the line must be a JSON object, got {type(row).__name__}"


def _csv_lines(path: Path, lines: Iterable[bytes], *, need_audio: bool) -> Iterator[tuple[int, dict[str, Any], str]]:
    texts = _decoded(path, lines)
    heading_line = next(texts, "")
    delimiter = DELIMITERS[path.suffix.lower()]
    if delimiter not in heading_line:  # spreadsheets in many languages write "CSV" with semicolons, others with tabs
        delimiter = next((other for other in ";\t" if other in heading_line), delimiter)
    csv.field_size_limit(2**31 - 1)  # the library's own would end a cell in the middle, and lose what it had read
    reader = csv.reader(itertools.chain([heading_line], texts), delimiter=delimiter)
    kept = {"hypothesis"} if need_audio else {"hypothesis", "text"}  # to score, an empty cell is silence
    heading: list[str] | None = None
    while True:
        start = reader.line_num + 1
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield start, {}, f"the line is not valid CSV ({error})"
            continue
        if not any(cell.strip() for cell in cells):
            continue
        if heading is None:
            heading = [cell.strip() for cell in cells]
            if twice := sorted({cell for cell in heading if cell and heading.count(cell) > 1}):
                raise InputError(f"{path}:{start}: the heading names {', '.join(twice)} twice; leave one out")
            if "audio_filepath" not in heading and (need_audio or "id" not in heading):
                needed = "audio_filepath" if need_audio else "id"
                raise InputError(f"{path}:{start}: the heading has no {needed}, only {', '.join(heading)}")
            continue
        if swallowed := _swallowed(cells, delimiter, heading):
            told = f'lines {start} to {reader.line_num} are one row, as a quotation mark (") is not closed in its line'
            yield start, {"line": cells}, f"{told}; double it, or take it out"
            for lost in swallowed:
                yield start, {"line": lost}, f"the line was swallowed by the quotation mark in line {start}"
            continue
        if len(cells) != len(heading):
            yield start, {"line": cells}, f"{len(cells)} cells, but the heading has {len(heading)}"
            continue
        row = dict(zip(heading, cells, strict=True))
        yield start, {key: cell for key, cell in row.items() if key and (cell or key in kept)}, ""


def _decoded(path: Path, lines: Iterable[bytes]) -> Iterator[str]:
    """Lines as text, also those of one kind of file that ends them by a carriage return alone."""
    for number, line in enumerate(lines, start=1):
        try:
            text = line.decode("utf-8")
        except UnicodeDecodeError as error:
            raise InputError(f"{path}:{number}: is not valid UTF-8; save the manifest as UTF-8") from error
        yield from io.StringIO(text, newline="")


def _swallowed(cells: list[str], delimiter: str, heading: list[str]) -> list[str]:
    """Lines within a cell that look like rows of their own: as many cells, and a file, or an id, of the row's kind."""
    if not any("\n" in cell for cell in cells):
        return []
    by_file = "audio_filepath" in heading
    at = heading.index("audio_filepath" if by_file else "id")

    def kind(row: Sequence[str]) -> str:
        name = row[at].strip() if at < len(row) else ""
        if by_file:
            return Path(name).suffix.lower()
        shape = re.sub(r"[^\W\d_]+", "a", re.sub(r"\d+", "0", name))  # `a-0` for `anna-17`
        return shape if "0" in shape else ""

    lines = [line for cell in cells for line in cell.split("\n")[1:]]
    rows = ((line, line.split(delimiter)) for line in lines)
    return [line for line, row in rows if len(row) == len(heading) and kind(row) and kind(row) == kind(cells)]
