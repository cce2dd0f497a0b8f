"""The cheap steps that every candidate climbs before anything is paid for, each cheaper than the next."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from cambrian.agents.evaluator.encoding import HasStructure
from cambrian.agents.evaluator.ranking import broken
from cambrian.agents.evaluator.screen import Screen
from cambrian.agents.evaluator.similarity import Similarity
from cambrian.agents.population.model import Candidate, CandidateState, Proposal
from cambrian.agents.population.store import PopulationStore
from cambrian.agents.runfile import RunConfig
from cambrian.sandbox.examination.identity import identity
from cambrian.sandbox.examination.static import check
from cambrian.search_spaces import Genotype, ProposalError, Space, Task
from cambrian.search_spaces.recipes import recipe_changes, recipe_for, recipe_of


class Admission:
    """Membership, static checks, hard limits, identity, predictor: in this order, by cost.

    Whatever becomes of a member of the space, it is told which earlier candidate it is most like.

    Args:
        config: the run's configuration.
        space: judge of membership.
        task: gives the signature and the recipe; memory is estimated for the batch size that a candidate has.
        store: where identities are claimed, and where a resumed run's screen is rebuilt from.
    """

    def __init__(self, config: RunConfig, space: Space, task: Task, store: PopulationStore) -> None:
        self._config, self._space, self._task, self._store = config, space, task, store
        self.screen = Screen(config.predictor, space, maximize=task.maximize, seed=config.seed)
        self.similarity = Similarity(self._motifs)
        self.similarity.rebuild(store.candidates())
        self.relearn()

    def relearn(self) -> None:
        """Let the predictor forget everything, then see what the store holds: some scores may be gone."""
        by_id = {c.id: c for c in self._store.candidates()}
        self.screen.rebuild(
            [
                (
                    by_id[e.candidate_id].genotype,
                    e.metrics[self._task.metric],
                    by_id[e.candidate_id].prediction,
                )
                for e in self._store.evaluations()
                if e.rung == 0 and e.seed == self._config.seed and e.metrics  # no repeat
            ]
        )

    def admit(self, candidate: Candidate, screened: bool) -> Candidate:
        """The candidate after the cheap steps: ended with a reason, or ready to be paid for.

        Args:
            candidate: as its arm proposed it.
            screened: whether the predictor may end it; False for control arms.
        """
        return self.relate(self._climbed(candidate, screened))

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

    def _climbed(self, candidate: Candidate, screened: bool) -> Candidate:
        try:
            genotype = self._space.validate(candidate.genotype)
            candidate = candidate.model_copy(
                update={"genotype": genotype, "summary": self._space.summarise(genotype)}
            )
            signature = self._task.signature
            recipe = recipe_for(self._space, genotype, self._task.recipe)
            changes = recipe_changes(self._space, genotype, self._task.recipe)
            # Generated code is never built here: what it is like shows in the sandbox only.
            is_code = self._space.kind == "code"
            facts = None if is_code else check(self._space, genotype, signature, recipe.batch_size)
        except ProposalError as error:
            return _end(candidate, CandidateState.INVALID, error.message)
        candidate = candidate.model_copy(update={"static": facts})
        candidate = candidate.model_copy(update={"cost": candidate.values().get(self._config.cost)})
        faults = broken(self._config.constraints, candidate.values())
        if faults:
            return _end(candidate.model_copy(update={"feasible": False}), CandidateState.INFEASIBLE, *faults)
        own = (
            _identity_of_text(genotype, changes)
            if is_code
            else identity(self._space, genotype, signature, changes)
        )
        candidate = self._store.claim(candidate, own)
        if candidate.state is CandidateState.DUPLICATE:
            trained = ", trained in the same way" if recipe_of(self._space, genotype) else ""
            reason = f"computes the same as {candidate.duplicate_of}{trained}"
            return _end(candidate, CandidateState.DUPLICATE, reason)
        screening = self.screen.verdict(genotype)
        candidate = candidate.model_copy(update={"prediction": screening.predicted})
        if screened and not screening.keep:
            return _end(candidate, CandidateState.SCREENED, screening.reason)
        return candidate

    def choose(self, drafts: Sequence[Proposal]) -> Proposal:
        """The draft that the predictor likes best; the arm's favourite while it abstains."""
        if len(drafts) == 1:
            return drafts[0]
        return drafts[self.screen.choose([draft.genotype for draft in drafts])]

    def describe_predictor(self) -> str:
        """How far the predictor could be trusted, in one line; empty while it has seen too little."""
        trust, running = self.screen.trust, self.screen.running_tau
        if trust is None:
            return ""
        said = f"Kendall tau {trust:.2f} in cross-validation"
        if running is not None:
            said += f", {running:.2f} on candidates it had not seen"
        return said + ("" if self.screen.trusted else "; it only watched")

    def learn(self, candidate: Candidate) -> None:
        """Let the predictor see a score of rung 0."""
        self.screen.observe(candidate.genotype, candidate.rung_scores[0], candidate.prediction)


def _identity_of_text(genotype: Genotype, changes: Mapping[str, Any]) -> str:
    """Equal for equal source and recipe; what else computes the same cannot be told without running it."""
    text = json.dumps([genotype, dict(changes)], sort_keys=True, default=str)
    return f"code:{hashlib.blake2b(text.encode(), digest_size=16).hexdigest()}"


def _end(candidate: Candidate, state: CandidateState, *reasons: str) -> Candidate:
    return candidate.model_copy(update={"state": state, "reason": "; ".join(reasons)})
