"""Screening: which drafts deserve a training, judged by a predictor that must first earn its trust."""

from __future__ import annotations

import math
import statistics
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

from pydantic import BaseModel, ConfigDict

from cambrian.agents.evaluator.encoding import PROXY, Encoding, encode
from cambrian.agents.evaluator.phrases import in_words
from cambrian.agents.evaluator.predictors import open_predictor
from cambrian.agents.evaluator.predictors.protocol import Predictor, kendall_tau
from cambrian.agents.sections import PredictorSection
from cambrian.search_spaces import Genotype, Space

GROWTH = 1.2
"""The predictor is fitted anew when the number of observed scores has grown by this factor ..."""
MIN_GROWTH = 5
"""... and by this many: so all fits together cost O(n), and none follows another at once."""
MOST_TOLD = 6
"""Features and motifs that a planner is told of."""
LOOK_BACK = 50
"""Predictions of the newest candidates that the running correlation is judged by ..."""
LEAST = 12
"""... and how many it takes."""
_SURE = 1.645
"""Standard errors: trust is withdrawn where the running correlation is too low with 95 % confidence."""


class Screening(BaseModel):
    """What the predictor thinks of one proposal.

    Attributes:
        predicted: expected score, None while there is no fitted predictor.
        std: its uncertainty, in units of the score.
        keep: False only when the predictor is trusted and sees no chance.
        reason: one line, for people and for the planner; empty while the predictor abstains.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    predicted: float | None = None
    std: float | None = None
    keep: bool = True
    reason: str = ""


def fit_counts(first: int, growth: float = GROWTH, least: int = MIN_GROWTH) -> Iterator[int]:
    """The numbers of observations at which a model is fitted: `first`, then growing geometrically.

    Args:
        first: the first of them.
        growth: factor from one to the next.
        least: by how many the next is larger at least.
    """
    count = first
    while True:
        yield count
        count = max(int(count * growth) + 1, count + least)


class Known(NamedTuple):
    """What was found of a candidate beyond its genotype.

    Attributes:
        proxies: zero-cost proxies by name.
        motifs: those of its computation graph.
    """

    proxies: Mapping[str, float] = MappingProxyType({})
    motifs: Mapping[str, float] = MappingProxyType({})


NOTHING = Known()


class Observation(NamedTuple):
    """A candidate and what it reached.

    Attributes:
        genotype: canonical.
        score: at the lowest rung.
        prediction: what `verdict` had said of it before it was trained; only for the running correlation.
        known: what an examination found.
    """

    genotype: Genotype
    score: float
    prediction: float | None = None
    known: Known = Known()


class Screen:
    """A predictor that watches, and speaks up once its cross-validated rank correlation is good enough.

    It falls silent again when its predictions of the newest candidates, made before they were trained, rank
    them worse than `min_tau` with 95 % confidence; then nothing is dropped, so that what follows can prove it
    right again.

    Every decision is a function of the ordered list of what was observed so far, and of nothing else: a
    resumed run that shows it the same list gets the same decisions. Threads may share it.

    It predicts the score under the run's own recipe at the lowest rung, so show it scores of one rung only.
    The control arm must not be screened, which is the caller's to see to: its scores are the yardstick.

    Args:
        config: when it may speak, and which predictor.
        space: gives the features.
        maximize: whether a higher score is better.
        seed: of the predictor.
        make: a factory of predictors; None takes those that `config` names.
        earlier: what earlier runs observed; learned from, and never counted as this run's.
        optimism: standard deviations added to a prediction in favour of the proposal, so that the unknown is
            tried rather than avoided.
    """

    def __init__(
        self,
        config: PredictorSection,
        space: Space,
        *,
        maximize: bool,
        seed: int,
        make: Callable[[], Predictor] | None = None,
        earlier: Sequence[Observation] = (),
        optimism: float = 1.0,
    ) -> None:
        self._config, self._space, self._optimism = config, space, optimism
        self._sign = 1.0 if maximize else -1.0
        self._make = make or (lambda: open_predictor(config.model, maximize=maximize, seed=seed))
        self._earlier = tuple(earlier)
        self._lock = threading.RLock()
        self._told: list[tuple[str, float]] | None = None
        self._forget()

    def observe(
        self, genotype: Genotype, score: float, prediction: float | None = None, known: Known = NOTHING
    ) -> None:
        """Learn that the canonical `genotype` scored `score`; see `Observation`."""
        with self._lock:
            self._seen.append(Observation(genotype, score, prediction, known))
            if prediction is not None:
                self._foretold.append((prediction, score))

    def rebuild(self, observations: Iterable[Observation]) -> None:
        """Forget everything, then observe all of `observations` in order: what a resumed run does."""
        with self._lock:
            self._forget()
            for observation in observations:
                self.observe(*observation)

    @property
    def trust(self) -> float | None:
        """Cross-validated Kendall tau of the predictor as last fitted."""
        with self._lock:
            return self._predictor.trust if self._fit() else None

    @property
    def trusted(self) -> bool:
        """Whether its opinion counts: enabled, enough observed, a tau of at least `min_tau`, no doubt."""
        with self._lock:
            least = max(self._config.min_tau, 1e-9)
            return self._fit() and (self._predictor.trust or 0.0) >= least and not self.doubt

    @property
    def doubt(self) -> str:
        """Why its trust is withdrawn; empty while its predictions come true."""
        with self._lock:
            newest = self._foretold[-LOOK_BACK:]
        tau = _correlation(newest)
        if tau is None or len(newest) < LEAST:
            return ""
        # the standard error of tau where nothing is related: at most a tenth too large for what matters here
        n = len(newest)
        error = math.sqrt(2 * (2 * n + 5) / (9 * n * (n - 1)))
        if tau + _SURE * error >= self._config.min_tau:
            return ""
        return f"tau {tau:.2f} on its last {n} predictions"

    @property
    def running_tau(self) -> float | None:
        """Kendall tau of the predictions made before training against the scores afterwards."""
        with self._lock:
            return _correlation(self._foretold)

    @property
    def model(self) -> str:
        """Name of the predictor that is asked; of several the one that is chosen now."""
        return str(getattr(self._predictor, "chosen", self._config.model))

    def what_matters(self) -> list[str]:
        """Features and motifs that predictions depend on most, in words; empty while it is not trusted."""
        with self._lock:
            if not self.trusted:
                return []
            found = self._told = self._told or self._predictor.what_matters(MOST_TOLD)
        better = {name: "more" if self._sign * effect > 0 else "less" for name, effect in found if effect}
        return [f"{in_words(name)}: {word} is better" for name, word in better.items()]

    def choose(self, drafts: Sequence[Genotype]) -> int:
        """Index of the draft with the best optimistic bound; 0, the arm's favourite, while it abstains."""
        with self._lock:
            if len(drafts) < 2 or not self.trusted:
                return 0
            means, stds = self._plain().predict([self._encoding(draft) for draft in drafts])
        return int((self._sign * means + self._optimism * stds).argmax())

    def verdict(self, genotype: Genotype, known: Known = NOTHING) -> Screening:
        """Whether the canonical `genotype` is worth a training.

        A proposal is dropped when even its optimistic bound is worse than the median of all observed.

        Args:
            genotype: of the candidate.
            known: what an examination found of it.
        """
        with self._lock:
            if not self._fit():
                return Screening()
            predictor, encoding = self._predictor, self._encoding(genotype, known, self._proxies)
            if not self._proxies <= known.proxies.keys():  # its examination found less than the others'
                predictor, encoding = self._plain(), self._encoding(genotype)
            means, stds = predictor.predict([encoding])
            mean, std = float(means[0]), float(stds[0])
            bound = mean + self._sign * self._optimism * std
            keep = not self.trusted or self._sign * bound >= self._sign * self._bar
            tau = self._predictor.trust
        said = f"predicted {mean:.4g} ± {std:.2g}"
        if not keep:
            said += f": even {bound:.4g} is worse than the median {self._bar:.4g}, tau {tau:.2f}"
        return Screening(predicted=mean, std=std, keep=keep, reason=said)

    def _forget(self) -> None:
        self._seen: list[Observation] = list(self._earlier)
        self._foretold: list[tuple[float, float]] = []
        self._counts = fit_counts(max(self._config.min_evaluations, len(self._earlier)))
        self._next_fit = next(self._counts)
        self._fitted_at = 0
        self._bar = 0.0
        self._predictor = self._make()
        self._simple: Predictor | None = None
        self._told = None
        self._proxies: frozenset[str] = frozenset()

    def _fit(self) -> bool:
        """Whether there is a predictor; fits it first when one of the counts has been passed.

        The fit takes the first `count` observations even when more are there: so it does not matter when
        somebody asks, and a resumed run fits once instead of replaying every fit.
        """
        if not self._config.enabled:
            return False
        due = 0
        while self._next_fit <= len(self._seen):
            due, self._next_fit = self._next_fit, next(self._counts)
        if due:
            seen = self._seen[:due]
            scores = [each.score for each in seen]
            self._proxies = frozenset(seen[0].known.proxies).intersection(*(o.known.proxies for o in seen))
            self._predictor.fit([self._encoding(o.genotype, o.known, self._proxies) for o in seen], scores)
            self._bar = statistics.median(scores)
            self._fitted_at, self._simple, self._told = due, None, None
        return self._fitted_at > 0

    def _plain(self) -> Predictor:
        """The predictor of drafts, of which no examination has found anything yet."""
        seen = self._seen[: self._fitted_at]
        if not self._proxies and not any(o.known.motifs for o in seen):
            return self._predictor
        if self._simple is None:
            self._simple = self._make()
            self._simple.fit([self._encoding(o.genotype) for o in seen], [o.score for o in seen])
        return self._simple

    def _encoding(
        self, genotype: Genotype, known: Known = NOTHING, proxies: frozenset[str] = frozenset()
    ) -> Encoding:
        """The genotype's own encoding with `proxies`, and with known motifs where the space has none."""
        own = encode(self._space, genotype)
        if not proxies and (own.motifs or not known.motifs):
            return own
        found = {PROXY + name: known.proxies[name] for name in proxies if name in known.proxies}
        return Encoding({**own.numbers, **found}, own.motifs or known.motifs)


def _correlation(pairs: Sequence[tuple[float, float]]) -> float | None:
    predicted, scores = zip(*pairs, strict=True) if pairs else ((), ())
    return kendall_tau(predicted, scores)
