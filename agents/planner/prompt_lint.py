"""What is wrong with templates by their text alone: nothing is rendered.

Jinja2 passes over a block that no parent has, and over text of a child outside of its blocks: both are slips
that no rendering shows.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Literal

from jinja2 import meta, nodes
from pydantic import BaseModel, ConfigDict

from cambrian.agents.errors import UserError
from cambrian.agents.planner.templates import Templates
from cambrian.agents.sections import Role
from cambrian.search_spaces import SPACES, near_names

ROLES: dict[str, tuple[Role, ...]] = {
    "system.j2": ("propose", "repair"),
    "propose.j2": ("propose",),
    "repair.j2": ("repair",),
    "schema.j2": ("propose", "repair", "analyse"),
    "analyse.j2": ("analyse",),
}
"""The templates that are rendered, and which roles each is sent for; others are parts of these."""
_BUILT_IN = frozenset({"range", "dict", "lipsum", "cycler", "joiner", "namespace", "true", "false", "none"})


class Finding(BaseModel):
    """Something about a template. An error makes a run impossible, or an edit of the user's vain.

    Attributes:
        template: name of what is rendered.
        message: one line, which names file and line where there is one.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    level: Literal["error", "warning"]
    template: str
    message: str
    hint: str = ""


class Parentage(BaseModel):
    """What a template extends, nearest first, and the blocks that it overrides of them."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    extends: tuple[str, ...] = ()
    overrides: tuple[str, ...] = ()
    blocks: tuple[str, ...] = ()


def parentage(templates: Templates, name: str) -> Parentage:
    """Raises UserError when one of them cannot be parsed."""
    chain = _chain(templates, name)
    own = _blocks(chain[0][1]) if chain else []
    above = {block for _, tree in chain[1:] for block in _blocks(tree)}
    return Parentage(
        extends=tuple(part for part, _ in chain[1:]),
        overrides=tuple(block for block in own if block in above),
        blocks=tuple(dict.fromkeys(block for _, tree in reversed(chain) for block in _blocks(tree))),
    )


def lint(templates: Templates, name: str, known: Collection[str]) -> Iterator[Finding]:
    """What is wrong with `name` and all that it draws upon.

    Args:
        templates: of a space.
        name: of a template that is rendered.
        known: variables that it is given.
    """
    try:
        chain = _chain(templates, name)
        parts = [(part, templates.parse(part)) for part in templates.sources(name)]
    except UserError as error:
        yield Finding(level="error", template=name, message=error.message, hint=error.hint)
        return
    yield from _overrides(templates, name, chain)
    given = {*known, *_BUILT_IN, *(assigned for _, tree in chain for assigned in _assigned(tree))}
    for part, tree in parts:
        if tree is not None:
            yield from _unknown(templates, name, part, tree, given)


def never_taken(templates: Templates, rendered: Collection[str]) -> Iterator[Finding]:
    """Files of the user's and of the space's that no prompt is made from, each a slip or a leftover."""
    try:
        used = {templates.path(part) for name in rendered for part in templates.sources(name)}
    except UserError:  # said elsewhere
        return
    for path in _files(templates):
        if path in used:
            continue
        label = f"{path.parent.name}/{path.name}"
        known = list(dict.fromkeys([*ROLES, *sorted(p.name for p in used if p is not None)]))
        first = path.name in known
        hint = f"{_first(used, path.name)} comes first" if first else near_names(path.name, known)
        yield Finding(
            level="warning", template=path.name, message=f"no prompt is made from {label} ({path})", hint=hint
        )
    yield from _strange_folders(templates)


def _chain(templates: Templates, name: str) -> list[tuple[str, nodes.Template]]:
    """`name` and what it extends, one after the other, by the names they are referred to by."""
    chain: list[tuple[str, nodes.Template]] = []
    part: str | None = name
    while part is not None and part not in {seen for seen, _ in chain}:
        tree = templates.parse(part)
        if tree is None:
            break
        chain.append((part, tree))
        above = next(tree.find_all(nodes.Extends), None)
        named = None if above is None else above.template
        part = str(named.value) if isinstance(named, nodes.Const) else None
    return chain


def _overrides(templates: Templates, name: str, chain: list[tuple[str, nodes.Template]]) -> Iterator[Finding]:
    """Blocks that override nothing, and text that is passed over."""
    for i, (part, tree) in enumerate(chain[:-1]):
        above = [block for _, parent in chain[i + 1 :] for block in _blocks(parent)]
        for node in tree.body:
            place = f"{templates.place(part)} line {node.lineno}"
            if isinstance(node, nodes.Block) and node.name not in above:
                # not a slip of the user's where ours is what extends theirs, but our words are lost
                yield Finding(
                    level="warning" if templates.origin(part) == "shipped" else "error",
                    template=name,
                    message=f"prompt template {place}: block {node.name!r} is in no template that it "
                    "extends, so it is never shown",
                    hint=near_names(node.name, sorted(set(above))),
                )
            elif isinstance(node, nodes.Output) and _says_something(node):
                yield Finding(
                    level="warning",
                    template=name,
                    message=f"prompt template {place}: text outside of all blocks is never shown",
                    hint="write it in a block",
                )


def _unknown(
    templates: Templates, name: str, part: str, tree: nodes.Template, given: Collection[str]
) -> Iterator[Finding]:
    """Variables that nobody gives, in branches too that are rarely rendered; asking for them is no slip."""
    asked = {
        test.node.name
        for test in tree.find_all(nodes.Test)
        if test.name in ("defined", "undefined") and isinstance(test.node, nodes.Name)
    }
    for variable in sorted(meta.find_undeclared_variables(tree) - set(given) - asked):
        lines = [n.lineno for n in tree.find_all(nodes.Name) if n.name == variable and n.ctx == "load"]
        yield Finding(
            level="error",
            template=name,
            message=f"prompt template {templates.place(part)} line {min(lines, default=1)} uses "
            f"{variable!r}, which is not defined",
            hint=near_names(variable, sorted(set(given) - _BUILT_IN)),
        )


def _strange_folders(templates: Templates) -> Iterator[Finding]:
    """Folders of the user's that are named like no space."""
    if templates.user_folder is None:
        return
    known = ["base", templates.space, *SPACES.names()]
    for folder in sorted(path for path in templates.user_folder.iterdir() if path.is_dir()):
        if folder.name not in known and any(folder.glob("*.j2")):
            yield Finding(
                level="warning",
                template="",
                message=f"{folder} is named like no space, so nothing in it is ever taken",
                hint=near_names(folder.name, known),
            )


def _files(templates: Templates) -> list[Path]:
    """All templates of the user's and of the space's own folder that this space might take."""
    folders = [] if templates.user_folder is None else [templates.user_folder / "base"]
    if templates.user_folder is not None:
        folders.append(templates.user_folder / templates.space)
    if templates.own_folder is not None:
        folders.append(templates.own_folder)
    return [path for folder in folders for path in sorted(folder.glob("*.j2"))]


def _first(used: Collection[Path | None], name: str) -> str:
    return next((str(path) for path in used if path is not None and path.name == name), name)


def _blocks(tree: nodes.Template) -> list[str]:
    return [block.name for block in tree.find_all(nodes.Block)]


def _assigned(tree: nodes.Template) -> Iterator[str]:
    """Names that a template defines for the blocks of those that extend it."""
    for node in tree.body:
        if isinstance(node, nodes.Import):
            yield node.target
        elif isinstance(node, nodes.FromImport):
            yield from (name if isinstance(name, str) else name[1] for name in node.names)
        elif isinstance(node, nodes.Macro):
            yield node.name
        elif isinstance(node, nodes.Assign | nodes.AssignBlock):
            yield from (name.name for name in node.target.find_all(nodes.Name))
            if isinstance(node.target, nodes.Name):
                yield node.target.name


def _says_something(node: nodes.Output) -> bool:
    return any(not isinstance(part, nodes.TemplateData) or part.data.strip() for part in node.nodes)
