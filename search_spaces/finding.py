"""Where spaces are found: shipped folders, the user's own, packages, and any folder by its path.

A *space folder* holds `space.yaml` (see LANGUAGE.md). A name is looked up, the first that has it wins:

| place | origin |
| --- | --- |
| `search_spaces/NAME` of the working directory | `here` |
| the folder that `CAMBRIAN_SPACES` names, else `cambrian/spaces` of the config directory | `yours` |
| `SPACES.register`, or a built-in class | `registered` |
| a folder beside this module | `shipped` |
| an entry point of the group `cambrian.spaces` | `registered` |

An entry point gives a callable that returns a space, or a module, package or path whose folder is a space
folder. Text with a separator, or that begins with `.` or `~`, is a path.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Literal, cast

from cambrian.search_spaces.errors import UnknownNameError, UserError
from cambrian.search_spaces.registry import Registry, near_names
from cambrian.search_spaces.space import Space

FILE = "space.yaml"
PARTS = (FILE, "blocks.py", "prompts/*.j2", "knowledge/*.md")
"""All that belongs to a space folder; other files in it are left alone."""
MAX_BYTES = 1_000_000
SHIPPED = Path(__file__).resolve().parent

Origin = Literal["here", "yours", "shipped", "registered", "path"]


@dataclass(frozen=True)
class Found:
    """A space that was found, before it is opened.

    Attributes:
        name: what it was asked for by; of a path, the folder's name.
        folder: None when it is not made from one, or when only opening it tells.
        shadows: the origin of the space of the same name that it takes the place of.
    """

    name: str
    origin: Origin
    folder: Path | None = None
    shadows: Origin | None = None

    @property
    def note(self) -> str:
        """One line for people when this space hides another of its name; else empty."""
        if self.shadows is None:
            return ""
        return f"space {self.name!r} is the one in {self.folder}; the {self.shadows} one is not used"


class SpaceRegistry(Registry[Space]):
    """The registry of spaces, which are mostly folders; each method takes both kinds alike."""

    def names(self) -> list[str]:
        """All names, sorted; opens nothing."""
        return sorted({*super().names(), *(name for _, folders in self._places() for name in folders)})

    def find(self, text: str, base: Path | None = None) -> Found:
        """Where the space of that name or path is.

        Args:
            text: a name, or a path of a space folder or of its `space.yaml`.
            base: what relative paths start from; None is the working directory.

        Raises:
            UnknownNameError: there is none; the hint lists the near ones.
        """
        if is_path(text):
            return _at_path(text, base or Path())
        found = [Found(text, origin, each[text]) for origin, each in self._places() if text in each]
        if text in super().names():
            found.append(Found(text, "registered"))
        if text in {*self._targets, *self._loaded}:  # ours, or this process's own
            found.sort(key=lambda one: one.origin == "shipped")
        if not found:
            raise UnknownNameError(f"unknown space {text!r}", hint=near_names(text, self.names()))
        first, *others = found
        if not others or first.origin not in ("here", "yours"):
            return first
        return Found(first.name, first.origin, first.folder, others[0].origin)

    def get(self, name: str) -> Callable[..., Space]:
        """The factory of the space of that name or path; see `Registry.get`."""
        found = self.find(name)
        if found.folder is not None:
            wanted = None if found.origin == "path" else name
            return functools.partial(open_folder, found.folder, wanted)
        made = cast("object", super().get(name))
        if isinstance(made, ModuleType | str | os.PathLike):
            return functools.partial(open_folder, _folder_of(made, name), name)
        return cast("Callable[..., Space]", made)

    def open(self, text: str, base: Path | None = None) -> Space:
        """The space of that name or path.

        Raises:
            UnknownNameError: as `find`.
            UserError: it cannot be used; the message names the file and the place in it.
        """
        found = self.find(text, base)
        return self.create(text) if found.origin != "path" else open_folder(cast("Path", found.folder))

    def _places(self) -> list[tuple[Origin, Mapping[str, Path]]]:
        """Space folders by name, place by place."""
        here = Path("search_spaces").resolve()
        places: list[tuple[Origin, Path]] = [("yours", user_folder()), ("shipped", SHIPPED)]
        if here not in (SHIPPED, user_folder()):
            places.insert(0, ("here", here))
        return [(origin, _space_folders(place)) for origin, place in places]


def is_path(text: str) -> bool:
    """Whether `text` is meant as a path rather than as a name."""
    return text.startswith((".", "~")) or "/" in text or os.sep in text


def absolute(text: str, base: Path) -> str:
    """`text` with a path made absolute, starting from `base`; a name as it is."""
    return str((base / Path(text).expanduser()).absolute()) if is_path(text) else text


def user_folder() -> Path:
    """Where the user keeps spaces that all runs may name; it need not exist."""
    named = os.environ.get("CAMBRIAN_SPACES", "").strip()
    if named:
        return Path(named).expanduser().resolve()
    config = os.environ.get("XDG_CONFIG_HOME", "").strip()
    return (Path(config) if config else Path.home() / ".config") / "cambrian" / "spaces"


def folder_of(space: Space) -> Path | None:
    """The folder that a space was made from; None when it has none."""
    folder = getattr(space, "folder", None)
    return Path(folder) if folder is not None and (Path(folder) / FILE).is_file() else None


def open_folder(folder: Path, name: str | None = None) -> Space:
    """The space in `folder`.

    Args:
        folder: holds `space.yaml`.
        name: what it was asked for by, which the file has to say as well; None takes any.

    Raises:
        UserError: the file is missing or wrong, or says another name.
    """
    from cambrian.search_spaces.declarative.space import DeclarativeSpace

    space = DeclarativeSpace(folder)
    if name is not None and space.name != name:
        raise UserError(
            f"{folder / FILE}: name: says {space.name!r}, but it was asked for as {name!r}",
            hint="give the folder and the space one name",
        )
    return space


def files_of(folder: Path) -> dict[str, bytes]:
    """What belongs to the space in `folder`, by path within it: all that a run keeps and a sandbox gets.

    Raises:
        UserError: a file is no text or cannot be read, or all together are larger than `MAX_BYTES`.
    """
    found: dict[str, bytes] = {}
    total = 0
    for path in (path for pattern in PARTS for path in sorted(folder.glob(pattern))):
        name = path.relative_to(folder).as_posix()
        try:
            total += path.stat().st_size
            if total > MAX_BYTES:
                raise UserError(
                    f"space folder {folder}: with {name} it holds more than {MAX_BYTES // 1000} kB of text",
                    hint="a space is its rules, prompts and notes: keep data and long papers elsewhere",
                )
            content = path.read_bytes()
            content.decode("utf-8")
        except OSError as error:
            raise UserError(f"cannot read {path}: {error.strerror}") from error
        except UnicodeDecodeError as error:
            raise UserError(f"{path} is not UTF-8 text", hint="save it as UTF-8") from error
        if b"\0" in content:
            raise UserError(f"{path} is not text", hint="a space folder holds text only")
        found[name] = content
    return found


def copy_folder(folder: Path, target: Path) -> None:
    """Write the files of the space in `folder` to `target`, which must not exist.

    Raises:
        UserError: as `files_of`.
        OSError: the disk failed.
    """
    for name, content in files_of(folder).items():
        path = target / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def _space_folders(place: Path) -> dict[str, Path]:
    try:
        return {path.parent.name: path.parent for path in sorted(place.glob(f"*/{FILE}"))}
    except OSError:  # a folder that may not be looked into has no space for us
        return {}


def _at_path(text: str, base: Path) -> Found:
    path = Path(absolute(text, base))
    folder = path.parent if path.name == FILE else path
    if (folder / FILE).is_file():
        return Found(folder.resolve().name, "path", folder)
    beside = list(_space_folders(folder.parent))
    hint = near_names(folder.name, beside) if beside else "`cambrian spaces new NAME` writes one"
    what = "holds no space.yaml" if folder.is_dir() else "is no folder"
    raise UnknownNameError(f"no space in {text}: {folder} {what}", hint=hint)


def _folder_of(thing: ModuleType | str | os.PathLike[str], name: str) -> Path:
    """The space folder that an entry point gave."""
    if not isinstance(thing, ModuleType):
        return Path(thing)
    paths = list(getattr(thing, "__path__", [])) or [Path(str(thing.__file__)).parent]
    for path in paths:
        if (Path(path) / FILE).is_file():
            return Path(path)
    raise UserError(
        f"space {name!r}: the entry point gives the module {thing.__name__}, whose folder holds no {FILE}",
        hint="name the package that holds it, or a function that returns a space",
    )
