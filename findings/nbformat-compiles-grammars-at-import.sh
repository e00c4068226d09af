#!/usr/bin/env bash
# Guess: importing nbformat, which reads and writes JSON files, costs what its few modules cost; whether JupyterLab is
#        installed beside it makes no difference to a program that only reads a notebook.
# Seen:  with what JupyterLab brings along, `import nbformat` builds 39 parsers from grammars, each anew in every process, and takes
#        several times as long as without. No notebook is read or checked for it. Every test process, every tool that
#        imports nbformat pays; a notebook is JSON, so who only reads cells can do without.
# Versions: nbformat 5.11.1, jsonschema 4.26.0, rfc3987-syntax 1.1.0, lark 1.3.1, CPython 3.11.
# Source: all read. nbformat imports jsonschema for its validator; jsonschema imports rfc3987_syntax if it is there, for
#         the formats of addresses; that one makes a parser for each rule of the RFC while it is imported. JupyterLab's
#         jupyter-events asks for jsonschema with its extra `format-nongpl`, which is how rfc3987-syntax comes in.
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT; cd "$work"
cat > look.py <<'LOOK'
import sys
import time

compiled = 0
try:
    import lark
except ImportError:
    pass
else:
    begin = lark.Lark.__init__

    def count(self, *arguments, **options):
        global compiled
        compiled += 1
        begin(self, *arguments, **options)

    lark.Lark.__init__ = count
began = time.process_time()
import nbformat

print(compiled, round(time.process_time() - began, 2), nbformat.__version__, sys.version.split()[0])
LOOK
look() { # with these packages: parsers, CPU seconds, versions
  python3 -m venv "$1"
  "$1/bin/pip" install -q nbformat==5.11.1 jsonschema==4.26.0 "${@:2}" 2>/dev/null
  "$1/bin/python" look.py >/dev/null # the first run compiles Python files
  "$1/bin/python" look.py
}
read -r none quick version python <<< "$(look without)"
read -r many slow _ _ <<< "$(look with rfc3987-syntax==1.1.0 lark==1.3.1)"
echo "import nbformat $version on CPython $python: $none parsers and $quick s of CPU without rfc3987-syntax, $many and $slow s with it"
[ "$none" = 0 ] && [ "$many" = 39 ]
python3 -c "import sys; sys.exit(not $slow > 3 * $quick)"
