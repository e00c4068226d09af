"""From the recorded figures of the contenders to tables: what was measured, and what to choose.

`figures` is what `contenders.measure` returns under "contenders": by contender, by figure. No
cell is typed; a need is a figure, and who is within reach of the best is chosen.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pandas as pd

from lab.contenders import ALL, CHAPTER, FAULTS

Figures = dict[str, Any]


# --- What was measured ----------------------------------------------------------------


def fault_table(figures: Figures) -> pd.DataFrame:
    """Each fault, each contender: smallest–largest count of the runs, and the slowest recovery."""
    rows = []
    for name in (*ALL, CHAPTER):
        for fault in FAULTS:
            if runs := figures[name]["faults"].get(fault):
                ended = [run["seconds"] for run in runs]
                rows.append(
                    {
                        "killed": fault,
                        "contender": name,
                        "missing": counts([run["missing"] for run in runs]),
                        "twice": counts([run["twice"] for run in runs]),
                        "all there after": "never" if None in ended else f"{max(ended):.0f} s",
                    }
                )
    order = {fault: place for place, fault in enumerate(FAULTS)}
    return pd.DataFrame(rows).sort_values("killed", key=lambda column: column.map(order))


def counts(values: list[int]) -> str:
    low, high = min(values), max(values)
    return str(low) if low == high else f"{low}–{high}"


# --- What to choose -------------------------------------------------------------------


@dataclass(frozen=True)
class Need:
    """Something that you may need, as a figure: `value` of one contender, None if it has none."""

    text: str
    value: Callable[[Figures], float | None]
    form: str
    most: bool = False
    "Whether more is better."
    reach: float = 1.0
    "Chosen is who is within this factor of the best."

    def ranking(self, figures: Figures) -> dict[str, float]:
        """The figure of everyone who has one, the best first."""
        found = {name: self.value(each) for name, each in figures.items()}
        known = {name: value for name, value in found.items() if value is not None}
        return dict(sorted(known.items(), key=lambda item: -item[1] if self.most else item[1]))

    def chosen(self, figures: Figures) -> list[str]:
        """Who comes within reach of the best."""
        ranking = self.ranking(figures)
        best = next(iter(ranking.values()))
        if self.most:
            return [name for name, value in ranking.items() if value >= best / self.reach]
        return [name for name, value in ranking.items() if value <= best * self.reach]

    def last(self, figures: Figures) -> list[str]:
        """Who has the worst figure of all; more than one may have the same."""
        ranking = self.ranking(figures)
        worst = list(ranking.values())[-1]
        return [name for name, value in ranking.items() if value == worst]

    def words(self, figures: Figures, names: list[str]) -> str:
        """`Huey 1.1 ×, Dramatiq 1.2 ×`"""
        ranking = self.ranking(figures)
        return ", ".join(f"{name} {self.form.format(ranking[name])}" for name in names)


def middle(*path: str) -> Callable[[Figures], float | None]:
    """The median of a figure that was measured several times."""

    def value(figures: Figures) -> float | None:
        for key in path:
            if key not in figures:
                return None
            figures = figures[key]
        return float(figures["median"])

    return value


def worst(*columns: str) -> Callable[[Figures], float]:
    """The largest sum of these counts ("missing", "twice") over all faults and runs."""
    return lambda figures: max(
        float(sum(run[column] for column in columns))
        for runs in figures["faults"].values()
        for run in runs
    )


def worst_of(figures: Figures) -> dict[str, float]:
    """The largest count of mails missing, and of those that came twice, of one contender."""
    return {column: worst(column)(figures) for column in ("missing", "twice")}


def recovery(figures: Figures) -> float | None:
    """Seconds after which all was there, when the worker had been killed; None if ever never."""
    seconds = [run["seconds"] for run in figures["faults"]["worker"]]
    return None if None in seconds else max(seconds)


NEEDS = (
    Need("an answer soon", middle("accepted", "over bare"), "{:.1f} ×", reach=1.25),
    Need("work that begins at once", middle("accepted", "begun"), "{:.0f} ms", reach=2.0),
    Need("little to run", lambda each: each.get("processes"), "{:.0f}"),
    Need("many slots that wait", middle("newsletters"), "{:.0%}", most=True, reach=1.2),
    Need("slots that need little memory", middle("MiB a slot"), "{:.2f} MiB", reach=2.0),
    Need("work that computes", middle("reports"), "{:.0%}", most=True, reach=1.3),
    Need("no mail missing, whatever dies", worst("missing"), "{:.0f}"),
    Need("all there soon after a worker died", recovery, "{:.0f} s", reach=1.5),
    Need("no mail twice, whatever dies", worst("twice"), "{:.0f}"),
    Need("neither missing nor twice", worst("missing", "twice"), "{:.0f}", reach=3.0),
)
"""Reaches are wider than what two runs of the same thing differ by."""


def decision_table(figures: Figures) -> pd.DataFrame:
    """What to take for each need, with the figure, and what else there is, the best first."""
    rows = []
    for need in NEEDS:
        chosen = need.chosen(figures)
        others = [name for name in need.ranking(figures) if name not in chosen]
        rows.append(
            {
                "you need": need.text,
                "take": need.words(figures, chosen),
                "rather than": need.words(figures, others),
            }
        )
    return pd.DataFrame(rows)


READ = {
    "Celery": "Redis, RabbitMQ, SQS; schedules (beat), chains and chords, rate limits, Flower",
    "RQ": "Redis only; jobs that depend on others, schedules; a job is a plain function",
    "Dramatiq": "Redis, RabbitMQ; groups and pipelines; for schedules you take another package",
    "Huey": "Redis, PostgreSQL, SQLite or files; schedules; pipelines and chords",
    "FastAPI": "nothing to run beside it; nothing that survives it",
    "Quart": "nothing to run beside it; nothing that survives it; Flask's own words",
}
"""From their documentation: read, not measured."""


def verdicts(figures: Figures) -> pd.DataFrame:
    """For each contender the needs for which it is taken, those it is last at, and what it has."""
    rows = []
    for name in (*ALL, CHAPTER):
        rows.append(
            {
                "": name,
                "take it for": listed(need for need in NEEDS if name in need.chosen(figures)),
                "last at": listed(need for need in NEEDS if name in need.last(figures)),
                "it also has (read, not measured)": READ.get(name, "all that Celery has"),
            }
        )
    return pd.DataFrame(rows)


def listed(needs: Any) -> str:
    return "; ".join(need.text for need in needs) or "–"
