"""The pages that people read: their tables come from `results/`, their numbers have a source.

`make results` writes the tables (cog blocks) anew. `make check` fails when a page and the results
differ, and when a page holds a number that `sources.toml` does not explain.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

from lab import sources
from lab.chapters import ROOT, LabError
from lab.stages import listed

STALE = 5  # the exit code of `cog --check` for a page that would change


def main(write: bool) -> int:
    """Print every complaint and return 1 if there is one; with `write`, write the tables first."""
    found = pages()
    if write:
        cog("-r", *map(str, found))
    complaints = [
        f"{page} is stale. Run: .venv/bin/python -m lab pages --write" for page in stale(found)
    ]
    complaints += sources.check(ROOT, [*found, *notebooks()])
    for complaint in complaints:
        print(complaint)
    return 1 if complaints else 0


def pages(root: Path = ROOT) -> list[Path]:
    """Every Markdown file that somebody wrote: all that git would commit, but DIFF.md."""
    files = sorted(root / file for file in listed(root) if file.endswith(".md"))
    return [file for file in files if file.name != "DIFF.md"]


def notebooks(root: Path = ROOT) -> list[Path]:
    return sorted(root.glob("notebooks/[0-9][0-9]_*.ipynb"))


def stale(files: list[Path]) -> list[str]:
    """Those whose tables are not what the results say. Nothing is written.

    Not together with `-r`: that makes cog mend the page and say that all is well.
    """
    done = cog("--check", *map(str, files))
    return re.findall(r"^Checking (.+?)\s+\(changed\)$", done.stdout, re.MULTILINE)


def cog(*arguments: str) -> "subprocess.CompletedProcess[str]":
    """Raises LabError if a block cannot be run."""
    command = [sys.executable, "-m", "cogapp", "--verbosity=1", *arguments]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    if done.returncode not in (0, STALE):
        raise LabError(f"{' '.join(command)}\n{done.stdout}{done.stderr}")
    return done
