"""Which tasks a space fits: the kind of input first, then whether its designs can be built for it."""

from __future__ import annotations

import random

from cambrian.agents.errors import CambrianError, RunFileError
from cambrian.search_spaces import TASKS, Signature, Space, Task
from cambrian.search_spaces.declarative.shape import input_of
from cambrian.search_spaces.tasks.listing import parse_listed
from cambrian.search_spaces.tasks.views import VIEWS

TRIED = 6
"""Designs that are built before a task counts as one that the space does not fit."""
_KINDS = {"image": "images", "sequence": "sequences", "ids": "token ids", "vector": "vectors"}


def kind_of(signature: Signature) -> str:
    """What a task gives, in the plural: images, sequences, token ids, vectors or node ids of a graph.

    Raises:
        ProposalError: inputs of a rank that no kind has.
    """
    return "node ids of a graph" if signature.graph is not None else _KINDS[input_of(signature).kind]


def inputs_in_words(signature: Signature) -> str:
    """One sample's input for people and planners, such as `image 1x28x28`."""
    graph = signature.graph
    if graph is not None:
        return (
            f"id of a node of one graph of {graph.nodes} nodes with {graph.features} features each "
            f"and {graph.edges} directed edges"
        )
    sizes = "x".join(map(str, signature.input_shape))
    if signature.vocabulary is not None:
        return f"token ids {sizes}, vocabulary of {signature.vocabulary}"
    kind = {1: "vector", 2: "sequence (length x channels)", 3: "image (channels x height x width)"}
    return f"{kind.get(len(signature.input_shape), 'array')} {sizes}"


def kinds_taken(space: Space) -> list[str]:
    """What the space says that it takes; empty where it does not say."""
    signatures = getattr(getattr(space, "definition", None), "signatures", ())
    return list(dict.fromkeys(kind_of(signature) for signature in signatures))


def misfit(space: Space, signature: Signature) -> str:
    """Why no network of `space` can take inputs of `signature`; empty when some can.

    Code spaces are believed: their networks are never built here.
    """
    taken = kinds_taken(space)
    if taken and kind_of(signature) not in taken:
        return f"gives {kind_of(signature)}, space {space.name!r} takes {' or '.join(taken)}"
    if space.kind == "code":
        return ""
    from cambrian.sandbox.examination.static import check

    rng, reason = random.Random(0), ""
    known = list(space.baselines().values())[:2]
    for design in [*known, *[None] * TRIED]:
        try:
            check(space, design or space.sample(rng), signature, batch_size=2)
        except Exception as error:  # a space without typed shapes may fail in any way
            reason = error.message if isinstance(error, CambrianError) else f"{type(error).__name__}: {error}"
        else:
            return ""
    shape = "x".join(map(str, signature.input_shape))
    return f"gives {kind_of(signature)} of {shape}, for which space {space.name!r} builds nothing: {reason}"


def check_fit(space: Space, task: Task, origin: str) -> None:
    """Refuse a task that the space cannot take.

    Raises:
        RunFileError: it says why, and names the tasks that fit.
    """
    reason = misfit(space, task.signature)
    if reason:
        if view := fitting_view(space, task.name):
            raise RunFileError(f"{origin}: task: {task.name!r} {reason}", hint=f"set task.view: {view}")
        fitting = fitting_tasks(space)
        hint = f"tasks that fit: {', '.join(fitting)}" if fitting else "no listed task fits this space"
        raise RunFileError(f"{origin}: task: {task.name!r} {reason}", hint=hint)


def fitting_view(space: Space, name: str) -> str:
    """How the task's images have to be seen for the space to take them; empty where no way is known."""
    for view in VIEWS:
        try:
            signature = TASKS.create(name, view=view).signature
        except (CambrianError, TypeError):  # it is not registered, or knows no views
            continue
        if not misfit(space, signature):
            return view
    return ""


def listed_tasks(space: Space) -> list[str]:
    """The tasks that the space says it fits, some with options; empty where it does not say."""
    return list(getattr(getattr(getattr(space, "definition", None), "file", None), "tasks", ()))


def fitting_tasks(space: Space) -> list[str]:
    """Tasks that the space lists, else all registered ones of the right kind that need no options."""
    listed = [text for text in listed_tasks(space) if parse_listed(text)[0] in TASKS.names()]
    if listed:
        return listed
    found = []
    for name in TASKS.names():
        try:
            if not misfit(space, TASKS.create(name).signature):
                found.append(name)
        except (CambrianError, TypeError):  # its data are missing, or it is made of the user's own
            continue
    return found
