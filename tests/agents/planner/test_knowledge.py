"""What a space's folder brings to the planner: notes within bounds, and prompts of its own."""

from __future__ import annotations

from pathlib import Path

import pytest

from cambrian.agents.errors import UserError
from cambrian.agents.planner.context import prompt_variables
from cambrian.agents.planner.knowledge import LONGEST, PASSAGES, knowledge_of, retrieve
from cambrian.agents.planner.templates import Templates
from cambrian.search_spaces import SPACES
from cambrian.search_spaces.finding import open_folder
from tests.agents.planner.world import TinySpace, candidate, context
from tests.support.folders import write_space


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_space(tmp_path / "mine")


def note(folder: Path, name: str, text: str) -> None:
    (folder / "knowledge" / name).write_text(text, "utf-8")


def propose(folder: Path) -> str:
    space = open_folder(folder)
    return Templates.of(space).render("propose.j2", prompt_variables(context(space))).text


def test_notes_are_told_with_their_sources_as_data(folder: Path) -> None:
    note(folder, "b.md", "Just text.")
    note(folder, "a.md", "# Width\n\nWide is good.\n")
    assert [(p.source, p.title, p.text) for p in knowledge_of(open_folder(folder))] == [
        ("a.md", "Width", "Wide is good."),
        ("b.md", "b", "Just text."),
    ]
    text = propose(folder)
    assert "```\n[a.md: Width]\nWide is good.\n[b.md: b]\nJust text.\n```" in text
    assert text.index("# Search space") < text.index("# Notes on this space") < text.index("# What is known")


def test_comments_are_for_people(folder: Path) -> None:
    note(folder, "a.md", "<!-- a\ncomment -->\n# A\nnote<!-- more -->")
    note(folder, "b.md", "<!-- only this -->\n")
    assert [(p.title, p.text) for p in knowledge_of(open_folder(folder))] == [("A", "note")]


def test_without_notes_nothing_is_said_of_them(folder: Path) -> None:
    assert knowledge_of(open_folder(folder)) == [] == knowledge_of(TinySpace())
    assert "Notes on this space" not in propose(folder)


def test_notes_are_taken_apart_at_headings_lists_and_paragraphs(folder: Path) -> None:
    long, dull = "Attention is dear on large maps. " * 10, "Convolution is cheap everywhere. " * 10
    note(
        folder, "a.md", f"# Blocks\n- {long}\n- {dull}\n\n## Sizes\n{long}\n\n{dull}\n\n# Short\nOne.\n\nTwo."
    )
    found = [
        (p.title, p.text.strip("- ")[:12], p.text.count("\n")) for p in knowledge_of(open_folder(folder))
    ]
    assert found == [
        ("Blocks", "Attention is", 0),
        ("Blocks", "Convolution ", 0),
        ("Sizes", "Attention is", 0),
        ("Sizes", "Convolution ", 0),
        ("Short", "One.\nTwo.", 1),
    ]


def test_what_speaks_of_the_question_is_found(folder: Path) -> None:
    topics = {
        "latency": "Latency follows the number of layers, as each layer costs time of its own.",
        "dropout": "Dropout hurts short trainings; leave it at zero while accuracy still rises.",
        "memory": "Out of memory errors come from wide feature maps early in the network.",
        "kernel": "A kernel of 5x5 pays mainly in depthwise blocks, and costs little there.",
    }
    for name, words in topics.items():
        note(folder, f"{name}.md", f"# Note\n{words}")
    for number in range(8):
        note(folder, f"z{number}.md", f"# Other\nNothing that bears on anything, number {number}.")
    space = open_folder(folder)
    for query, name in (
        ("latency_ms <= 2: too slow, drop layers", "latency"),
        ("failed: out of memory, needed 300 MiB", "memory"),
        ("head.dropout 0.1 -> 0.5", "dropout"),
        ("stage separable kernel 5x5", "kernel"),
    ):
        assert retrieve(space, query)[0].source == f"{name}.md"
        assert retrieve(space, query) == retrieve(space, query)
        assert len(retrieve(space, query)) == PASSAGES
        assert len(retrieve(space, query, 2)) == 2
    # in the order of the notes where nothing bears on the question
    assert [p.source for p in retrieve(space, "zzz", 3)] == ["dropout.md", "kernel.md", "latency.md"]
    assert len(retrieve(space, "the and of")) == PASSAGES


def test_the_parents_decide_what_is_retrieved(folder: Path) -> None:
    for name, words in {
        "relu": "The relu activation is fast.",
        "gelu": "The gelu activation is smooth.",
    }.items():
        for number in range(PASSAGES):
            note(folder, f"{name}{number}.md", f"{words} {number}")
    space = open_folder(folder)
    genotypes = {a: next(iter(space.baselines().values())) | {"activation": a} for a in ("relu", "gelu")}
    for name, genotype in genotypes.items():
        only = [candidate(0, genotype, score=0.5, latency=1.0)]
        shown = {p["source"][:4] for p in prompt_variables(context(space, only, seed=3))["knowledge"]}
        assert shown == {name}


def test_an_edit_counts_from_the_next_question_on(folder: Path) -> None:
    note(folder, "a.md", "Wide is good.")
    note(folder, "b.md", "Deep is good.")
    space = open_folder(folder)
    assert {p.text for p in retrieve(space, "wide")} == {"Wide is good.", "Deep is good."}
    note(folder, "a.md", "Narrow is good.")
    assert {p.text for p in retrieve(space, "wide")} == {"Narrow is good.", "Deep is good."}


def test_one_endless_paragraph_is_cut_and_nothing_of_it_is_lost(folder: Path) -> None:
    words = [f"word{i}" for i in range(1500)]
    note(folder, "a.md", "# Code\n```\n" + " ".join(words) + "\n```\n")
    found = knowledge_of(open_folder(folder))
    assert max(len(p.text) for p in found) <= LONGEST
    assert " ".join(p.text for p in found).replace("'", "").split() == words
    assert propose(folder).count("```") % 2 == 0


@pytest.mark.parametrize("text", ["", "# Only a heading", "the and of", "```\n", "\x00\u202e\n\n"])
def test_notes_that_say_nothing_do_no_harm(folder: Path, text: str) -> None:
    note(folder, "a.md", text)
    note(folder, "b.md", text)
    assert retrieve(open_folder(folder), "width") is not None
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
