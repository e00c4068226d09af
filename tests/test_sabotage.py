"""The harms of `make sabotage` fit the code of today; that they are caught takes longer to see."""

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab import sabotage
from lab.chapters import LabError
from lab.sabotage import Harm, harms

from .conftest import COLLECTED, ROOT
from .test_chapters import handed_on


@pytest.fixture(scope="module")
def place() -> Iterator[Path]:
    with sabotage.copy() as place:
        yield place


@pytest.mark.parametrize("harm", harms(), ids=lambda harm: harm.path.stem)
def test_a_harm_fits_and_names_tests_that_exist(harm: Harm, place: Path) -> None:
    done = sabotage.git("apply", "--check", str(harm.path), cwd=place, check=False)
    assert done.returncode == 0, done.stderr
    for test in harm.tests:
        file, _, name = test.partition("::")
        assert f"def {name.partition('[')[0]}(" in (place / file).read_text(), test


def test_make_test_runs_every_test_that_a_harm_names(request: pytest.FixtureRequest) -> None:
    """A harm that only `make test-all` would notice is not noticed in time."""
    named = {test for harm in harms() for test in harm.tests}
    ours = sorted(test for test in named if test.startswith("tests/"))
    collected = request.config.stash[COLLECTED].copy()
    files = {line.partition("::")[0] for line in collected}
    if others := [test for test in ours if test.partition("::")[0] not in files]:
        command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-m", "not long"]
        done = subprocess.run(
            [*command, *others], cwd=ROOT, capture_output=True, text=True, timeout=100
        )
        collected += done.stdout.splitlines()
    for test in ours:
        assert any(f"{line}[".startswith((f"{test}[", test)) for line in collected), test
    for test in named - set(ours):
        number, file = test[:2], test.partition("/")[2].partition("::")[0]
        name = test.partition("::")[2].partition("[")[0]
        assert name not in handed_on(number, file), test


def test_a_harm_is_caught_or_survives(tmp_path: Path) -> None:
    (tmp_path / "counting.py").write_text("def more(n):\n    return n + 1\n")
    test = "from counting import more\n\ndef test_more():\n    assert more(1) == 2\n"
    (tmp_path / "test_counting.py").write_text(test)
    patch = tmp_path / "01_less.patch"
    head = "Harm: less.\nTest: test_counting.py::test_more\n\n"
    change = (
        "diff --git a/counting.py b/counting.py\n--- a/counting.py\n+++ b/counting.py\n"
        "@@ -1,2 +1,2 @@\n def more(n):\n-    return n + 1\n+    return n - 1\n"
    )
    patch.write_text(head + change)
    harm = sabotage.read(patch)
    assert not sabotage.fails(harm, tmp_path)
    sabotage.git("init", "--quiet", cwd=tmp_path)
    sabotage.apply(harm, tmp_path)
    shutil.rmtree(tmp_path / "__pycache__", ignore_errors=True)
    assert sabotage.fails(harm, tmp_path)
    with pytest.raises(LabError, match="does not fit any more"):
        sabotage.apply(harm, tmp_path)
    with pytest.raises(LabError, match="test_none"):
        sabotage.fails(Harm(patch, "less.", ("test_counting.py::test_none",)), tmp_path)


def test_a_patch_that_names_no_test_is_refused(tmp_path: Path) -> None:
    (tmp_path / "01.patch").write_text("Harm: less.\n\ndiff --git a/x b/x\n")
    with pytest.raises(LabError, match="must begin with"):
        sabotage.read(tmp_path / "01.patch")
