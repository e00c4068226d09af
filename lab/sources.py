"""Where the numbers in prose come from.

What was measured stands in a table that cog writes. Every other number stands in `sources.toml`, by
its page and its source: a setting in the code, arithmetic, a premise, or a fact from outside.
"""

import ast
import json
import math
import operator
import re
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lab.chapters import LabError

FILE = "lab/sources.toml"
GIVEN, FACT = "given", "fact: "
"""Sources that nothing here can verify: the premise of a question; what is said elsewhere."""

NOT_PROSE = [
    r"(?<=^\]\]\] -->).*?(?=<!-- \[\[\[end)",  # what cog wrote
    r"<!--(?! \[\[\[).*?-->",
    r"^( *)```.*?^\1```",
    r"`[^`\n]+`",
    r"(?<=\])\([^)]*\)",  # where a link leads
    r"<https?:[^>]*>",
]
UNIT = (
    r"[\s-]?(?:%|×(?! ?[√\d])|of 100\b|(?:ms|s|min|[kMGT]i?B)\b|times\b"
    r"|(?:millisecond|second|minute|hour|day)s?\b|an? (?:second|minute|hour|day)\b)"
)
VERSION = r"\d+(?:\.\d+)*"
NO_AMOUNT = [
    r"^ *\d+\. ",  # in a list
    r"\b0[0-7]\b(?!\.\d)",  # a chapter or a notebook
    rf"\b(?:Python|Redis|Debian|Socket\.IO|[Vv]ersion) {VERSION}\b(?!{UNIT})"
    rf"(?:(?:, | or | and ){VERSION}\b(?!{UNIT}))*",
    r"(?<![\w.])\d+\.\d+\.\d+\b",  # a version: an amount has no second point
    r"\b[Pp]ort \d+",
    rf"\b(?:101|202|40[0-4]|429|50[0-4]|[45]xx)\b(?!{UNIT})",  # a status of HTTP
    r"(?<=For instructors · )\d+ minutes",  # a test compares them with the plan
]
ONES = ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
TEENS = ["ten", "eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen"]
TENS = ["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]
WORDS = {
    **{
        f"{ten}-{one}": 10 * n + m for n, ten in enumerate(TENS, 2) for m, one in enumerate(ONES, 1)
    },
    **{ten: 10 * n for n, ten in enumerate(TENS, 2)},
    **dict(zip([*ONES[1:], *TEENS, "eighteen", "nineteen"], range(2, 20), strict=True)),
    "hundred": 100,
}
"""The numbers that are written in words. "One" is no number: it is an article, as often as not."""

DIGITS = r"(?<![\w.])\d+(?:[ ,]\d{3}\b)*(?:\.\d+)?"
NUMBER = re.compile(
    rf"(?P<digits>{DIGITS})(?P<unit>{UNIT})?"
    rf"|\b(?P<word>(?i:{'|'.join(WORDS)}))(?P<word_unit>(?=[\s-]){UNIT})"
)
IN_CODE = r"(?<![\w.])\d[\d_]*(?:\.\d+)?"
SCALES = {
    "ms": 0.001,
    "milliseconds": 0.001,
    "min": 60.0,
    "minutes": 60.0,
    "hours": 3600.0,
    "days": 86_400.0,
    "%": 0.01,
    "of 100": 0.01,
}
"""What code has instead: seconds, and parts of one."""

TERM = rf"√?{DIGITS}(?:{UNIT}| mails| slots)?"
SUM = re.compile(rf"({TERM}(?: [×/+−-] {TERM})+) = ({DIGITS})")
OPERATORS: dict[type[ast.operator], Callable[[float, float], float]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.Pow: operator.pow,
}


@dataclass(frozen=True)
class Number:
    """A number that a page types: its place, its digits and its unit, if it has one."""

    start: int
    end: int
    digits: str
    unit: str

    def says(self, value: float) -> bool:
        """Whether it is a value of the code, rounded to its last digit: 200 ms are 200, or 0.2."""
        scales = (1.0, SCALES.get(self.unit, 1.0))
        return any(rounds_to(value / scale, self.digits) for scale in scales)

    def is_among(self, literals: list[float]) -> bool:
        """Whether a notebook's code has it too, so that its outputs and claims are about it."""
        value = to_float(self.digits) * SCALES.get(self.unit, 1.0)
        return any(math.isclose(value, literal) for literal in literals)


@dataclass(frozen=True)
class Sources:
    """What `sources.toml` says: by page and source its words, and by name the settings' values."""

    pages: dict[str, dict[str, list[str]]]
    settings: dict[str, float]


def load(root: Path) -> Sources:
    """Raises LabError for a setting that is not there."""
    declared: dict[str, dict[str, Any]] = tomllib.loads((root / FILE).read_text())
    settings = read_settings(root, declared.pop("settings"))
    return Sources(declared, settings)


def check(root: Path, pages: list[Path]) -> list[str]:
    """Every number without a source, and every source that is not that of its number."""
    known = load(root)
    texts = {str(page.relative_to(root)): read(page) for page in pages}
    complaints = [f"{FILE}: there is no page {name}." for name in known.pages if name not in texts]
    for name, (text, code) in texts.items():
        complaints += [f"{name}: {found}" for found in check_page(known, name, text, code)]
    return complaints


def check_page(known: Sources, name: str, text: str, code: str) -> Iterator[str]:
    results = {found.start(2) for found in sums(text)}
    literals = [to_float(literal) for literal in re.findall(IN_CODE, code)]
    numbers = [
        number
        for number in find(text)
        if number.start not in results and not number.is_among(literals)
    ]
    explained: set[Number] = set()
    for source, phrases in known.pages.get(name, {}).items():
        for phrase in phrases:
            said = within(phrase, text, numbers)
            if not said:
                yield f"{FILE} explains “{phrase}”, and no number there needs it."
            explained.update(said)
            yield from contradiction(phrase, said, source, known.settings)
    for number in numbers:
        if number not in explained:
            around = " ".join(text[max(0, number.start - 40) : number.end + 20].split())
            yield f"{number.digits} has no source in {FILE}: “… {around} …”"
    yield from wrong_sums(text)


def contradiction(
    phrase: str, said: list[Number], source: str, settings: dict[str, float]
) -> Iterator[str]:
    if source == GIVEN or source.startswith(FACT):
        return
    value = evaluate(source, settings)
    if not all(number.says(value) for number in said):
        yield f"“{phrase}” should be {source}, which is {value:g}."


# --- What a page says -----------------------------------------------------------------


def read(page: Path) -> tuple[str, str]:
    """The Markdown of a page; and the code, if it is a notebook."""
    if page.suffix != ".ipynb":
        return page.read_text(), ""
    texts: dict[str, list[str]] = {"markdown": [], "code": []}
    for cell in json.loads(page.read_text())["cells"]:
        texts[cell["cell_type"]].append("".join(cell["source"]))
    return "\n\n".join(texts["markdown"]), "\n".join(texts["code"])


def find(text: str) -> list[Number]:
    """The numbers in prose, but for those that are no amount, such as a chapter's."""
    return [
        Number(
            found.start(),
            found.end(),
            found["digits"] or str(WORDS[found["word"].lower()]),
            (found["unit"] or found["word_unit"] or "").strip(" -\n"),
        )
        for found in NUMBER.finditer(blank(NOT_PROSE + NO_AMOUNT, text))
    ]


def blank(patterns: list[str], text: str) -> str:
    """The text without what the patterns match; all that stays keeps its place."""

    def blanks(found: re.Match[str]) -> str:
        return re.sub(r"[^\n]", "~", found[0])

    for pattern in patterns:
        text = re.sub(pattern, blanks, text, flags=re.DOTALL | re.MULTILINE)
    return text


def within(phrase: str, text: str, numbers: list[Number]) -> list[Number]:
    """The numbers that stand in a phrase, wherever its lines may break."""
    pattern = r"\s+".join(re.escape(word) for word in phrase.split())
    return [
        number
        for found in re.finditer(pattern, text)
        for number in numbers
        if found.start() <= number.start and number.end <= found.end()
    ]


def sums(text: str) -> Iterator[re.Match[str]]:
    """What is worked out before the reader's eyes, such as `5 × 0.2 s = 1 s`."""
    return SUM.finditer(blank(NOT_PROSE, text))


def wrong_sums(text: str) -> Iterator[str]:
    """Those that are not so."""
    for found in sums(text):
        terms = re.sub(rf"({DIGITS})(?:{UNIT}| mails| slots)?", r"\1", found[1])
        for sign, python in (("×", "*"), ("−", "-"), (" ", ""), (",", "")):
            terms = terms.replace(sign, python)
        value = evaluate(re.sub(r"√([\d.]+)", r"\1**0.5", terms), {})
        if not rounds_to(value, found[2]):
            yield f"“{found[0]}” is not so: it is {value:g}."


# --- What the code says ---------------------------------------------------------------


def read_settings(root: Path, declared: dict[str, str]) -> dict[str, float]:
    """Each setting's default: the first number after its name, in its file; or after other words.

    Raises LabError for a setting that is not there.
    """
    settings = {}
    for name, place in declared.items():
        file, _, words = place.partition(": ")
        after = re.escape(words) if words else rf"\b{name}\b"
        found = re.search(rf"{after}[^\d\n]*({IN_CODE})", (root / file).read_text())
        if found is None:
            raise LabError(f"{FILE}: {file} sets no {name}.")
        settings[name] = to_float(found[1])
    return settings


def evaluate(source: str, settings: dict[str, float]) -> float:
    """The value of a setting, or of arithmetic with settings and numbers.

    Raises LabError for a source that is neither.
    """
    try:
        return value_of(ast.parse(source, mode="eval").body, settings)
    except (SyntaxError, ValueError):
        raise LabError(
            f"{FILE}: {source!r} is no source. One is {GIVEN!r}, '{FACT}…', or arithmetic "
            "with numbers and the names in [settings]."
        ) from None


def value_of(node: ast.expr, settings: dict[str, float]) -> float:
    match node:
        case ast.BinOp(left, sign, right) if type(sign) in OPERATORS:
            return OPERATORS[type(sign)](value_of(left, settings), value_of(right, settings))
        case ast.Name(name) if name in settings:
            return settings[name]
        case ast.Constant(int() | float() as value):
            return value
    raise ValueError(node)


def to_float(digits: str) -> float:
    return float(re.sub("[ ,_]", "", digits))


def rounds_to(value: float, digits: str) -> bool:
    """Whether a value, rounded as `digits` are, is what they say: 1.67 is 1.7, and not 1.6."""
    places = len(digits.partition(".")[2])
    return math.isclose(value, to_float(digits), abs_tol=0.5000001 * 10**-places, rel_tol=0)
