#!/usr/bin/env bash
# Guess: tests marked with `xdist_group` run in one process under `--dist loadgroup`, with any pytest that pip installs
#        beside pytest-xdist; or there is an error.
# Seen:  with pytest 9.2.0 the mark is read and has no effect: nothing is said, no id ends with `@name` any more, and the
#        tests of one group are spread over the processes. With pytest 9.1.1 they stay together. A fixture that is shared
#        by a group is then set up in each process: a suite becomes slow, or two of its tests meet each other.
# Versions: pytest-xdist 3.8.0 (its requirement is pytest>=7, so pip takes 9.2.0), pytest 9.2.0 and 9.1.1, CPython 3.11.
# Source: both read. xdist appends the group to `item._nodeid`, from which pytest 9.2 does not build `item.nodeid` any more.
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT; cd "$work"
cat > test_group.py <<'TESTS'
import os

import pytest


@pytest.mark.xdist_group("one")
@pytest.mark.parametrize("number", range(20))
def test_where(number):
    with open(os.environ["SEEN"], "a") as seen:
        seen.write(os.environ["PYTEST_XDIST_WORKER"] + "\n")
TESTS
python3 -m venv v
processes() { # with this pytest: in how many processes did the one group run?
  v/bin/pip install -q "pytest==$1" pytest-xdist==3.8.0 2>/dev/null
  export SEEN="$work/seen-$1"
  v/bin/python -m pytest -q -p no:cacheprovider -n 2 --dist loadgroup test_group.py > "printed-$1" 2>&1
  sort -u "$SEEN" | wc -l
}
new=$(processes 9.2.0); old=$(processes 9.1.1)
echo "pytest-xdist 3.8.0, one group of 20 tests, two processes: pytest 9.2.0 ran it in $new of them, pytest 9.1.1 in $old"
! grep -qi "warn\|error" printed-9.2.0
[ "$new" = 2 ] && [ "$old" = 1 ]
