"""How far zero-cost proxies can be trusted in a space: told by the candidates that were trained there.

A proxy is fitted to nothing, so every score that comes in is news to it. Its rank correlation with them runs
along; until that is beyond doubt the proxy is advice, afterwards it may keep hopeless candidates from being
trained.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

MIN_EVALUATIONS = 20
"""Scores that a proxy must have been seen with before it may filter."""
CONFIDENCE_Z = 2.326
"""Standard errors below the correlation where its lower bound lies: one-sided, 99 %. Higher than usual, as
several proxies are looked at after every score."""
LOWEST = 0.1
"""A proxy that filters drops at most what is below this share of the values seen so far ..."""
BEST = 0.25
"""... and nothing that is not worse than each of this share of the candidates, the best by score."""


SHOWN = 4
"""Records in a line for people; the report as JSON has all."""


class RankRecord(BaseModel):
    """How an estimator ranked the candidates that it had not seen.

    Attributes:
        name: of the estimator, such as `synflow`.
        tau: Kendall's tau-b of its numbers with the scores, positive where more is better; None while
            undefined: under two candidates, or no variation.
        rho: Spearman's rank correlation, likewise.
        low: what |tau| exceeds with 99 % confidence; 0 while nothing can be said.
        n: candidates behind it.
        role: `filters` when its opinion may end a candidate, else `advice`; None where that is not known.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    tau: float | None = Field(default=None, ge=-1, le=1)
    rho: float | None = Field(default=None, ge=-1, le=1)
    low: float = Field(default=0.0, ge=0, le=1)
    n: int = Field(default=0, ge=0)
    role: Literal["filters", "advice"] | None = None

    def __str__(self) -> str:
        tau = "no tau yet" if self.tau is None else f"tau {self.tau:.2f}"
        return f"{self.name} {tau} on {self.n}" + (f", {self.role}" if self.role else "")


class ProxyVerdict(BaseModel):
    """What the proxies say of one candidate; `reason` is empty when they let it pass."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    keep: bool = True
    reason: str = ""


class ProxyTrust:
    """Watches proxies of candidates and their scores.

    Everything is a function of what it has seen, in whatever order: a resumed run that shows it the same goes
    on as an unbroken one. Show it scores of one rung and one metric only. Control arms are not to be
    filtered, which is the caller's to see to. Threads may share it.

    Args:
        maximize: whether a higher score is better.
        min_tau: a proxy filters once |tau| exceeds this with 99 % confidence.
        min_evaluations: and once it was seen with so many scores.
        lowest: largest share of the values seen that a filter may drop.
    """

    def __init__(
        self,
        *,
        maximize: bool,
        min_tau: float = 0.3,
        min_evaluations: int = MIN_EVALUATIONS,
        lowest: float = LOWEST,
    ) -> None:
        self._sign = 1.0 if maximize else -1.0
        self._min_tau, self._min_evaluations, self._lowest = min_tau, min_evaluations, lowest
        self._lock = threading.RLock()
        self._seen: dict[str, tuple[list[float], list[float]]] = {}
        self._records: dict[str, RankRecord] = {}
        self._bars: dict[str, float] = {}

    def observe(self, proxies: Mapping[str, float], score: float) -> None:
        """Learn that a candidate with these `proxies` scored `score`; what is missing tells nothing."""
        with self._lock:
            for name, value in proxies.items():
                if math.isfinite(value) and math.isfinite(score):
                    values, scores = self._seen.setdefault(name, ([], []))
                    values.append(value)
                    scores.append(self._sign * score)
                    self._records.pop(name, None)
                    self._bars.pop(name, None)

    def rebuild(self, observations: Iterable[tuple[Mapping[str, float], float]]) -> None:
        """Forget everything, then observe all of `observations`."""
        with self._lock:
            self._seen, self._records, self._bars = {}, {}, {}
            for proxies, score in observations:
                self.observe(proxies, score)

    def verdict(self, proxies: Mapping[str, float]) -> ProxyVerdict:
        """Whether the candidate with these `proxies` is worth a training.

        It is dropped when a proxy that has proved itself puts it below a tenth of all that were seen, and
        below each of the best quarter.
        """
        for name in sorted(proxies):
            with self._lock:
                record = self._record(name)
                if record.role != "filters" or record.tau is None:
                    continue
                direction = math.copysign(1.0, record.tau)
                bar = self._bar(name, direction)
            if direction * proxies[name] < bar:
                side = "below" if direction > 0 else "above"
                return ProxyVerdict(
                    keep=False,
                    reason=f"proxy {name} is {proxies[name]:.4g}, {side} {direction * bar:.4g} where no good "
                    f"candidate was seen (tau {record.tau:.2f} on {record.n})",
                )
        return ProxyVerdict()

    def summary(self) -> tuple[RankRecord, ...]:
        """Every proxy that was seen, by name."""
        with self._lock:
            return tuple(self._record(name) for name in sorted(self._seen))

    def lines(self) -> list[str]:
        """The summary for people, see `rank_lines`."""
        return rank_lines(self.summary())

    def _record(self, name: str) -> RankRecord:
        if name not in self._records:
            values, scores = self._seen.get(name, ([], []))
            record = rank_record(name, values, scores)
            proved = record.n >= self._min_evaluations and record.low > self._min_tau
            self._records[name] = record.model_copy(update={"role": "filters" if proved else "advice"})
        return self._records[name]

    def _bar(self, name: str, direction: float) -> float:
        """What `direction` times a value must reach."""
        if name not in self._bars:
            values, scores = self._seen[name]
            better = [direction * value for value in values]
            low = sorted(better)[int(self._lowest * len(better))]
            good = sorted(scores)[-math.ceil(BEST * len(scores))]
            worst = min(value for value, score in zip(better, scores, strict=True) if score >= good)
            self._bars[name] = min(low, worst)
        return self._bars[name]


def rank_lines(records: Iterable[RankRecord], what: str = "proxies") -> list[str]:
    """One line for people, `filters` first, then by |tau|, `SHOWN` of them; none without records."""
    ranked = sorted(records, key=lambda r: (r.role != "filters", -abs(r.tau or 0.0), r.name))
    told = [str(record) for record in ranked[:SHOWN]]
    if len(ranked) > SHOWN:
        told.append(f"{len(ranked) - SHOWN} more")
    return [f"{what}: {'; '.join(told)}"] if told else []


def rank_record(name: str, estimates: Sequence[float], scores: Sequence[float]) -> RankRecord:
    """How `estimates` rank what later got `scores`, where higher is better."""
    n = len(scores)
    if n < 2 or min(estimates) == max(estimates) or min(scores) == max(scores):
        return RankRecord(name=name, n=n)
    from scipy.stats import kendalltau, spearmanr

    tau = _unit(kendalltau(estimates, scores).statistic)
    rho = _unit(spearmanr(estimates, scores).statistic)
    return RankRecord(name=name, tau=tau, rho=rho, low=tau_bound(tau, n), n=n)


def tau_bound(tau: float, n: int) -> float:
    """What the true |tau| exceeds with 99 % confidence, 0 when that is not known to be more.

    By Fisher's transformation, whose variance for tau is about 0.437 / (n - 4) (Fieller et al. 1957).
    """
    if n <= 4:
        return 0.0
    # at a tau of 1 the transformation has no end: take what one pair more, in the wrong order, would leave
    most = 1 - 2 / (n * (n - 1) / 2 + 1)
    return max(0.0, math.tanh(math.atanh(min(abs(tau), most)) - CONFIDENCE_Z * math.sqrt(0.437 / (n - 4))))


def _unit(value: float) -> float:
    return max(-1.0, min(1.0, float(value)))
