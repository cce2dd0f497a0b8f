"""Proof that a space is sound: many random designs and edits, each built; and what they are like."""

from __future__ import annotations

import json
import random
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal

from cambrian.agents.errors import CambrianError
from cambrian.agents.spaces.acceptance import (
    RAW_DRAWS,
    Drawn,
    acceptance_of,
    broken_choices,
    numberless,
    raw_draws,
)
from cambrian.agents.spaces.coverage import Missing, never_drawn
from cambrian.agents.spaces.fit import fitting_tasks, inputs_in_words, listed_tasks, misfit
from cambrian.agents.spaces.report import (
    BaselineFact,
    CheckReport,
    Duplicates,
    Failure,
    Quantiles,
    Size,
    TaskFact,
)
from cambrian.agents.spaces.unused import unused
from cambrian.sandbox.examination.report import StaticFacts
from cambrian.search_spaces import Genotype, Signature, Space, UnknownNameError, UserError
from cambrian.search_spaces.declarative.loading import SpaceFileError
from cambrian.search_spaces.finding import folder_of
from cambrian.search_spaces.tasks.listing import create_listed

IDENTITIES = 300
"""Designs that are hashed by what they compute, unless all are asked for: ten milliseconds each."""
TASK_DESIGNS = 20
CROSSED = 5
"""Every one of so many edits is a crossover with the design before."""
SIZE_DRAWS = 2000
Progress = Callable[[str, int, int], None]
"""Told what is being done, how many are done, and of how many."""
Stage = Literal["sample", "validate", "edit", "crossover", "build", "build and run", "identity"]


class Trial:
    """Counts, times and failures while designs are tried."""

    def __init__(self) -> None:
        self.times: dict[str, list[float]] = {}
        self._failures: dict[tuple[str, str], Failure] = {}

    @contextmanager
    def step(self, stage: Stage, genotype: Genotype | None = None) -> Iterator[None]:
        """Time a step; an exception becomes a failure and a `Failed`."""
        started = time.perf_counter()
        try:
            yield
        except Exception as error:  # a space that somebody writes may fail in any way
            self.fail(stage, _reason(error), genotype)
            raise Failed from error
        self.times.setdefault(stage, []).append(time.perf_counter() - started)

    def fail(self, stage: Stage, reason: str, genotype: Genotype | None) -> None:
        """Note a failure; those that differ in numbers only are one kind, told with the first one's."""
        key = (stage, numberless(reason))
        known = self._failures.get(key)
        if known is None:
            self._failures[key] = Failure(stage=stage, reason=reason, genotype=genotype)
        else:
            self._failures[key] = known.model_copy(update={"times": known.times + 1})

    @property
    def failures(self) -> list[Failure]:
        """The most frequent first."""
        return sorted(self._failures.values(), key=lambda failure: -failure.times)

    @property
    def milliseconds(self) -> dict[str, float]:
        """Median of each step."""
        return {stage: 1000 * statistics.median(seconds) for stage, seconds in self.times.items()}


class Failed(Exception):
    """A step failed; the trial knows how."""


def reference_of(space: Space) -> Signature:
    """The inputs that a space's limits are read at, else those of the first task that fits.

    Raises:
        UserError: no task fits, so nothing could be built.
    """
    definition = getattr(space, "definition", None)
    if definition is not None:
        reference: Signature = definition.file.reference
        return reference
    names = fitting_tasks(space)
    if not names:
        raise UserError(f"no registered task fits the space {space.name!r}", hint="see `cambrian doctor`")
    return create_listed(names[0]).signature


def draw_designs(space: Space, n: int, seed: int, trial: Trial) -> list[Genotype]:
    """`n` random designs, each checked to be canonical and to survive JSON; fewer where some failed.

    A space whose sampler finds no member at all is not asked again.
    """
    rng = random.Random(seed)
    designs: list[Genotype] = []
    for _ in range(n):
        genotype = None
        try:
            with trial.step("sample"):
                genotype = space.sample(rng)
            _validated(space, genotype, trial)
        except Failed as failed:
            if not designs and isinstance(failed.__cause__, SpaceFileError):
                break
            continue
        designs.append(genotype)
    return designs


def draw_edits(space: Space, designs: list[Genotype], n: int, seed: int, trial: Trial) -> list[Genotype]:
    """`n` edits of `designs`, checked as those are; every fifth is a crossover of two."""
    rng, edits = random.Random(seed + 1), []
    for i in range(n if designs else 0):
        parent, other = designs[i % len(designs)], designs[(i + 1) % len(designs)]
        stage: Stage = "crossover" if i % CROSSED == CROSSED - 1 else "edit"
        before = json.dumps([parent, other])
        try:
            with trial.step(stage, parent):
                child, _ = (
                    space.crossover(parent, other, rng) if stage == "crossover" else space.mutate(parent, rng)
                )
            if json.dumps([parent, other]) != before:
                trial.fail(stage, "the parent was changed in place", parent)
            elif stage == "edit" and child == parent:
                trial.fail(stage, "the edit changed nothing", parent)
            else:
                _validated(space, child, trial)
                edits.append(child)
        except Failed:
            continue
    return edits


def _validated(space: Space, genotype: Genotype, trial: Trial) -> None:
    data = json.loads(json.dumps(genotype))
    with trial.step("validate", genotype):
        canonical = space.validate(data)
    if canonical != genotype:
        trial.fail("validate", "the design is not in canonical form: validating it gives another", genotype)
        raise Failed


def check_space(
    space: Space,
    *,
    draws: int = 1000,
    seed: int = 0,
    all_identities: bool = False,
    progress: Progress = lambda _doing, _done, _of: None,
) -> CheckReport:
    """Draw `draws` designs and as many edits of them, build each without memory, and tell what they are like.

    Every design and every fifth edit is also run on shapes alone, which is where counts come from.

    Args:
        space: a declarative one: its designs are built here, on torch's meta device.
        draws: designs, and edits.
        seed: equal seeds give equal reports but for the times.
        all_identities: hash every design by what it computes, not only the first 300.
        progress: told what is being done.

    Raises:
        UserError: no task fits a space that names no reference.
        ValueError: a space of code; `code.check_code` is for these.
    """
    if space.kind != "declarative":
        raise ValueError(f"space {space.name!r} holds code, which is never built here")
    import torch

    from cambrian.sandbox.examination.meta import build_on_meta
    from cambrian.sandbox.examination.static import check

    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # the networks are tiny: more threads would only cost
    started, trial, signature = time.monotonic(), Trial(), reference_of(space)
    try:
        progress("drawing", 0, 2 * draws)
        designs = draw_designs(space, draws, seed, trial)
        edits = draw_edits(space, designs, draws, seed, trial)
        drawn = _raw_draws(space, seed)
        broken = _broken(space, designs, drawn, seed)
        facts: list[StaticFacts] = []
        hashes: list[tuple[str, Genotype]] = []
        hashed = len(designs) if all_identities else IDENTITIES
        valid = 0
        for i, genotype in enumerate([*designs, *edits]):
            progress("building", i, len(designs) + len(edits))
            try:
                if i >= len(designs) and i % CROSSED:
                    with trial.step("build", genotype):
                        build_on_meta(space, genotype, signature)
                    valid += 1
                    continue
                with trial.step("build and run", genotype):
                    found = check(space, genotype, signature, batch_size=2)
                if i < len(designs):
                    facts.append(found)
                    if i < hashed:
                        hashes.append((_identity(space, genotype, signature, trial), genotype))
                    _build_for_others(space, genotype, i, trial)
                valid += 1
            except Failed:
                continue
        return CheckReport(
            space=space.name,
            version=space.version,
            kind=space.kind,
            folder=folder_of(space),
            seed=seed,
            signature=inputs_in_words(signature),
            designs=draws,
            edits=draws,
            valid=valid,
            acceptance=acceptance_of(drawn) if drawn else None,
            failures=[*broken.values(), *trial.failures],
            quantiles=_quantiles(facts),
            duplicates=_duplicates(space, hashes),
            size=size_of(space, seed),
            milliseconds=trial.milliseconds,
            baselines=baseline_facts(space, signature),
            tasks=[_task_fact(space, name, designs[:TASK_DESIGNS]) for name in listed_tasks(space)],
            never_drawn=_never_drawn(space, designs, {each.key for each in broken}),
            unused=_unused(space),
            wall_s=time.monotonic() - started,
        )
    finally:
        torch.set_num_threads(threads)


def _build_for_others(space: Space, genotype: Genotype, i: int, trial: Trial) -> None:
    """The first designs are built for the other inputs as well that the space promises to take."""
    from cambrian.sandbox.examination.static import check

    others = getattr(getattr(space, "definition", None), "signatures", ())[1:]
    for other in others if i < TASK_DESIGNS else ():
        with trial.step("build", genotype):
            check(space, genotype, other, batch_size=2)


def _identity(space: Space, genotype: Genotype, signature: Signature, trial: Trial) -> str:
    from cambrian.sandbox.examination.identity import identity

    with trial.step("identity", genotype):
        return identity(space, genotype, signature)


def _quantiles(facts: list[StaticFacts]) -> dict[str, Quantiles]:
    names = ("parameters", "flops", "depth") if facts else ()
    return {name: Quantiles.of(getattr(fact, name) for fact in facts) for name in names}


def _duplicates(space: Space, hashes: list[tuple[str, Genotype]]) -> Duplicates | None:
    if not hashes:
        return None
    first: dict[str, Genotype] = {}
    pair: tuple[Genotype, Genotype] | None = None
    for text, genotype in hashes:
        known = first.setdefault(text, genotype)
        if pair is None and known != genotype:
            pair = (known, genotype)
    return Duplicates(
        examined=len(hashes),
        distinct_genotypes=len({json.dumps(genotype, sort_keys=True) for _, genotype in hashes}),
        distinct=len(first),
        example=(space.summarise(pair[0]), space.summarise(pair[1])) if pair else None,
        genotypes=pair,
    )


def size_of(space: Space, seed: int = 0) -> Size | None:
    """How large a space is; None where it is no folder of text."""
    definition = getattr(space, "definition", None)
    if definition is None:
        return None
    from cambrian.search_spaces.declarative.estimating import estimate

    found = estimate(definition, SIZE_DRAWS, random.Random(seed))
    return Size(
        derivations=str(found.total),
        exact=found.exact,
        accepted_share=found.accepted_share,
        members="" if found.members is None else str(found.members),
        low=str(found.low),
        high=str(found.high),
    )


def baseline_facts(space: Space, signature: Signature) -> list[BaselineFact]:
    """Every baseline, built where its parameter count was published, else for `signature`."""
    file = getattr(getattr(space, "definition", None), "file", None)
    return [
        _baseline(space, name, genotype, signature, file.baselines.get(name) if file is not None else None)
        for name, genotype in space.baselines().items()
    ]


def _baseline(space: Space, name: str, genotype: Genotype, signature: Signature, about: Any) -> BaselineFact:
    from cambrian.sandbox.examination.static import check

    published = about.parameters if about is not None else None
    if about is not None and about.at is not None:
        signature = Signature(**about.at.model_dump(exclude={"tolerance"}))
    try:
        summary = space.summarise(genotype)
        count = check(space, genotype, signature, batch_size=2).parameters
    except Exception as error:  # as for the designs
        return BaselineFact(name=name, summary="", published=published, problem=_reason(error))
    problem = ""
    tolerance = about.at.tolerance if about is not None and about.at is not None else 0.0
    if published is not None and abs(count - published) > tolerance * published:
        problem = f"has {count:,} parameters, published are {published:,}"
    elif space.validate(json.loads(json.dumps(genotype))) != genotype:
        problem = "is not in canonical form"
    return BaselineFact(name=name, summary=summary, parameters=count, published=published, problem=problem)


def _task_fact(space: Space, name: str, designs: list[Genotype]) -> TaskFact:
    from cambrian.sandbox.examination.static import check

    try:
        signature = create_listed(name).signature
    except UnknownNameError as error:
        return TaskFact(name=name, status="does not fit", reason=f"no such task: {error.hint}")
    except CambrianError as error:
        return TaskFact(name=name, status="not tried", reason=error.message)
    reason = misfit(space, signature)
    if reason:
        return TaskFact(name=name, status="does not fit", reason=reason)
    built = 0
    for genotype in designs:
        try:
            check(space, genotype, signature, batch_size=2)
            built += 1
        except Exception as error:  # as for the designs
            reason = reason or f"{space.summarise(genotype)}: {_reason(error)}"
    status: Literal["fits", "does not fit"] = "fits" if built == len(designs) else "does not fit"
    return TaskFact(name=name, status=status, built=built, reason=reason)


def _raw_draws(space: Space, seed: int) -> list[Drawn]:
    definition = getattr(space, "definition", None)
    try:
        return [] if definition is None else list(raw_draws(definition, RAW_DRAWS, random.Random(seed + 2)))
    except CambrianError:  # then the sampler fails in the same way, and that is told
        return []


def _broken(space: Space, designs: list[Genotype], drawn: list[Drawn], seed: int) -> dict[Missing, Failure]:
    definition = getattr(space, "definition", None)
    if definition is None:
        return {}
    return broken_choices(definition, designs, drawn, random.Random(seed + 3))


def _never_drawn(space: Space, designs: list[Genotype], told: set[tuple[int, Any]]) -> list[str]:
    definition = getattr(space, "definition", None)
    return [] if definition is None else never_drawn(definition.grammar, designs, told)


def _unused(space: Space) -> list[str]:
    definition = getattr(space, "definition", None)
    return [] if definition is None else unused(definition)


def _reason(error: Exception) -> str:
    return error.message if isinstance(error, CambrianError) else f"{type(error).__name__}: {error}"
