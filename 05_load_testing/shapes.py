"""How many users, at each second of a run. `--users` is the most, `--run-time` the length."""

import math
from typing import Any

from locust import LoadTestShape

Tick = tuple[int, float] | None
"""Users, and how many may start in a second; None ends the run."""


class Shape(LoadTestShape):
    """`share` says which part of `--users` there are, when this part of the time has passed."""

    abstract = True
    use_common_options = True

    def share(self, passed: float) -> float:
        raise NotImplementedError

    def tick(self) -> Tick:
        assert self.runner is not None  # noqa: S101  (for the types)
        options: Any = self.runner.environment.parsed_options
        passed = self.get_run_time() / (options.run_time or 60)
        if passed >= 1:
            return None
        return max(1, round(options.num_users * self.share(passed))), 100


class Steps(Shape):
    """Five steps upwards: what does each more cost?"""

    def share(self, passed: float) -> float:
        return (math.floor(passed * 5) + 1) / 5


class Spike(Shape):
    """A tenth; all at once; a tenth: how long until it is over?"""

    def share(self, passed: float) -> float:
        return 1.0 if 0.3 <= passed < 0.5 else 0.1


class Ramp(Shape):
    """More and more: where is the knee?"""

    def share(self, passed: float) -> float:
        return passed


class Soak(Shape):
    """Six days with their nights: what is left over, and what has grown?"""

    def share(self, passed: float) -> float:
        return 0.55 - 0.45 * math.cos(passed * 6 * 2 * math.pi)
