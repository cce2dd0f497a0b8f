"""Parts of a gain: how much of it the architecture brought, and how much the recipe.

Two networks, each trained by two recipes, are a 2x2 factorial design. A part is the mean effect of changing
one of the two while the other is held; the interaction is what they do together beyond that. FBNetV3
(arXiv 2006.02049) searches both at once and shows why they must be told apart: a better recipe lifts nearly
every network, and is easily taken for a better architecture.
"""

from __future__ import annotations

import math

from pydantic import BaseModel, ConfigDict


class Scores(BaseModel):
    """The four scores, in the task's metric.

    Attributes:
        start: reference architecture, task's recipe.
        recipe: reference architecture, best recipe.
        architecture: best architecture, task's recipe.
        both: best architecture, best recipe. It was chosen for its score, so that it flatters both parts.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    start: float
    recipe: float
    architecture: float
    both: float


class GainParts(BaseModel):
    """What architecture and recipe each brought; architecture + recipe is the whole gain.

    Attributes:
        reference: name of the known network, or id of the candidate, that the best one is compared with.
        best: id of the best candidate.
        rung: at which all four were trained, with one seed.
        scores: None when they could not all be measured.
        architecture: mean of the two effects of the architecture, in the task's metric, positive is better.
        recipe: mean of the two effects of the recipe.
        interaction: effect of the recipe on the best architecture less that on the reference.
        noise: standard error of a part, by the noise over seeds where the run measured it and by the finite
            validation sample, whichever is larger; 0 when neither is known.
        verdict: one plain sentence.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    reference: str = ""
    best: str = ""
    rung: int = 0
    scores: Scores | None = None
    architecture: float | None = None
    recipe: float | None = None
    interaction: float | None = None
    noise: float = 0.0
    verdict: str


def parts_of_gain(
    scores: Scores,
    *,
    metric: str,
    maximize: bool,
    noise: float,
    reference: str,
    best: str,
    rung: int,
    same: str = "",
) -> GainParts:
    """The parts of the gain of `best` over `reference`.

    Args:
        scores: the four cells.
        metric: its name, which says how values are written.
        maximize: whether a higher score is better.
        noise: standard error of the difference of two scores. Of four independent ones a part has 1/sqrt(2)
            of it and the interaction sqrt(2) times it.
        reference: name of the reference.
        best: name of the best candidate.
        rung: where the scores were read.
        same: what the best one shares with the reference, `architecture` or `recipe`; empty for neither. Then
            there are two scores only, and their difference is the other part.
    """
    sign = 1.0 if maximize else -1.0
    upper, lower = scores.both - scores.recipe, scores.architecture - scores.start
    right, left = scores.both - scores.architecture, scores.recipe - scores.start
    architecture, recipe = sign * (upper + lower) / 2, sign * (right + left) / 2
    interaction, error = sign * (right - left), noise if same else noise / math.sqrt(2)
    effects = {"architecture": (architecture, error), "recipe": (recipe, error)}
    effects["interaction"] = (interaction, 2 * error)
    if same:
        effects = {name: effects[name] for name in ("architecture", "recipe") if name != same}
    shown = ", ".join(f"{name} {_effect(value, noise, metric)}" for name, (value, noise) in effects.items())
    unit = " points" if "accuracy" in metric else f" of {metric}"
    if same:
        unit += f"; the {same} is the same"
    return GainParts(
        reference=reference,
        best=best,
        rung=rung,
        scores=scores,
        architecture=architecture,
        recipe=recipe,
        interaction=interaction,
        noise=error,
        verdict=f"parts of the gain of {best} over {reference}: {shown}{unit}",
    )


def not_measured(reason: str) -> GainParts:
    """The answer when there are not four scores."""
    return GainParts(verdict=f"parts of the gain of architecture and recipe: not measured, {reason}")


def _effect(value: float, error: float, metric: str) -> str:
    """`+0.80 ± 0.35`, and whether that is more than noise; shares in hundredths."""
    scale, form = (100.0, "+.2f") if "accuracy" in metric else (1.0, "+.3g")
    said = f"{scale * value:{form}}"
    if not error:
        return said
    return f"{said} ± {scale * error:.2g}{' (noise)' if abs(value) <= error else ''}"
