"""What a notebook needs beside its measurements: sizes, progress, and claims that can fail.

from lab.classroom import claim, progress, sized

rounds = sized(5, quick=2)
shares = [measure() for _ in progress(range(rounds), "one slot")]
claim("one slot reaches its limit", median(shares), at_least=0.9, broken=0.6)
"""

import os
from collections.abc import Iterable
from typing import TypeVar

from tqdm import tqdm

QUICK = os.environ.get("QUICK", "") not in ("", "0")
"""Whether this run only has to show that the notebook works (`QUICK=1`): small and short."""

T = TypeVar("T")


def sized(full: T, quick: T) -> T:
    """`full`, or `quick` in a quick run."""
    return quick if QUICK else full


def progress(things: Iterable[T], text: str = "") -> Iterable[T]:
    """The things one by one, with a bar that says how far the loop is."""
    return tqdm(things, desc=text, leave=False, ascii=" █")


def claim(
    text: str,
    value: float,
    *,
    at_least: float | None = None,
    at_most: float | None = None,
    broken: float | None = None,
) -> None:
    """Hold `value` against a bound, and print the outcome; there are three.

    It holds. Or it is beyond `broken`, where no noise brings it: AssertionError. Or it lies in
    between: too noisy to tell, and you run the notebook again. Without `broken` nothing lies in
    between: that is for what is counted.
    """
    if (at_least is None) == (at_most is None):
        raise TypeError("Say either at_least or at_most.")
    sign = 1 if at_most is None else -1
    bound = at_least if at_most is None else at_most
    assert bound is not None
    limit = bound if broken is None else broken
    shown = f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"
    words = f"{text}: {shown}, and it should be at {'least' if sign > 0 else 'most'} {bound:g}"
    if sign * value >= sign * bound:
        print(f"✓ {text}: {shown}")
    elif sign * value >= sign * limit:
        print(f"~ {words}. Too noisy to tell: close other programs, and run all cells again.")
    else:
        raise AssertionError(f"✗ {words}. This is more than noise: something is broken.")
