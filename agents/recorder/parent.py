"""The parent run: the discovery run itself in MLflow, with its configuration, pictures and leaderboard."""

from __future__ import annotations

import logging
import tempfile
import time
from pathlib import Path

import yaml

from cambrian.agents.champions import CHAMPIONS_KEY, read_champions
from cambrian.agents.evaluator.arms import (
    arm_markdown,
    arm_table,
    model_markdown,
    model_table,
    run_gain,
)
from cambrian.agents.evaluator.estimators import estimator_records
from cambrian.agents.evaluator.hypervolume import HYPERVOLUME_KEY
from cambrian.agents.evaluator.proxies import rank_lines
from cambrian.agents.evaluator.savings import savings
from cambrian.agents.evaluator.spending import Spending
from cambrian.agents.factorial import FACTORIAL_KEY, read_parts
from cambrian.agents.planner.exchange import ExchangeLog
from cambrian.agents.population.archive import READ, Archive
from cambrian.agents.population.model import Candidate
from cambrian.agents.population.store import PopulationStore
from cambrian.agents.recorder.asked import tab_link
from cambrian.agents.recorder.delivery import edited, get_run, links_of, note_tags, upload
from cambrian.agents.recorder.entries import TAG_ROLE, TAG_RUN, public_config, run_entry, run_metrics
from cambrian.agents.recorder.learned import (
    LESSONS_TAG,
    asked_metrics,
    learned_markdown,
    write_lessons,
)
from cambrian.agents.recorder.notes import artifact_link, run_note, view_link
from cambrian.agents.recorder.ranks import ranking_metrics
from cambrian.agents.recorder.trace_entries import PromptRef, prompt_tags
from cambrian.agents.recorder.tracking import Tracking
from cambrian.agents.report import champions_text, objective_of, ranking_text, score_text
from cambrian.search_spaces import Space, Task

logger = logging.getLogger(__name__)

RUN_KEY = "run"
_EVERY_S = 20.0
_GROWTH = 1.2
_FEWEST = 3
_DRAWN_ON_PAGE = 12


class Parent:
    """MLflow's run of a discovery run, opened or made.

    Attributes:
        info: the run.
        fresh: it was made just now, so that it has no children yet.
        moved: the store knew a run that this server does not: its children have to be made again.
    """

    def __init__(self, store: PopulationStore, space: Space, task: Task, tracking: Tracking) -> None:
        self._store = store
        self._space = space
        self._task = task
        self._tracking = tracking
        self._drawn = 0  # candidates that had ended
        self._drawn_at = float("-inf")
        run = store.run
        entry = run_entry(run)
        known = store.tracked(RUN_KEY)
        info = get_run(tracking, known) if known is not None else None
        self.moved = known is not None and info is None
        self.fresh = False
        if info is None:
            found = tracking.find({TAG_RUN: run.run_id, TAG_ROLE: entry.tags[TAG_ROLE]})
            self.fresh = found is None
            info = tracking.get(found) if found else tracking.create(entry.name, entry.tags, entry.start)
            store.track(RUN_KEY, info.run_id)
        self.info = info
        tracking.log(info.run_id, params=entry.params, tags=entry.tags)
        if info.status != "RUNNING":
            tracking.set_status(info.run_id, "RUNNING", None)
        with tempfile.TemporaryDirectory() as name:
            text = yaml.safe_dump(public_config(run.config), sort_keys=False, allow_unicode=True)
            (Path(name) / "config.yaml").write_text(text, encoding="utf-8")
            upload(tracking, info, Path(name))

    def link_prompts(self, refs: list[PromptRef]) -> None:
        """Name the versions of prompts that the run asks with."""
        if tags := prompt_tags(refs):
            self._tracking.log(self.info.run_id, tags=tags)

    def end(self) -> None:
        """End it. The recorder closes before a run is written off: one that is not finished was stopped."""
        run = self._store.run
        entry = run_entry(run if run.status == "finished" else run.model_copy(update={"status": "stopped"}))
        tags: dict[str, str] = {k: v for k, v in entry.tags.items() if k in {"state", "reason"}}
        self._tracking.log(self.info.run_id, tags=tags)
        self._tracking.set_status(self.info.run_id, entry.status, time.time())

    def illustrate(self, *, last: bool) -> None:
        """Renew pictures, leaderboard and curves when enough has happened, and in any case at the end."""
        if not last and time.monotonic() - self._drawn_at < _EVERY_S:
            return
        candidates = self._store.candidates()
        ended = sum(1 for c in candidates if c.state.ended)
        if not last and ended < max(_FEWEST, _GROWTH * self._drawn):
            return
        evaluations = self._store.evaluations()
        # Imported here: matplotlib takes a second, and only this thread should wait for it.
        from cambrian.agents.recorder.pictures import PICTURES, Scene, draw_all, markdown

        run = self._store.run
        if last and run.status == "running":
            run = run.model_copy(update={"status": "stopped"})
        plan = read_champions(self._store.get_meta(CHAMPIONS_KEY), run.config.get("budget", {}))
        scene = Scene(
            run,
            tuple(candidates),
            tuple(evaluations),
            champions=plan.ids() if plan is not None else frozenset(),
            reference=self._store.get_meta(HYPERVOLUME_KEY),
        )
        top = scene.ranking[:_DRAWN_ON_PAGE]
        drawings = {c.id: svg for c in top if (svg := self._draw(c)) is not None}
        links = links_of(self._store, self._tracking, [c.id for c in (*top, *scene.scored[:50])])
        with tempfile.TemporaryDirectory() as name:
            # Until the end one kind is enough: the next ones replace it soon.
            draw_all(scene, Path(name), kinds=("png", "svg") if last else ("png",), drawings=drawings)
            has_lessons = write_lessons(candidates, run.metric, Path(name))
            upload(self._tracking, self.info, Path(name))
        shown = {t: artifact_link(self.info.run_id, f"{t}.png") for t in PICTURES if t != "leaderboard"}
        board = markdown(scene, links=links)
        everybody = view_link(self._tracking.experiment_id, "candidates")
        noise = scene.ranked.noise.error
        parts = read_parts(self._store.get_meta(FACTORIAL_KEY), run, candidates, evaluations, noise)
        said = parts.verdict if parts is not None else ""
        saved = savings(candidates, evaluations)
        asked = Spending.of(ExchangeLog(self._store.folder), candidates)
        arms = arm_table(run, candidates, evaluations, asked.arms)
        leader = next(iter(scene.ranked.board), None)
        champions = champions_text(plan, scene.ranked.board)
        noise_floor, volume = scene.ranked.noise, scene.hypervolume
        gain = run_gain(run, candidates)
        told = [
            gain.verdict if gain is not None else "",
            *rank_lines(estimator_records(run, candidates), "estimators"),
            arm_markdown(arms, run.metric),
            model_markdown(model_table(run, candidates, evaluations, asked.models), run.metric),
        ]
        if kept := Archive.among(scene.ranking[:READ], self._space).in_words():
            told.append(f"Archive by cost and family: {kept}")
        if asked.total.calls:
            told.append(f"[Questions to models]({self._place('traces')}): {asked.total.in_words()}")
        if has_lessons:
            told.append(learned_markdown(self._store, candidates, links, self._place("artifacts")))
        note = run_note(
            *(run, scene.best, scene.counts, board, shown, links, everybody, said, saved.sentence),
            verified=score_text(leader, run.metric) if leader is not None and leader.champion else "",
            ranking=ranking_text(objective_of(run), champions, noise_floor, volume, run.metric),
            more="\n".join(f"{part[:1].upper()}{part[1:]}\n" for part in told if part),
        )
        is_edited = edited(self._tracking.get(self.info.run_id).tags)
        self._tracking.log(
            self.info.run_id,
            (
                *run_metrics(run, candidates, evaluations, scene.best),
                *ranking_metrics(scene, arms),
                *asked_metrics(
                    asked.total,
                    max((c.ended_s or 0.0 for c in candidates), default=run.created),
                    len(candidates),
                ),
            ),
            tags=({} if is_edited else note_tags(note)) | (LESSONS_TAG if has_lessons else {}),
        )
        self._drawn, self._drawn_at = ended, time.monotonic()

    def _place(self, tab: str) -> str:
        """Address of a tab of the run's page."""
        return tab_link(self._tracking.experiment_id, self.info.run_id, tab)

    def _draw(self, candidate: Candidate) -> str | None:
        try:
            return self._space.draw(candidate.genotype, self._task.signature)
        except Exception as error:  # a third party's space: its picture is not worth the others
            logger.debug("%s cannot be drawn: %s", candidate.id, error)
            return None
