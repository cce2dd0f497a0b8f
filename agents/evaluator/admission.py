"""The cheap steps that every candidate climbs before anything is paid for, each cheaper than the next."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Mapping, Sequence

from cambrian.agents.evaluator.earlier import Earlier
from cambrian.agents.evaluator.encoding import HasStructure
from cambrian.agents.evaluator.latency_screen import LatencyEncoder, LatencyScreen
from cambrian.agents.evaluator.proxies import ProxyTrust
from cambrian.agents.evaluator.ranking import broken
from cambrian.agents.evaluator.screen import Known, Observation, Screen
from cambrian.agents.evaluator.similarity import Similarity
from cambrian.agents.planner.evolution import fingerprint
from cambrian.agents.population.model import Candidate, CandidateState, Evaluation, Proposal
from cambrian.agents.population.store import PopulationStore
from cambrian.agents.runfile import RunConfig
from cambrian.sandbox import JobState, Outcome
from cambrian.sandbox.examination.identity import identity
from cambrian.sandbox.examination.report import StaticFacts
from cambrian.sandbox.examination.static import check
from cambrian.search_spaces import Genotype, ProposalError, Space, Task
from cambrian.search_spaces.recipes import recipe_changes, recipe_for, recipe_of

MOTIFS = 1024
"""Most motifs that are kept of a candidate; networks have a few hundred."""


class Admission:
    """Membership, static checks, hard limits, identity, what an examination found, predictor: by cost.

    Generated code is never built here: its static facts and its identity are what an examination in the
    sandbox tells; until then it is known by its text.

    Whatever becomes of a member of the space, it is told which earlier candidate it is most like.

    Args:
        config: the run's configuration.
        space: judge of membership.
        task: gives the signature and the recipe; memory is estimated for the batch size that a candidate has.
        store: where identities are claimed, and where a resumed run's screen is rebuilt from.
        earlier: what earlier runs observed, for the predictors.

    Attributes:
        learned: how often an estimator came to know something.
    """

    def __init__(
        self,
        config: RunConfig,
        space: Space,
        task: Task,
        store: PopulationStore,
        earlier: Earlier | None = None,
    ) -> None:
        self._config, self._space, self._task, self._store = config, space, task, store
        earlier = earlier or Earlier()
        self.screen = Screen(
            config.predictor, space, maximize=task.maximize, seed=config.seed, earlier=earlier.observations
        )
        self.proxies = ProxyTrust(maximize=task.maximize, min_tau=config.checks.proxy_min_tau)
        self.latency = LatencyScreen(
            config.predictor, config.constraints, LatencyEncoder(space), earlier=earlier.measured
        )
        self.similarity = Similarity(self._motifs)
        self.similarity.rebuild(store.candidates())
        self.learned = 0
        self._foreseen: dict[str, tuple[StaticFacts, str]] = {}
        self._texts: dict[str, str] = {}
        if space.kind == "code":
            members = [c for c in store.candidates() if c.summary]
            for candidate in sorted(members, key=lambda c: c.duplicate_of is not None):
                self._texts.setdefault(self._text_of(candidate.genotype), candidate.id)
        self.relearn()

    def relearn(self) -> None:
        """Let all estimators forget everything, then see what the store holds: some scores may be gone."""
        self.learned += 1
        by_id = {c.id: c for c in self._store.candidates()}
        self._learned = {c.id for c in by_id.values() if c.rung_scores}
        self.proxies.rebuild((c.proxies, c.rung_scores[0]) for c in by_id.values() if c.rung_scores)
        self.latency.rebuild(
            (by_id[e.candidate_id], e) for e in self._store.evaluations() if e.seed == self._config.seed
        )
        self.screen.rebuild(
            [
                _observation(by_id[e.candidate_id], e.metrics[self._task.metric])
                for e in self._store.evaluations()
                if e.rung == 0 and e.seed == self._config.seed and e.metrics  # no repeat
            ]
        )

    def foresee(self, genotype: Genotype) -> None:
        """Work out beforehand what `admit` will need of a proposal that has no place yet, in another thread.

        What it is compared with may still change; what it is does not.
        """
        if self._space.kind != "code":
            with contextlib.suppress(ProposalError):  # `admit` will say so
                self._look_at(self._space.validate(genotype))

    def objection(self, genotype: Genotype) -> str:
        """What `admit` would end a proposal for, in words for its author; empty when nothing is known yet.

        Nothing is claimed: whoever is proposed first is the original. Of code only the form is looked at.
        """
        try:
            genotype = self._space.validate(genotype)
            if self._space.kind == "code":
                return ""
            facts, own = self._look_at(genotype)
        except ProposalError as error:
            return error.message
        if faults := broken(self._config.constraints, facts.limited()):
            return f"outside the limits: {'; '.join(faults)}"
        owner = self._store.owner(own)
        return f"it computes the same as {owner}, which is known already" if owner is not None else ""

    def _look_at(self, genotype: Genotype) -> tuple[StaticFacts, str]:
        """Static facts and identity of a canonical genotype, worked out once and kept for `admit`.

        Raises:
            ProposalError: its shapes do not fit.
        """
        key = fingerprint(genotype)
        found = self._foreseen.get(key)
        if found is None:
            recipe = recipe_for(self._space, genotype, self._task.recipe)
            changes = recipe_changes(self._space, genotype, self._task.recipe)
            signature = self._task.signature
            facts = check(self._space, genotype, signature, recipe.batch_size)
            found = self._foreseen[key] = facts, identity(self._space, genotype, signature, changes)
        return found

    def admit(self, candidate: Candidate) -> Candidate:
        """The candidate after the steps that need no sandbox: ended with a reason, or to be examined.

        Args:
            candidate: as its arm proposed it.
        """
        return self.relate(self._climbed(candidate))

    def examined(self, candidate: Candidate, outcome: Outcome) -> Candidate:
        """The candidate with what its examination found: ended with a reason, or as it was.

        Args:
            candidate: after `admit`.
            outcome: of the job that examined it.
        """
        candidate = candidate.model_copy(update={"examined_s": outcome.wall_s})
        found = outcome.report.examination if outcome.report is not None else None
        if outcome.state is not JobState.EXAMINED or found is None:
            return _end(candidate, CandidateState.FAILED, f"{outcome.state}: {outcome.reason}")
        candidate = candidate.model_copy(
            update={
                "static": found.static or candidate.static,
                "findings": found.findings,
                "proxies": found.proxies,
                "motifs": _shortest(found.motifs),
            }
        )
        if faults := found.faults(self._config.checks.forbid):
            return _end(candidate, CandidateState.INVALID, *faults)
        if self._space.kind == "code":
            candidate = self._limited(candidate)
            if candidate.state.ended:
                return candidate
            if found.identity is not None:
                candidate = self._claimed(candidate, self._identity_of_code(candidate, found.identity))
        return self.relate(candidate, candidate.motifs or None)

    def screened(self, candidate: Candidate, may_end: bool) -> Candidate:
        """The candidate with what the predictor expects of it, ended where that, or a proxy, is hopeless.

        Args:
            candidate: after `admit`, and `examined` where it was.
            may_end: False for control arms.
        """
        doubt = self.proxies.verdict(candidate.proxies)
        if may_end and not doubt.keep:
            return _end(candidate, CandidateState.SCREENED, doubt.reason)
        expected, screening = (
            self.latency.verdict(candidate),
            self.screen.verdict(candidate.genotype, _known(candidate)),
        )
        told = {"prediction": screening.predicted, "predicted_latency": expected.predicted}
        candidate = candidate.model_copy(update=told)
        if may_end and not expected.keep:
            return _end(candidate, CandidateState.SCREENED, expected.reason)
        if screening.keep or not may_end:
            return candidate
        return _end(candidate, CandidateState.SCREENED, screening.reason)

    def relate(self, candidate: Candidate, motifs: Mapping[str, float] | None = None) -> Candidate:
        """The candidate with the earlier one that it is most like; as it is outside the space.

        Args:
            candidate: after the cheap steps. It may come again, when more is known of it.
            motifs: of its computation graph, where an examination in the sandbox has found them.
        """
        if candidate.state is CandidateState.INVALID:
            return candidate
        if candidate.duplicate_of is None:
            return candidate.model_copy(update={"nearest": self.similarity.relate(candidate, motifs)})
        nearest = self.similarity.equal(candidate, self._store.candidate(candidate.duplicate_of))
        written = f"written differently: {nearest.difference}" if nearest.difference else "written the same"
        reason = "; ".join(filter(None, [candidate.reason.partition("; written ")[0], written]))
        return candidate.model_copy(update={"nearest": nearest, "reason": reason})

    def _motifs(self, genotype: Genotype) -> Mapping[str, float] | None:
        """Those that the space knows without building anything."""
        found = self._space.structure(genotype) if isinstance(self._space, HasStructure) else None
        return None if found is None else found.motifs

    def _climbed(self, candidate: Candidate) -> Candidate:
        try:
            genotype = self._space.validate(candidate.genotype)
            candidate = candidate.model_copy(
                update={"genotype": genotype, "summary": self._space.summarise(genotype)}
            )
            signature = self._task.signature
            recipe = recipe_for(self._space, genotype, self._task.recipe)
            changes = recipe_changes(self._space, genotype, self._task.recipe)
            is_code = self._space.kind == "code"
            foreseen = self._foreseen.pop(fingerprint(genotype), None)
            if is_code:
                facts = None
            elif foreseen is not None:
                facts = foreseen[0]
            else:
                facts = check(self._space, genotype, signature, recipe.batch_size)
        except ProposalError as error:
            return _end(candidate, CandidateState.INVALID, error.message)
        candidate = self._limited(candidate.model_copy(update={"static": facts}))
        if candidate.state.ended:
            return candidate
        if is_code:
            return self._of_new_text(candidate)
        own = identity(self._space, genotype, signature, changes) if foreseen is None else foreseen[1]
        return self._claimed(candidate, own)

    def _limited(self, candidate: Candidate) -> Candidate:
        """The candidate with its cost, as far as it is known; ended where it breaks a hard limit."""
        candidate = candidate.model_copy(update={"cost": candidate.values().get(self._config.cost)})
        faults = broken(self._config.constraints, candidate.values())
        if not faults:
            return candidate
        return _end(candidate.model_copy(update={"feasible": False}), CandidateState.INFEASIBLE, *faults)

    def _claimed(self, candidate: Candidate, own: str) -> Candidate:
        """The candidate as the owner of its identity, or as a duplicate of the one that is."""
        candidate = self._store.claim(candidate, own)
        if candidate.state is not CandidateState.DUPLICATE:
            return candidate
        trained = ", trained in the same way" if recipe_of(self._space, candidate.genotype) else ""
        reason = f"computes the same as {candidate.duplicate_of}{trained}"
        return _end(candidate, CandidateState.DUPLICATE, reason)

    def _of_new_text(self, candidate: Candidate) -> Candidate:
        """Code is new while nobody wrote the same: else what became of that one holds for it."""
        text = self._text_of(candidate.genotype)
        first = self._texts.setdefault(text, candidate.id)  # of two slots at once, one
        original = self._store.candidate(first)
        owner = original.duplicate_of or first
        if owner == candidate.id:
            return candidate.model_copy(update={"identity": text})
        changes = {"identity": original.identity, "duplicate_of": owner}
        why = f": {original.reason}" if original.state is CandidateState.INVALID else ""
        return _end(
            candidate.model_copy(update=changes), CandidateState.DUPLICATE, f"is the source of {first}{why}"
        )

    def _text_of(self, genotype: Genotype) -> str:
        """Equal for equal source and recipe."""
        changes = recipe_changes(self._space, genotype, self._task.recipe)
        text = json.dumps([genotype, dict(changes)], sort_keys=True, default=str)
        return f"code:{_digest(text)}"

    def _identity_of_code(self, candidate: Candidate, functional: str) -> str:
        """What a sandbox found, told apart by the recipe, of which the sandbox knows nothing."""
        changes = recipe_changes(self._space, candidate.genotype, self._task.recipe)
        if not changes:
            return functional
        return f"{functional}+{_digest(json.dumps(dict(changes), sort_keys=True, default=str))}"

    def choose(self, drafts: Sequence[Proposal]) -> Proposal:
        """The draft that the predictor likes best; the arm's favourite while it abstains."""
        if len(drafts) == 1:
            return drafts[0]
        return drafts[self.screen.choose([draft.genotype for draft in drafts])]

    def describe_predictor(self) -> str:
        """How far the predictors could be trusted, in one line; empty while they have seen too little."""
        return "; ".join(filter(None, [self._describe_screen(), self.latency.describe()]))

    def _describe_screen(self) -> str:
        trust, running = self.screen.trust, self.screen.running_tau
        if trust is None:
            return ""
        said = f"{self.screen.model}: Kendall tau {trust:.2f} in cross-validation"
        if running is not None:
            said += f", {running:.2f} on candidates it had not seen"
        if self.screen.doubt:
            return f"{said}; not trusted: {self.screen.doubt}"
        return said + ("" if self.screen.trusted else "; it only watched")

    def measured(self, candidate: Candidate, evaluation: Evaluation) -> None:
        """Let the latency model see what an evaluation has measured."""
        self.learned += 1
        self.latency.observe(candidate, evaluation)

    def learn(self, candidate: Candidate) -> None:
        """Let all estimators see a score of rung 0, once."""
        if candidate.id in self._learned:
            return  # we died, or learned all anew, between its evaluation and its judgement
        self._learned.add(candidate.id)
        self.learned += 1
        self.proxies.observe(candidate.proxies, candidate.rung_scores[0])
        self.screen.observe(*_observation(candidate, candidate.rung_scores[0]))


def _known(candidate: Candidate) -> Known:
    return Known(candidate.proxies, candidate.motifs)


def _observation(candidate: Candidate, score: float) -> Observation:
    return Observation(candidate.genotype, score, candidate.prediction, _known(candidate))


def _digest(text: str) -> str:
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def _shortest(motifs: Mapping[str, float]) -> dict[str, float]:
    """At most `MOTIFS` of them, those that say least and so are shared most."""
    kept = sorted(motifs, key=lambda name: (len(name), name))[:MOTIFS]
    return {name: motifs[name] for name in sorted(kept)}


def _end(candidate: Candidate, state: CandidateState, *reasons: str) -> Candidate:
    return candidate.model_copy(update={"state": state, "reason": "; ".join(reasons)})
