import random
from collections.abc import Sequence

import pytest

from cambrian.agents.evaluator.latency_screen import (
    LatencyEncoder,
    LatencyScreen,
    due_count,
    latency_limit,
    running_error,
)
from cambrian.agents.population.model import Candidate, CandidateState, Evaluation, Proposal
from cambrian.agents.sections import Constraint, PredictorSection
from cambrian.sandbox import Isolation, JobState, Latency
from cambrian.sandbox.examination.report import StaticFacts
from cambrian.search_spaces import SPACES, Genotype

SPACE = SPACES.create("mlp")
ENCODE = LatencyEncoder(SPACE)
ISOLATION = Isolation(level="process")


def milliseconds(genotype: Genotype) -> float:
    """Grows with depth and with size, as latency does."""
    numbers = SPACE.features(genotype)
    return 0.05 * numbers["blocks"] + 10 ** numbers["log_macs"] / 2e5


def facts(genotype: Genotype) -> StaticFacts:
    numbers = SPACE.features(genotype)
    return StaticFacts(
        parameters=int(10 ** numbers["log_params"]),
        flops=int(2 * 10 ** numbers["log_macs"]),
        peak_memory_mb=1.0,
        depth=int(numbers["depth"]),
    )


def candidates(n: int, seed: int = 0) -> list[Candidate]:
    rng = random.Random(seed)
    return [
        Candidate(
            id=f"c-{seed}-{i}",
            index=i,
            proposal=Proposal(arm="mutation", genotype=genotype),
            genotype=genotype,
            state=CandidateState.PROPOSED,
            static=facts(genotype),
        )
        for i, genotype in enumerate(SPACE.sample(rng) for _ in range(n))
    ]


def evaluation(
    candidate: Candidate, ms: float, *, device: str = "lab", state: JobState = JobState.TRAINED
) -> Evaluation:
    measured = Latency(
        device="cpu",
        threads=1,
        batch=1,
        warmup=1,
        repeats=3,
        median_ms=ms,
        q1_ms=ms,
        q3_ms=ms,
        alone=True,
        reference="none",
        reference_ms=0.5,
        ratio=ms / 0.5,
    )
    return Evaluation(
        candidate_id=candidate.id,
        rung=0,
        seed=0,
        epochs=1,
        state=state,
        latency=measured,
        device_name=device,
        isolation=ISOLATION,
    )


POOL = candidates(30, 7)
TIMES = sorted(milliseconds(c.genotype) for c in POOL)
LIMIT = TIMES[10]


def screen(limits: Sequence[str] = (f"latency_ms <= {LIMIT}",), *, enabled: bool = True) -> LatencyScreen:
    return LatencyScreen(PredictorSection(enabled=enabled), [Constraint.parse(c) for c in limits], ENCODE)


def watching(n: int, watcher: LatencyScreen | None = None, device: str = "lab") -> LatencyScreen:
    watcher = watcher or screen()
    for candidate in candidates(n):
        watcher.observe(candidate, evaluation(candidate, milliseconds(candidate.genotype), device=device))
    return watcher


class TestAbstention:
    @pytest.mark.parametrize(
        "watcher",
        [
            watching(9),
            watching(30, screen([])),
            watching(30, screen(["throughput >= 10", "params <= 1M"])),
            watching(30, screen(enabled=False)),
        ],
        ids=["few", "no limit", "other limits", "off"],
    )
    def test_says_nothing(self, watcher: LatencyScreen) -> None:
        verdict = watcher.verdict(POOL[0])
        assert verdict.keep and verdict.predicted is None and verdict.reason == ""
        assert watcher.describe() == "" and not watcher.trusted

    def test_ends_nobody_while_latencies_are_chance(self) -> None:
        watcher, rng = screen(), random.Random(0)
        for candidate in candidates(40):
            watcher.observe(candidate, evaluation(candidate, rng.uniform(1, 99)))
        verdicts = [watcher.verdict(candidate) for candidate in POOL]
        assert all(verdict.keep and verdict.predicted is not None for verdict in verdicts)
        assert "only watched" in watcher.describe()

    def test_stops_when_what_is_measured_belies_it(self) -> None:
        watcher = watching(30)
        assert watcher.trusted
        for candidate in candidates(6, 3):
            told = candidate.model_copy(update={"predicted_latency": watcher.verdict(candidate).predicted})
            watcher.observe(told, evaluation(told, 9 * milliseconds(candidate.genotype)))
        assert not watcher.trusted
        assert all(watcher.verdict(candidate).keep for candidate in POOL)


class TestTrusted:
    def test_drops_only_who_would_break_the_limit(self) -> None:
        watcher = watching(40)
        dropped = [c for c in POOL if not watcher.verdict(c).keep]
        assert len(dropped) >= 5
        assert all(milliseconds(c.genotype) > LIMIT for c in dropped)

    def test_reason_names_prediction_uncertainty_limit_and_error(self) -> None:
        watcher = watching(40)
        verdict = watcher.verdict(max(POOL, key=lambda c: milliseconds(c.genotype)))
        assert verdict.predicted is not None and f"{verdict.predicted:.3g} ms ±" in verdict.reason
        assert f"latency_ms <= {LIMIT:.15g}" in verdict.reason
        assert "lab" in verdict.reason and "Spearman" in verdict.reason and "\n" not in verdict.reason

    def test_a_limit_on_the_ratio_is_predicted_as_a_ratio(self) -> None:
        plain, ratio = watching(40), watching(40, screen([f"latency_ratio <= {LIMIT / 0.5}"]))
        worst = max(POOL, key=lambda c: milliseconds(c.genotype))
        told = plain.verdict(worst).predicted
        assert told is not None
        assert ratio.verdict(worst).predicted == pytest.approx(told / 0.5)
        assert not ratio.verdict(worst).keep

    def test_running_error_is_of_predictions_made_before(self) -> None:
        watcher = watching(30)
        for candidate in candidates(8, 3):
            told = candidate.model_copy(update={"predicted_latency": watcher.verdict(candidate).predicted})
            watcher.observe(told, evaluation(told, milliseconds(candidate.genotype)))
        assert "on the last 8 candidates it had not seen" in watcher.describe()
        assert "only watched" not in watcher.describe()


class TestWhatIsLearntFrom:
    def test_rebuilding_gives_the_same_verdicts(self) -> None:
        watcher = watching(27)
        said = [watcher.verdict(candidate) for candidate in POOL]
        fresh = screen()
        fresh.rebuild([(c, evaluation(c, milliseconds(c.genotype))) for c in candidates(27)])
        assert [fresh.verdict(candidate) for candidate in POOL] == said

    def test_a_measurement_counts_once(self) -> None:
        watcher, (candidate,) = watching(9), candidates(1, 5)
        for _ in range(3):
            watcher.observe(candidate, evaluation(candidate, 1.0))
        assert watching(9).verdict(POOL[0]).predicted is None
        assert "10 held-out" in watcher.describe()

    def test_what_is_not_believed_or_not_measured_does_not_count(self) -> None:
        watcher, others = watching(9), candidates(8, 5)
        for candidate in others:
            watcher.observe(candidate, evaluation(candidate, 1.0, state=JobState.NOT_REPRODUCED))
            watcher.observe(candidate, evaluation(candidate, 1.0).model_copy(update={"latency": None}))
        assert watcher.describe() == ""

    def test_measurements_of_another_device_are_another_devices(self) -> None:
        """A run that went on elsewhere: all is four times as slow there."""
        watcher = watching(40)
        for i, candidate in enumerate(candidates(12, 3)):
            watcher.observe(
                candidate, evaluation(candidate, 4 * milliseconds(candidate.genotype), device="new")
            )
            assert (watcher.verdict(POOL[0]).predicted is None) == (i < 9)  # no model of that device yet
        errors = []
        for candidate in POOL:
            predicted, truth = watcher.verdict(candidate).predicted, 4 * milliseconds(candidate.genotype)
            assert predicted is not None
            errors.append(abs(predicted - truth) / truth)
        assert sum(errors) / len(errors) < 0.3


def test_due_counts_grow_and_never_exceed_what_is_there() -> None:
    counts = [due_count(n) for n in range(200)]
    assert counts[:10] == [0] * 10 and counts[10] == 10
    assert counts == sorted(counts) and all(count <= n for n, count in enumerate(counts))
    assert len(set(counts)) < 20


def test_the_first_ceiling_on_latency_is_the_limit() -> None:
    parsed = [Constraint.parse(c) for c in ("params <= 1k", "latency_ms >= 1", "latency_ratio <= 2")]
    assert latency_limit(parsed) == parsed[2]
    assert latency_limit(parsed[:2]) is None


def test_error_of_too_few_predictions_is_unknown() -> None:
    assert running_error([(1.0, 1.0)]) is None
    found = running_error([(1.0, 2.0), (3.0, 3.0)])
    assert found is not None and found.mape == 0.25 and found.spearman == pytest.approx(1.0)


class TestEarlierRuns:
    """Kolmogorov-Arnold layers are slow here, which ten measurements hardly tell."""

    def takes(self, genotype: Genotype) -> float:
        numbers = SPACE.features(genotype)
        return milliseconds(genotype) + 0.3 * numbers["layers.kind=kan"] * numbers["blocks"]

    def elsewhere(self, state: JobState = JobState.TRAINED) -> list[tuple[Candidate, Evaluation]]:
        """On a device that is three times slower, give or take."""
        rng = random.Random(5)
        times = [(c, 3 * self.takes(c.genotype) * rng.uniform(0.97, 1.03)) for c in candidates(60, 5)]
        return [(c, evaluation(c, ms, device="other", state=state)) for c, ms in times]

    def error(self, earlier: Sequence[tuple[Candidate, Evaluation]]) -> float:
        limits = [Constraint.parse(f"latency_ms <= {LIMIT}")]
        watcher = LatencyScreen(PredictorSection(), limits, ENCODE, earlier=earlier)
        for candidate in candidates(10):
            watcher.observe(candidate, evaluation(candidate, self.takes(candidate.genotype)))
        foretold = [watcher.verdict(c).predicted or 0.0 for c in POOL]
        return sum(abs(p / self.takes(c.genotype) - 1) for p, c in zip(foretold, POOL, strict=True))

    def test_what_they_measured_elsewhere_helps_where_little_was_measured(self) -> None:
        assert self.error(self.elsewhere()) < 0.7 * self.error([])

    def test_what_is_not_believed_is_not_learned_from(self) -> None:
        assert self.error(self.elsewhere(JobState.NOT_REPRODUCED)) == self.error([])
