"""Made-up pairs with a known kind and rate of errors, and what NIST's programs say about pairs."""

from __future__ import annotations

import random
import re
import shutil
import subprocess
from pathlib import Path

from speechft.score import nist

SCTK = "/usr/lib/sctk/bin:/usr/local/bin:/usr/bin"
SCLITE, SC_STATS = shutil.which("sclite", path=SCTK), shutil.which("sc_stats", path=SCTK)


def random_pairs(
    number: int, *, seed: int, words: int = 40, error_rate: float = 0.3
) -> tuple[dict[str, str], dict[str, str]]:
    """Return realistic pairs: substitutions, deletions and insertions of words at a given rate."""
    choose = random.Random(seed)
    references, hypotheses = {}, {}
    for index in range(number):
        reference = [f"w{choose.randrange(words)}" for _ in range(choose.randint(1, 25))]
        hypothesis = []
        for word in reference:
            kind = choose.random() / error_rate
            if kind > 0.2:
                hypothesis.append(f"w{choose.randrange(words)}" if kind < 0.7 else word)
            if 0.7 < kind < 1:
                hypothesis.append(f"w{choose.randrange(words)}")
        references[f"u{index:05d}"] = " ".join(reference)
        hypotheses[f"u{index:05d}"] = " ".join(hypothesis)
    return references, hypotheses


def sclite_counts(folder: Path, references: dict[str, str], hypotheses: dict[str, str]) -> dict[str, list[int]]:
    """Return sclite's hits, substitutions, deletions and insertions for each row."""
    speakers: dict[str, str | None] = dict.fromkeys(references, "s1")
    nist.write_trn(folder / "ref.trn", references, speakers)
    nist.write_trn(folder / "hyp.trn", hypotheses, speakers)
    assert SCLITE is not None
    command = [SCLITE, "-r", "ref.trn", "trn", "-h", "hyp.trn", "trn", "-i", "rm", "-e", "utf-8", "-s"]
    subprocess.run([*command, "-o", "pra", "-n", "out", "-f", "0"], cwd=folder, check=True, capture_output=True)
    report = (folder / "out.pra").read_text(errors="replace")
    found = re.findall(r"id: \((\S+)\)\nScores: \(#C #S #D #I\) (\d+) (\d+) (\d+) (\d+)", report)
    return {row_id: [int(number) for number in numbers] for row_id, *numbers in found}


def sc_stats(
    folder: Path, references: dict[str, str], first: dict[str, str], second: dict[str, str]
) -> tuple[int, float]:
    """Return the number of segments and Z from NIST's own program."""
    speakers: dict[str, str | None] = {row_id: f"s{index % 5}" for index, row_id in enumerate(references)}
    for name, texts in (("ref", references), ("one", first), ("two", second)):
        nist.write_trn(folder / f"{name}.trn", texts, speakers)
    assert SCLITE is not None
    assert SC_STATS is not None
    command = [SCLITE, "-r", "ref.trn", "trn", "-h", "one.trn", "trn", "-h", "two.trn", "trn", "-i", "rm"]
    piped = subprocess.run([*command, "-p", "-f", "0"], cwd=folder, check=True, capture_output=True, text=True)
    command = [SC_STATS, "-p", "-t", "mapsswe", "-v", "-n", "-"]
    # Debian's sclite ends every field of a path with a line, which its sc_stats does not read: join them.
    alignments = re.sub(r"(<PATH [^>]*>\n)(.*?)</PATH>", _join_fields, piped.stdout, flags=re.S)
    report = subprocess.run(command, cwd=folder, input=alignments, check=True, capture_output=True, text=True)
    found = re.search(r"# segs: (\d+)\).*Z Stat:\s*(-?[\d.]+)", report.stdout)
    assert found is not None, report.stdout
    return int(found.group(1)), float(found.group(2))


def _join_fields(path: re.Match[str]) -> str:
    fields = path.group(2).split("\n")[:-1] if path.group(2).strip() else []  # the last one can be empty
    if fields and "," in fields[0]:
        return path.group()  # already on one line
    words = [",".join(fields[start : start + 3]) for start in range(0, len(fields), 3)]
    return f"{path.group(1)}{':'.join(words)}\n</PATH>"
