"""What a space's folder brings to the planner: notes within bounds, and prompts of its own."""

from __future__ import annotations

from pathlib import Path

import pytest

from cambrian.agents.errors import UserError
from cambrian.agents.planner.context import prompt_variables
from cambrian.agents.planner.knowledge import LIMIT, knowledge_of
from cambrian.agents.planner.templates import Templates
from cambrian.search_spaces import SPACES
from cambrian.search_spaces.finding import open_folder
from tests.agents.planner.world import TinySpace, context
from tests.support.folders import write_space


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_space(tmp_path / "mine")


def note(folder: Path, name: str, text: str) -> None:
    (folder / "knowledge" / name).write_text(text, "utf-8")


def propose(folder: Path) -> str:
    space = open_folder(folder)
    return Templates.of(space).render("propose.j2", prompt_variables(context(space))).text


def test_notes_are_shown_in_order_with_their_titles(folder: Path) -> None:
    note(folder, "b.md", "Just text.")
    note(folder, "a.md", "# Width\n\nWide is good.\n")
    assert [(n.title, n.text, n.cut) for n in knowledge_of(open_folder(folder))] == [
        ("Width", "Wide is good.", False),
        ("b", "Just text.", False),
    ]
    text = propose(folder)
    assert "# Notes on this space\n## Width\nWide is good.\n## b\nJust text.\n" in text
    assert text.index("# Search space") < text.index("# Notes on this space") < text.index("# What is known")


def test_comments_are_for_people(folder: Path) -> None:
    note(folder, "a.md", "<!-- a\ncomment -->\n# A\nnote<!-- more -->")
    note(folder, "b.md", "<!-- only this -->\n")
    assert [(n.title, n.text) for n in knowledge_of(open_folder(folder))] == [("A", "note")]


def test_without_notes_nothing_is_said_of_them(folder: Path) -> None:
    assert knowledge_of(open_folder(folder)) == [] == knowledge_of(TinySpace())
    assert "Notes on this space" not in propose(folder)


def test_notes_beyond_the_limit_are_cut_at_a_paragraph_and_named(folder: Path) -> None:
    paragraph = "word " * 100
    note(folder, "a.md", "# First\n" + "\n\n".join([paragraph] * 10))
    note(folder, "b.md", "# Second\n" + "\n\n".join([paragraph] * 10))
    note(folder, "c.md", "# Third\nshort")
    first, second, third = knowledge_of(open_folder(folder))
    assert not first.cut and second.cut and third.cut and third.text == ""
    assert second.text == paragraph.strip() and len(first.text) + len(second.text) <= LIMIT
    text = propose(folder)
    assert "(The rest of this note was left out.)" in text
    assert '(The note "Third" was left out for want of room.)' in text
    assert len(text) < len(propose(write_space(folder.parent / "bare"))) + LIMIT + 300


def test_one_endless_paragraph_is_cut_between_words_and_a_fence_is_closed(folder: Path) -> None:
    note(folder, "a.md", "# Code\n```\n" + "word " * 3000 + "\n```\n")
    (found,) = knowledge_of(open_folder(folder))
    assert found.cut and found.text.endswith("word\n```") and len(found.text) <= LIMIT + 4
    assert propose(folder).count("```") % 2 == 0


def test_a_note_that_is_no_text_is_named(folder: Path) -> None:
    (folder / "knowledge" / "a.md").write_bytes(b"\xff\xfe")
    with pytest.raises(UserError, match=r"a\.md cannot be read"):
        knowledge_of(open_folder(folder))


def test_prompts_of_the_folder_go_before_the_base(folder: Path) -> None:
    (folder / "prompts" / "propose.j2").write_text(
        '{% extends "base/propose.j2" %}{% block advice %}Mine.{% endblock %}'
    )
    templates = Templates.of(open_folder(folder))
    assert "propose.j2" in templates.names()
    assert (
        templates.path("propose.j2") == templates.path("own/propose.j2") == folder / "prompts" / "propose.j2"
    )
    assert "Mine." in propose(folder)
    assert not templates.is_users("propose.j2")


def test_prompts_of_the_user_go_before_those_of_the_folder_and_may_extend_them(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    users = folder.parent / "users"
    (users / "mine").mkdir(parents=True)
    monkeypatch.setenv("CAMBRIAN_PROMPTS", str(users))
    (folder / "prompts" / "propose.j2").write_text("{% block advice %}Mine.{% endblock %}")
    (users / "mine" / "propose.j2").write_text(
        '{% extends "own/propose.j2" %}{% block advice %}{{ super() }} Users.{% endblock %}'
    )
    assert propose(folder) == "Mine. Users.\n"
    assert Templates.of(open_folder(folder)).is_users("propose.j2")


def test_a_folder_of_a_shipped_name_goes_before_the_shipped_prompts(tmp_path: Path) -> None:
    folder = write_space(tmp_path / "convnet")
    (folder / "prompts" / "propose.j2").write_text('{% extends "shipped/convnet/propose.j2" %}')
    own, shipped = Templates.of(open_folder(folder)), Templates.of(SPACES.create("convnet"))
    assert own.path("propose.j2") == own.path("convnet/propose.j2") == folder / "prompts" / "propose.j2"
    assert own.path("shipped/convnet/propose.j2") == shipped.path("propose.j2")
    assert own.path("own/../../secret.j2") is None and shipped.path("own/propose.j2") is None
