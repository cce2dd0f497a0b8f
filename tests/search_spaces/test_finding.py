"""Where spaces are found, which one wins, and what of a folder counts."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from cambrian.search_spaces import SPACES, Space, UnknownNameError, UserError
from cambrian.search_spaces.finding import (
    MAX_BYTES,
    SHIPPED,
    absolute,
    copy_folder,
    files_of,
    folder_of,
    open_folder,
    user_folder,
)
from tests.support.folders import write_space


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory; the user's spaces are in `spaces` of it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CAMBRIAN_SPACES", str(tmp_path / "spaces"))
    return tmp_path


def test_shipped_folders_are_names() -> None:
    shipped = {path.parent.name for path in SHIPPED.glob("*/space.yaml")}
    assert {"cell", "convnet"} <= shipped <= {*SPACES.names()}
    found = SPACES.find("cell")
    assert (found.origin, found.folder, found.note) == ("shipped", SHIPPED / "cell", "")


def test_each_shipped_folder_is_named_as_its_space() -> None:
    for path in sorted(SHIPPED.glob("*/space.yaml")):
        assert open_folder(path.parent, path.parent.name).name == path.parent.name


def test_listing_the_names_reads_no_space(here: Path) -> None:
    (write_space(here / "spaces" / "broken") / "space.yaml").write_text("no: [")
    assert "broken" in SPACES.names()
    with pytest.raises(UserError, match=r"broken/space\.yaml is not YAML at line 2"):
        SPACES.create("broken")


def test_the_user_s_spaces_are_found_by_name(here: Path) -> None:
    folder = write_space(here / "spaces" / "mine")
    space = SPACES.create("mine")
    assert space.name == "mine" and folder_of(space) == folder
    assert SPACES.find("mine").origin == "yours"


def test_the_config_directory_is_where_xdg_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("CAMBRIAN_SPACES", raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    assert user_folder() == tmp_path / "cambrian" / "spaces"
    write_space(tmp_path / "cambrian" / "spaces" / "mine")
    assert "mine" in SPACES.names()
    monkeypatch.delenv("XDG_CONFIG_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert user_folder() == tmp_path / ".config" / "cambrian" / "spaces"


def test_the_working_directory_goes_before_the_user_s_and_these_before_ours(here: Path) -> None:
    write_space(here / "spaces" / "cell")
    yours = SPACES.find("cell")
    assert (yours.origin, yours.shadows) == ("yours", "shipped")
    assert yours.note == f"space 'cell' is the one in {here / 'spaces' / 'cell'}; the shipped one is not used"
    write_space(here / "search_spaces" / "cell")
    nearest = SPACES.find("cell")
    assert (nearest.origin, nearest.shadows) == ("here", "yours")
    assert folder_of(SPACES.create("cell")) == here / "search_spaces" / "cell"


def test_our_own_folder_is_not_the_user_s(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(SHIPPED.parent)
    assert SPACES.find("cell").origin == "shipped"


def test_a_folder_must_say_the_name_that_it_is_found_by(here: Path) -> None:
    write_space(here / "spaces" / "mine", name="other")
    with pytest.raises(UserError, match="name: says 'other', but it was asked for as 'mine'"):
        SPACES.create("mine")
    assert SPACES.open("./spaces/mine").name == "other", "by its path it may be called what it likes"


def test_paths_start_from_the_base(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_space(here / "a" / "mine")
    for text, base in (
        ("./mine", here / "a"),
        ("a/mine", None),
        (str(folder), None),
        ("./mine/space.yaml", here / "a"),
    ):
        found = SPACES.find(text, base)
        assert (found.name, found.origin) == ("mine", "path")
        assert found.folder is not None and found.folder.resolve() == folder
    monkeypatch.setenv("HOME", str(here))
    assert SPACES.open("~/a/mine").name == "mine"
    assert absolute("./mine", here / "a") == str(folder)
    assert absolute("cell", here) == "cell"


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("cel", "unknown space 'cel'", "did you mean cell"),
        ("./a/mina", "no space in ./a/mina: ", "did you mean mine"),
        ("./a", "a holds no space.yaml", "cambrian spaces new"),
        ("nowhere/at/all", "is no folder", "cambrian spaces new"),
    ],
)
def test_what_is_not_there_is_told_with_the_near_names(
    here: Path, text: str, message: str, hint: str
) -> None:
    write_space(here / "a" / "mine")
    with pytest.raises(UnknownNameError) as caught:
        SPACES.find(text)
    assert message in caught.value.message and hint in caught.value.hint


# Packages ---------------------------------------------------------------------------------------------------


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """An installed package with entry points of every kind."""
    write_space(tmp_path / "parcel" / "inner", name="by-path")
    (tmp_path / "parcel" / "inner" / "space.yaml").rename(tmp_path / "parcel" / "inner" / "kept")
    write_space(tmp_path / "parcel" / "by-path")
    write_space(tmp_path / "of_module", name="of-module")
    (tmp_path / "of_module" / "__init__.py").write_text("")
    (tmp_path / "parcel" / "__init__.py").write_text(
        "from pathlib import Path\n"
        "FOLDER = Path(__file__).parent / 'by-path'\n"
        "def make():\n"
        "    from cambrian.search_spaces.finding import open_folder\n"
        "    return open_folder(FOLDER)\n"
    )
    about = tmp_path / "parcel-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: parcel\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text(
        "[cambrian.spaces]\n"
        "by-call = parcel:make\n"
        "by-path = parcel:FOLDER\n"
        "of-module = of_module\n"
        "empty = parcel\n"
        "missing = no_such_package_anywhere\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    yield
    for name in ("by-call", "by-path", "of-module", "empty"):
        SPACES._loaded.pop(name, None)


@pytest.mark.parametrize(
    ("asked", "got"), [("by-call", "by-path"), ("by-path", "by-path"), ("of-module", "of-module")]
)
def test_a_package_may_give_a_callable_a_path_or_a_module(package: None, asked: str, got: str) -> None:
    space = SPACES.create(asked)
    assert isinstance(space, Space) and space.name == got and folder_of(space) is not None
    assert SPACES.find(asked).origin == "registered"


def test_a_package_without_a_space_is_named(package: None) -> None:
    with pytest.raises(UserError, match=r"the module parcel, whose folder holds no space\.yaml"):
        SPACES.create("empty")
    with pytest.raises(UserError, match="needs the package 'no_such_package_anywhere'"):
        SPACES.create("missing")


def test_what_this_process_registers_is_a_space_too(monkeypatch: pytest.MonkeyPatch) -> None:
    made = SPACES.create("cell")
    monkeypatch.setattr(SPACES, "_loaded", dict(SPACES._loaded))
    SPACES.register("again", lambda: made)
    assert "again" in SPACES.names() and SPACES.open("again") is made
    with pytest.raises(UserError, match="already registered"):
        SPACES.register("cell", lambda: made)


# The files of a folder --------------------------------------------------------------------------------------


def test_a_copy_holds_what_belongs_to_a_space_and_nothing_else(tmp_path: Path) -> None:
    folder = write_space(tmp_path / "mine", custom=True)
    (folder / "prompts" / "propose.j2").write_text("hello")
    (folder / "knowledge" / "a.md").write_text("# A\ntext")
    for extra in ("weights.bin", "prompts/old.txt", "notes.md"):
        (folder / extra).write_bytes(b"\xff\x00")
    copy_folder(folder, tmp_path / "copy")
    copied = {
        p.relative_to(tmp_path / "copy").as_posix() for p in (tmp_path / "copy").rglob("*") if p.is_file()
    }
    assert (
        copied == {"space.yaml", "blocks.py", "prompts/propose.j2", "knowledge/a.md"} == {*files_of(folder)}
    )
    assert open_folder(tmp_path / "copy").schema() == open_folder(folder).schema()


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"x" * MAX_BYTES, r"with knowledge/a\.md it holds more than 1000 kB"),
        (b"\xff\xfe", "is not UTF-8 text"),
        (b"a\0b", "is not text"),
    ],
)
def test_large_files_and_other_than_text_are_refused(tmp_path: Path, content: bytes, says: str) -> None:
    folder = write_space(tmp_path / "mine")
    (folder / "knowledge" / "a.md").write_bytes(content)
    with pytest.raises(UserError, match=says):
        files_of(folder)


def test_a_folder_that_may_not_be_read_has_no_spaces(here: Path) -> None:
    write_space(here / "spaces" / "mine")
    (here / "spaces").chmod(0)
    try:
        assert os.geteuid() == 0 or "mine" not in SPACES.names()
    finally:
        (here / "spaces").chmod(0o755)
