"""Prompt templates: found, rendered strictly, and versioned.

Templates are Jinja2 files in the layout of `cambrian.prompts`: `base/NAME.j2` for all spaces and
`<space>/NAME.j2` for one, which may as well be `prompts/NAME.j2` in the folder of the space. A folder of the
user's in the same layout goes before both, file by file: the one that `CAMBRIAN_PROMPTS` names, else
`prompts/` in the working directory.

| name in a template       | file that is taken                                               |
| ------------------------ | ---------------------------------------------------------------- |
| `propose.j2`             | `<space>/propose.j2`, else `base/propose.j2`                     |
| `<space>/propose.j2`     | the user's, else that of the space's folder, else the shipped one|
| `base/propose.j2`        | that file, the user's before the shipped one                     |
| `shipped/base/propose.j2`| the shipped one: for a user's file that extends its equal        |
| `own/propose.j2`         | that of the space's folder, for the same                         |
"""

from __future__ import annotations

import hashlib
import os
import traceback
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import jinja2
from jinja2 import meta, nodes
from jinja2.exceptions import SecurityError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from cambrian import prompts
from cambrian.agents.errors import UserError
from cambrian.agents.planner.undefined import (
    MissingVariable,
    NamedUndefined,
    Slip,
    forbidden,
    place_of,
    slips,
    undefined,
)
from cambrian.search_spaces import Space, near_names
from cambrian.search_spaces.finding import folder_of

SHIPPED = "shipped/"
OWN = "own/"
Origin = Literal["shipped", "space", "yours"]
"""Where a template's file lies: with us, in the folder of the space, in the user's own folder."""


@dataclass(frozen=True)
class Rendered:
    """A prompt and what it was made from.

    Attributes:
        version: short hash of the template and of all it extends, includes and imports.
    """

    text: str
    name: str
    version: str


class Templates:
    """The templates for one space.

    Args:
        space: name of the space, which is the name of its folder.
        user_folder: looked into before the shipped templates; None finds it as the module tells.
        own_folder: templates that the space brings along; None when it brings none.
        users: whether the user's folder is looked into at all.
        kept: sources by name, with where each came from, instead of any file: templates of a past run.

    Raises:
        UserError: `CAMBRIAN_PROMPTS` names no folder.
    """

    def __init__(
        self,
        space: str,
        user_folder: Path | None = None,
        own_folder: Path | None = None,
        *,
        users: bool = True,
        kept: Mapping[str, tuple[str, Origin]] | None = None,
    ) -> None:
        self.space = space
        self.own_folder = own_folder
        self.shipped = Path(str(prompts.__file__)).resolve().parent
        found = users and kept is None
        self.user_folder = (user_folder or _find_user_folder(self.shipped)) if found else None
        self._kept = kept
        self._environment = ImmutableSandboxedEnvironment(
            loader=jinja2.FunctionLoader(self._load),
            undefined=NamedUndefined,
            autoescape=False,  # prompts are text, not HTML
            trim_blocks=True,
            lstrip_blocks=True,
            auto_reload=False,
        )
        self._sources: dict[str, tuple[str, str, None]] = {}
        self._trees: dict[str, nodes.Template] = {}
        self._versions: dict[str, str] = {}

    @classmethod
    def of(cls, space: Space, *, users: bool = True) -> Templates:
        """The templates for `space`, those of its folder included; `users` as above."""
        folder = folder_of(space)
        own = folder / "prompts" if folder is not None else None
        return cls(space.name, own_folder=own, users=users)

    def render(self, name: str, variables: Mapping[str, Any]) -> Rendered:
        """Render a template.

        Args:
            name: such as `propose.j2`.
            variables: plain data only: strings, numbers, lists and mappings.

        Raises:
            UserError: there is no such template, it cannot be parsed, it uses a variable that does not exist
                (near names are told) or does what the sandbox forbids.
        """
        try:
            template = self._environment.get_template(name)
            text = template.render(variables)
            return Rendered(text.strip() + "\n", name, self.version(name))
        except MissingVariable as error:
            raise undefined(self._place(error, name), error.name, error.owner, variables) from error
        except jinja2.TemplateNotFound as error:
            wanted = str(error.name or name)
            raise UserError(
                f"prompt template {wanted!r} is not there", hint=near_names(wanted, self.names())
            ) from error
        except jinja2.TemplateSyntaxError as error:
            raise _unparsable(error, self.place(error.name or name)) from error
        except SecurityError as error:
            raise forbidden(self._place(error, name), str(error.message)) from error
        except RecursionError as error:
            raise UserError(
                f"prompt template {name} extends or includes itself without end",
                hint=f"write '{SHIPPED}base/{name}' to extend the shipped template of the same name",
            ) from error
        except (jinja2.TemplateError, TypeError, ValueError, ArithmeticError, LookupError) as error:
            raise UserError(f"prompt template {self._place(error, name)}: {error}") from error

    def slips(self, name: str, variables: Mapping[str, Any]) -> list[Slip]:
        """All that a rendering uses and is not there, or may not be used; `render` stops at the first."""
        return list(slips(self._environment, name, variables).values())

    def version(self, name: str) -> str:
        """Short hash over the resolved sources of `name` and of every template it draws upon."""
        if name not in self._versions:
            self._versions[name] = version_of(self.sources(name).values())
        return self._versions[name]

    def sources(self, name: str) -> dict[str, str]:
        """The source of `name` and of all that it draws upon, by the names they are referred to by.

        Raises:
            UserError: one of them cannot be read or parsed.
        """
        sources: dict[str, str] = {}
        self._gather(name, sources)
        return sources

    def resolved(self, name: str) -> str:
        """All of `sources` as one text, each under a comment that tells which it is."""
        return "".join(f"{part_heading(part)}{text}" for part, text in self.sources(name).items())

    def parse(self, name: str) -> nodes.Template | None:
        """The syntax tree of a template; None when there is no such template.

        Raises:
            UserError: it cannot be read or parsed.
        """
        if name not in self._trees:
            loaded = self._load(name)
            if loaded is None:
                return None
            try:
                self._trees[name] = self._environment.parse(loaded[0], self.place(name))
            except jinja2.TemplateSyntaxError as error:
                raise _unparsable(error, self.place(name)) from error
        return self._trees[name]

    def origin(self, name: str) -> Origin:
        """Where the file of `name` lies."""
        if self._kept is not None:
            return self._kept[name][1] if name in self._kept else "shipped"
        if self.is_users(name):
            return "yours"
        path = self.path(name)
        own = path is not None and self.own_folder is not None and path.is_relative_to(self.own_folder)
        return "space" if own else "shipped"

    def place(self, name: str) -> str:
        """The file of `name` as messages write it: its folder and its name."""
        path = self.path(name)
        return name if path is None else f"{path.parent.name}/{path.name}"

    def names(self) -> list[str]:
        """Names of all templates that can be rendered for this space."""
        if self._kept is not None:
            return sorted(name for name in self._kept if "/" not in name)
        folders = [root / folder for root in self._roots() for folder in ("base", self.space)]
        if self.own_folder is not None:
            folders.append(self.own_folder)
        return sorted({path.name for folder in folders for path in folder.glob("*.j2")})

    def is_users(self, name: str) -> bool:
        """Whether `name` comes from the user's folder rather than from ours."""
        path = self.path(name)
        return path is not None and self.user_folder is not None and path.is_relative_to(self.user_folder)

    def path(self, name: str) -> Path | None:
        """The file that is taken for `name`; None when there is none."""
        if self._kept is not None or ".." in name.split("/") or name.startswith("/"):
            return None
        if name.startswith(SHIPPED):
            paths = [self.shipped / name.removeprefix(SHIPPED)]
        elif name.startswith(OWN):
            paths = [self.own_folder / name.removeprefix(OWN)] if self.own_folder is not None else []
        else:
            wanted = [name] if "/" in name else [f"{self.space}/{name}", f"base/{name}"]
            paths = [path for item in wanted for path in self._paths(item)]
        return next((path for path in paths if path.is_file()), None)

    def _paths(self, name: str) -> list[Path]:
        """Where `FOLDER/NAME.j2` may lie, the first that exists is taken."""
        paths = [root / name for root in self._roots()]
        if self.own_folder is not None and name.startswith(f"{self.space}/"):
            paths.insert(len(paths) - 1, self.own_folder / name.removeprefix(f"{self.space}/"))
        return paths

    def _roots(self) -> list[Path]:
        return [self.shipped] if self.user_folder is None else [self.user_folder, self.shipped]

    def _load(self, name: str) -> tuple[str, str, None] | None:
        """Source and file, read once: what is rendered and what is hashed must not differ."""
        if name in self._sources:
            return self._sources[name]
        if self._kept is not None:
            return (self._kept[name][0], name, None) if name in self._kept else None
        path = self.path(name)
        if path is None:
            return None
        try:
            return self._sources.setdefault(name, (path.read_text(encoding="utf-8"), str(path), None))
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"prompt template {path} cannot be read: {error}") from error

    def _gather(self, name: str, sources: dict[str, str]) -> None:
        loaded = self._load(name)
        if name in sources or loaded is None:
            return
        sources[name] = loaded[0]
        tree = self.parse(name)
        for other in meta.find_referenced_templates(tree) if tree is not None else ():
            if other is not None:
                self._gather(other, sources)

    def _place(self, error: BaseException, name: str) -> str:
        """The innermost template frame of a traceback: Jinja2 puts the templates' own lines there."""
        frames = [f for f in traceback.extract_tb(error.__traceback__) if f.filename.endswith(".j2")]
        if not frames:
            return name
        return place_of(frames[-1].filename, frames[-1].lineno or 1)


def version_of(sources: Iterable[str]) -> str:
    """Short hash over sources in their order."""
    digest = hashlib.sha256()
    for source in sources:
        digest.update(len(source).to_bytes(8, "big") + source.encode())
    return digest.hexdigest()[:12]


def part_heading(name: str) -> str:
    """What stands before a source where several are written one after the other."""
    return f"{{# ======== {name} ======== #}}\n"


def _unparsable(error: jinja2.TemplateSyntaxError, place: str) -> UserError:
    return UserError(f"prompt template {place} line {error.lineno} cannot be parsed: {error.message}")


def _find_user_folder(shipped: Path) -> Path | None:
    named = os.environ.get("CAMBRIAN_PROMPTS", "").strip()
    if named:
        folder = Path(named).expanduser().resolve()
        if not folder.is_dir():
            raise UserError(
                f"CAMBRIAN_PROMPTS names {named!r}, which is no folder", hint="name a folder, or unset it"
            )
        return folder
    folder = Path("prompts").resolve()
    return folder if folder.is_dir() and folder != shipped else None
