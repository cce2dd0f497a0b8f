import random
from itertools import islice, pairwise

import pytest

from cambrian.agents.evaluator.phrases import in_words
from cambrian.agents.evaluator.screen import LEAST, Known, Observation, Screen, fit_counts
from cambrian.agents.sections import PredictorSection
from cambrian.search_spaces import SPACES, Genotype

SPACE = SPACES.create("convnet")
CONFIG = PredictorSection(min_evaluations=12, min_tau=0.3, model="gp")


def quality(genotype: Genotype) -> float:
    """A score that a predictor can learn: wider is better, and so is a hidden layer."""
    widths = [stage["width"] for stage in genotype["stages"]]
    return sum(widths) / len(widths) / 128 + genotype["head"]["hidden"] / 512


def samples(n: int, seed: int = 0) -> list[Genotype]:
    rng = random.Random(seed)
    return [SPACE.sample(rng) for _ in range(n)]


def observing(n: int, *, maximize: bool = True, config: PredictorSection = CONFIG) -> Screen:
    screen = Screen(config, SPACE, maximize=maximize, seed=3)
    for genotype in samples(n):
        screen.observe(genotype, quality(genotype) if maximize else -quality(genotype))
    return screen


def test_is_fitted_at_geometrically_growing_counts() -> None:
    counts = list(islice(fit_counts(12), 40))
    assert counts[:4] == [12, 17, 22, 27]
    assert all(b >= 1.2 * a and b - a >= 5 for a, b in pairwise(counts))
    assert counts[-1] > 5_000


class TestAbstention:
    def test_before_enough_evaluations(self) -> None:
        screen = observing(11)
        assert not screen.trusted and screen.trust is None
        assert screen.choose(samples(5, 1)) == 0
        verdict = screen.verdict(samples(1, 1)[0])
        assert verdict.keep and verdict.predicted is None and verdict.reason == ""

    def test_when_disabled(self) -> None:
        screen = observing(60, config=PredictorSection(enabled=False, model="gp"))
        assert not screen.trusted
        assert screen.verdict(samples(1, 1)[0]).predicted is None

    def test_when_scores_are_chance(self) -> None:
        rng = random.Random(0)
        screen = Screen(CONFIG, SPACE, maximize=True, seed=3)
        for genotype in samples(60):
            screen.observe(genotype, rng.random())
        assert screen.trust is not None and screen.trust < 0.3
        assert not screen.trusted
        assert screen.choose(samples(8, 1)) == 0
        verdicts = [screen.verdict(genotype) for genotype in samples(30, 1)]
        assert all(verdict.keep and verdict.predicted is not None for verdict in verdicts)


@pytest.mark.parametrize("maximize", [True, False])
class TestTrusted:
    def test_drops_what_has_no_chance_and_keeps_the_best(self, maximize: bool) -> None:
        screen = observing(80, maximize=maximize)
        assert screen.trusted
        fresh = sorted(samples(100, 1), key=quality)
        dropped = [not screen.verdict(genotype).keep for genotype in fresh]
        assert sum(dropped[:30]) > 15
        assert not any(dropped[-30:])
        reason = screen.verdict(fresh[dropped.index(True)]).reason
        assert "median" in reason and "tau" in reason

    def test_chooses_better_drafts_than_the_first(self, maximize: bool) -> None:
        screen = observing(80, maximize=maximize)
        gains = []
        for seed in range(10, 25):
            drafts = samples(8, seed)
            mean = sum(map(quality, drafts)) / len(drafts)
            gains.append(quality(drafts[screen.choose(drafts)]) - mean)
        assert sum(gains) / len(gains) > 0.1

    def test_a_single_draft_is_chosen_without_ado(self, maximize: bool) -> None:
        assert observing(80, maximize=maximize).choose(samples(1, 1)) == 0


class TestRebuild:
    def test_gives_the_decisions_of_the_live_screen(self) -> None:
        """At every length, whether or not anybody asked in between."""
        history = [Observation(genotype, quality(genotype)) for genotype in samples(50)]
        probes = samples(6, 1)
        live = Screen(CONFIG, SPACE, maximize=True, seed=3)
        for n, observation in enumerate(history, start=1):
            live.observe(*observation)
            if n % 3:
                continue
            resumed = Screen(CONFIG, SPACE, maximize=True, seed=3)
            resumed.rebuild(history[:n])
            assert [resumed.verdict(probe) for probe in probes] == [live.verdict(probe) for probe in probes]
            assert resumed.choose(probes) == live.choose(probes)
            assert resumed.trust == live.trust

    def test_forgets_what_was_before(self) -> None:
        screen = observing(40)
        screen.verdict(samples(1, 1)[0])
        screen.rebuild([])
        assert not screen.trusted and screen.running_tau is None
        assert screen.verdict(samples(1, 1)[0]).predicted is None

    def test_scores_between_two_fits_do_not_change_decisions(self) -> None:
        screen = observing(22)
        before = screen.verdict(samples(1, 1)[0])
        genotype = samples(1, 2)[0]
        screen.observe(genotype, 99.0)
        assert screen.verdict(samples(1, 1)[0]) == before


def test_running_tau_compares_what_was_predicted_with_what_came() -> None:
    screen = observing(60)
    assert screen.running_tau is None
    for genotype in samples(30, 1):
        screen.observe(genotype, quality(genotype), screen.verdict(genotype).predicted)
    assert screen.running_tau is not None and screen.running_tau > 0.3
    screen.rebuild([Observation(genotype, float(n), float(-n)) for n, genotype in enumerate(samples(5))])
    assert screen.running_tau == pytest.approx(-1)


class TestDoubt:
    def test_trust_is_withdrawn_when_predictions_do_not_come_true_and_given_back(self) -> None:
        screen = observing(60)
        probe = samples(1, 1)[0]
        assert screen.trusted and not screen.doubt
        for genotype in samples(LEAST - 1, 2):
            screen.observe(genotype, quality(genotype), -quality(genotype))
        assert screen.trusted, "too few to tell"
        screen.observe(probe, quality(probe), -quality(probe))
        assert screen.trust is not None and screen.trust > CONFIG.min_tau
        assert not screen.trusted and "tau" in screen.doubt
        assert screen.verdict(probe).keep and screen.verdict(probe).predicted is not None
        assert screen.choose(samples(8, 4)) == 0 and screen.what_matters() == []
        for genotype in samples(50, 5):
            screen.observe(genotype, quality(genotype), screen.verdict(genotype).predicted)
        assert screen.trusted and not screen.doubt

    def test_a_resumed_run_doubts_the_same(self) -> None:
        history = [Observation(g, quality(g), -quality(g)) for g in samples(40)]
        live, resumed = observing(0), observing(0)
        for observation in history:
            live.observe(*observation)
            live.verdict(observation.genotype)
        resumed.rebuild(history)
        assert live.doubt == resumed.doubt != ""


class TestWhatAnExaminationFound:
    """Scores that only a proxy tells."""

    def observed(self, lacking: int = 0) -> Screen:
        screen, rng = Screen(CONFIG, SPACE, maximize=True, seed=3), random.Random(1)
        for n, genotype in enumerate(samples(60)):
            told = rng.random()
            known = Known(proxies={"naswot": told} if n >= lacking else {})
            screen.observe(genotype, told, None, known)
        return screen

    def test_proxies_are_learned_from(self) -> None:
        screen, probe = self.observed(), samples(1, 1)[0]
        low, high = (screen.verdict(probe, Known(proxies={"naswot": value})) for value in (0.1, 0.9))
        assert screen.trusted and not low.keep and high.keep
        assert low.predicted is not None and high.predicted is not None
        assert high.predicted - low.predicted > 0.5
        assert any("naswot" in told and "more" in told for told in screen.what_matters())

    def test_of_drafts_and_of_who_has_none_the_rest_is_known(self) -> None:
        screen = self.observed()
        assert screen.verdict(samples(1, 1)[0]).predicted is not None
        assert 0 <= screen.choose(samples(4, 1)) < 4

    def test_a_proxy_that_some_lack_is_left_out(self) -> None:
        screen, probe = self.observed(lacking=1), samples(1, 1)[0]
        first = screen.verdict(probe, Known(proxies={"naswot": 0.1}))
        assert first == screen.verdict(probe, Known(proxies={"naswot": 0.9}))


def test_earlier_runs_are_learned_from_and_not_counted() -> None:
    earlier = [Observation(g, quality(g)) for g in samples(60)]
    screen = Screen(CONFIG, SPACE, maximize=True, seed=3, earlier=earlier)
    assert screen.trusted and screen.running_tau is None
    verdict = screen.verdict(samples(1, 1)[0])
    assert verdict.predicted is not None
    screen.rebuild([])
    assert screen.verdict(samples(1, 1)[0]) == verdict


def test_what_matters_is_told_in_words_once_it_is_trusted() -> None:
    assert observing(11).what_matters() == []
    told = observing(80).what_matters()
    assert 0 < len(told) <= 6
    assert all(line.endswith(("more is better", "less is better")) for line in told)
    assert any("width" in line or "hidden" in line or "parameters" in line for line in told)
    opposite = observing(80, maximize=False).what_matters()
    assert [line.split(":")[0] for line in opposite] == [line.split(":")[0] for line in told]
    assert opposite == told, "a lower score is better there, and what is good is the same"


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("live.mean", "blocks with weights on the average path"),
        ("live.blocks.pooling", "pooling blocks that the output depends on"),
        ("proxy.naswot", "zero-cost proxy naswot"),
        ("path|conv>pool", "a path of conv, then pool"),
        ("1|conv(pool+in)", "conv(pool+in)"),
        ("(conv3x3>bn|relu)>add", "(conv3x3>bn|relu)>add"),
        ("stages.width.mean", "stages.width.mean"),
    ],
)
def test_names_in_words(name: str, words: str) -> None:
    assert in_words(name) == words
