"""Screening: which drafts deserve a training, judged by a predictor that must first earn its trust."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Iterator, Sequence

from pydantic import BaseModel, ConfigDict

from cambrian.agents.evaluator.predictor import Predictor, TreePredictor, kendall_tau
from cambrian.agents.sections import PredictorSection
from cambrian.search_spaces import Genotype, Space

GROWTH = 1.2
"""The predictor is fitted anew when the number of observed scores has grown by this factor ..."""
MIN_GROWTH = 5
"""... and by this many: so all fits together cost O(n), and none follows another at once."""


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


def fit_counts(first: int) -> Iterator[int]:
    """The numbers of observations at which the predictor is fitted: `first`, then growing geometrically."""
    count = first
    while True:
        yield count
        count = max(int(count * GROWTH) + 1, count + MIN_GROWTH)


class Screen:
    """A predictor that watches, and speaks up once its cross-validated rank correlation is good enough.

    Every decision is a function of the ordered list of (genotype, score) observed so far, and of nothing
    else: a resumed run that shows it the same list gets the same decisions.

    It predicts the score under the run's own recipe at the lowest rung, so show it scores of one rung only.
    The control arm must not be screened, which is the caller's to see to: its scores are the yardstick.

    Args:
        config: when it may speak.
        space: gives the features.
        maximize: whether a higher score is better.
        seed: of the predictor.
        predictor: None takes `TreePredictor`.
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
        predictor: Predictor | None = None,
        optimism: float = 1.0,
    ) -> None:
        self._config, self._space, self._optimism = config, space, optimism
        self._sign = 1.0 if maximize else -1.0
        self._predictor: Predictor = predictor or TreePredictor(maximize=maximize, seed=seed)
        self._forget()

    def observe(self, genotype: Genotype, score: float, prediction: float | None = None) -> None:
        """Learn that the canonical `genotype` scored `score`.

        Args:
            genotype: of the candidate.
            score: what it reached.
            prediction: what `verdict` had predicted for it before it was trained; only for `running_tau`.
        """
        self._features.append(self._space.features(genotype))
        self._scores.append(score)
        if prediction is not None:
            self._foretold.append((prediction, score))

    def rebuild(
        self, observations: Iterable[tuple[Genotype, float] | tuple[Genotype, float, float | None]]
    ) -> None:
        """Forget everything, then observe all of `observations` in order: what a resumed run does."""
        self._forget()
        for observation in observations:
            self.observe(*observation)

    @property
    def trust(self) -> float | None:
        """Cross-validated Kendall tau of the predictor as last fitted."""
        return self._predictor.trust if self._fit() else None

    @property
    def trusted(self) -> bool:
        """Whether its opinion counts: enabled, enough observed, and a tau of at least `min_tau`."""
        return self._fit() and (self._predictor.trust or 0.0) >= max(self._config.min_tau, 1e-9)

    @property
    def running_tau(self) -> float | None:
        """Kendall tau of the predictions made before training against the scores afterwards."""
        predicted, scores = zip(*self._foretold, strict=True) if self._foretold else ((), ())
        return kendall_tau(predicted, scores)

    def choose(self, drafts: Sequence[Genotype]) -> int:
        """Index of the draft with the best optimistic bound; 0, the arm's favourite, while it abstains."""
        if len(drafts) < 2 or not self.trusted:
            return 0
        means, stds = self._predictor.predict([self._space.features(draft) for draft in drafts])
        return int((self._sign * means + self._optimism * stds).argmax())

    def verdict(self, genotype: Genotype) -> Screening:
        """Whether the canonical `genotype` is worth a training.

        A proposal is dropped when even its optimistic bound is worse than the median of all observed.
        """
        if not self._fit():
            return Screening()
        means, stds = self._predictor.predict([self._space.features(genotype)])
        mean, std = float(means[0]), float(stds[0])
        bound = mean + self._sign * self._optimism * std
        keep = not self.trusted or self._sign * bound >= self._sign * self._bar
        said = f"predicted {mean:.4g} ± {std:.2g}"
        if not keep:
            tau = self._predictor.trust
            said += f": even {bound:.4g} is worse than the median {self._bar:.4g}, tau {tau:.2f}"
        return Screening(predicted=mean, std=std, keep=keep, reason=said)

    def _forget(self) -> None:
        self._features: list[dict[str, float]] = []
        self._scores: list[float] = []
        self._foretold: list[tuple[float, float]] = []
        self._counts = fit_counts(self._config.min_evaluations)
        self._next_fit = next(self._counts)
        self._fitted_at = 0
        self._bar = 0.0

    def _fit(self) -> bool:
        """Whether there is a predictor; fits it first when one of the counts has been passed.

        The fit takes the first `count` observations even when more are there: so it does not matter when
        somebody asks, and a resumed run fits once instead of replaying every fit.
        """
        if not self._config.enabled:
            return False
        due = 0
        while self._next_fit <= len(self._scores):
            due, self._next_fit = self._next_fit, next(self._counts)
        if due:
            self._predictor.fit(self._features[:due], self._scores[:due])
            self._bar = statistics.median(self._scores[:due])
            self._fitted_at = due
        return self._fitted_at > 0
