"""What the measurements of a candidate say of a claim, and whether a claim speaks of anything there is."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable

from cambrian.agents.analyst.differences import Readings
from cambrian.agents.analyst.notes import Claim, Way
from cambrian.agents.analyst.verdicts import effect_of
from cambrian.agents.population.model import Candidate
from cambrian.search_spaces import Space, Task

LEAST_WORDS = 3
"""Fewer make no claim."""
_LEAST_CODE = 3
_NAMES = """
accuracy activation attention block cell channel connection conv convolution cost deep deeper depth depthwise
dilation downsample dropout edge expansion filter flop flops group head kernel latency layer linear
loss memory narrow narrower network norm normalisation param params parameter pool pooling recipe
residual score separable shallow shallower skip slow slower stage stem strides stride wide wider width
"""
_PARTS = frozenset(_NAMES.split())
"""Words for parts and measures of networks of any space."""
_FILLING = "all and any false for from has not one the this true two with"
_EMPTY = frozenset(_FILLING.split())


def measured_ways(
    candidate: Candidate, other: Candidate | None, readings: Readings, task: Task
) -> frozenset[Way]:
    """How a candidate differs for real from who it is compared with first; nothing of who breaks a limit."""
    if other is None or not candidate.feasible:
        return frozenset()
    found: set[Way] = set()
    score = readings.difference("score", candidate, other)
    if score is not None and (effect := effect_of(score, task.maximize)) != "tied":
        found.add("better" if effect == "better" else "worse")
    latency = readings.difference("latency_ms", candidate, other)
    if latency is not None and latency.is_real:
        found.add("slower" if latency.change > 0 else "faster")
    return frozenset(found)


def names_known(space: Space, task: Task, networks: Iterable[Candidate]) -> frozenset[str]:
    """What a claim can speak of, as words: genes and values of the space and of networks, measures, parts."""
    texts = [task.metric, json.dumps(space.schema().get("properties", {}))]
    texts += [json.dumps(each.genotype) for each in networks]
    words = {word for text in texts for word in _words(text)}
    return frozenset(w for w in words - _EMPTY if len(w) >= _LEAST_CODE and not w.isdigit()) | _PARTS


def empty_claim(claim: Claim, known: frozenset[str]) -> str:
    """Why a claim says nothing; empty where it may say something."""
    words = _words(claim.claim)
    if len(words) < LEAST_WORDS:
        return f"fewer than {LEAST_WORDS} words are no claim"
    named = {*words, *(word.removesuffix("s") for word in words), *_words(claim.scope)}
    if not named & known and not re.search(r"\bc-\d{4,}\b", str(claim)):
        return "it names no gene, value, layer, measure or network"
    return ""


def _words(text: str) -> list[str]:
    return re.findall(r"[^\W_]+", text.casefold())
