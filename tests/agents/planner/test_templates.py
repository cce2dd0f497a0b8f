from __future__ import annotations

from pathlib import Path

import pytest

from cambrian.agents.errors import UserError
from cambrian.agents.planner.context import prompt_variables
from cambrian.agents.planner.templates import Templates
from tests.agents.planner.world import TinySpace, context, convnet, evaluated


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user's folder of prompts, found by way of the environment."""
    root = tmp_path / "mine"
    (root / "base").mkdir(parents=True)
    monkeypatch.setenv("CAMBRIAN_PROMPTS", str(root))
    return root


def put(root: Path, name: str, text: str) -> None:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, "utf-8")


VARIABLES = {"task": {"name": "digits", "metric": "accuracy"}, "number": 7, "notes": ["a", "b"]}


def test_a_space_overrides_the_base_and_any_other_takes_it() -> None:
    assert Templates("convnet").path("propose.j2") != Templates("tiny").path("propose.j2")
    assert Templates("convnet").path("system.j2") == Templates("tiny").path("system.j2")
    assert Templates("tiny").names() == [
        "_candidates.j2",
        "propose.j2",
        "repair.j2",
        "schema.j2",
        "system.j2",
    ]


def test_every_shipped_template_renders_for_empty_and_full_populations() -> None:
    for space in (convnet(), TinySpace()):
        templates = Templates(space.name)
        for candidates in ([], evaluated(space, 1), evaluated(space, 30)):
            variables = prompt_variables(context(space, candidates, constraints=["latency_ms <= 2"]))
            for name in ("system.j2", "propose.j2", "repair.j2", "schema.j2"):
                text = templates.render(name, variables | {"problem": "p", "schema": "{}"}).text
                assert text.strip() and "{{" not in text and "{%" not in text and "{#" not in text
                assert text.count("```") % 2 == 0, "each block of data is closed"


def test_the_users_folder_goes_first_file_by_file(folder: Path) -> None:
    put(folder, "base/system.j2", "My system for {{ task.name }}")
    templates = Templates("convnet")
    assert templates.render("system.j2", VARIABLES).text == "My system for digits\n"
    shipped = templates.path("propose.j2")
    assert shipped is not None and not shipped.is_relative_to(folder)


def test_the_users_base_shows_through_the_shipped_space_template(folder: Path) -> None:
    put(folder, "base/propose.j2", "mine: {% block advice %}{% endblock %}")
    text = Templates("convnet").render("propose.j2", VARIABLES).text
    assert text.startswith("mine: # Accuracy against latency")


def test_a_users_template_can_extend_its_shipped_equal(folder: Path) -> None:
    put(
        folder,
        "convnet/propose.j2",
        '{% extends "shipped/convnet/propose.j2" %}'
        "{% block advice %}{{ super() }}No attention.{% endblock %}",
    )
    variables = prompt_variables(context(convnet(), evaluated(convnet(), 3)))
    text = Templates("convnet").render("propose.j2", variables).text
    assert "No attention." in text and "Resolution is the strongest lever" in text


def test_prompts_in_the_working_directory_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path / "prompts", "base/system.j2", "From here")
    monkeypatch.chdir(tmp_path)
    assert Templates("convnet").render("system.j2", VARIABLES).text == "From here\n"


def test_our_own_folder_is_no_users_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(Templates("convnet").shipped.parent)
    assert Templates("convnet").user_folder is None


def test_a_folder_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CAMBRIAN_PROMPTS", str(tmp_path / "nowhere"))
    with pytest.raises(UserError, match=r"CAMBRIAN_PROMPTS names .*nowhere"):
        Templates("convnet")


def test_an_undefined_variable_is_named_with_its_template_and_near_names(folder: Path) -> None:
    put(folder, "base/system.j2", "one\n{{ tusk.name }}")
    with pytest.raises(UserError) as caught:
        Templates("convnet").render("system.j2", VARIABLES)
    assert caught.value.message == "prompt template base/system.j2 line 2 uses 'tusk', which is not defined"
    assert caught.value.hint == "did you mean task?"


@pytest.mark.parametrize(
    "source",
    [
        "{{ task.metrik }}",
        "{% if task.metrik %}x{% endif %}",
        "{% for x in task.metrik %}{{ x }}{% endfor %}",
        "{{ task.metrik | upper }}",
        "{{ task['metrik'] ~ 'x' }}",
        "{{ task.metrik == 'x' }}",
    ],
)
def test_an_undefined_field_is_named_however_it_is_used(folder: Path, source: str) -> None:
    put(folder, "base/system.j2", source)
    with pytest.raises(UserError, match=r"base/system\.j2 line 1 uses 'metrik'") as caught:
        Templates("convnet").render("system.j2", VARIABLES)
    assert caught.value.hint == "did you mean metric?"


def test_the_template_that_is_at_fault_is_named_not_the_one_that_was_asked_for(folder: Path) -> None:
    put(folder, "base/_part.j2", "fine\n{{ nmber }}")
    put(folder, "base/system.j2", '{% include "base/_part.j2" %}')
    with pytest.raises(UserError, match=r"base/_part\.j2 line 2 uses 'nmber'") as caught:
        Templates("convnet").render("system.j2", VARIABLES)
    assert caught.value.hint == "did you mean number?"


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("{% if %}", r"base/system\.j2 line 1 cannot be parsed|system\.j2 line 1 cannot be parsed"),
        ("{{ ''.__class__.__mro__ }}", "does what templates may not|__class__"),
        ("{{ notes.append(1) }}", "may not|uses 'append'"),
        ("{{ 1 / 0 }}", "division by zero"),
        ('{% include "base/propse.j2" %}', "'base/propse.j2' is not there"),
        ('{% extends "base/system.j2" %}', "extends or includes itself"),
        ('{% include "../secrets.j2" %}', "is not there"),
        ('{% include "/etc/passwd" %}', "is not there"),
    ],
)
def test_faulty_templates_are_user_errors(folder: Path, source: str, message: str) -> None:
    put(folder, "base/system.j2", source)
    put(folder.parent, "secrets.j2", "secret")
    with pytest.raises(UserError, match=message):
        Templates("convnet").render("system.j2", VARIABLES)


def test_an_unknown_template_lists_near_names() -> None:
    with pytest.raises(UserError) as caught:
        Templates("convnet").render("propos.j2", VARIABLES)
    assert "did you mean propose.j2" in caught.value.hint


def test_versions_follow_the_sources_and_nothing_else(folder: Path) -> None:
    put(folder, "base/_part.j2", "part")
    put(folder, "base/parent.j2", '{% include "base/_part.j2" %}{% block b %}{% endblock %}')
    put(folder, "base/child.j2", '{% extends "base/parent.j2" %}')
    before = Templates("convnet")
    assert before.version("child.j2") == Templates("tiny").version("child.j2")
    assert before.render("child.j2", {}).version == before.version("child.j2")
    assert len({before.version(f"{name}.j2") for name in ("_part", "parent", "child")}) == 3
    put(folder, "base/_part.j2", "part, changed")
    after = Templates("convnet")
    for name in ("_part.j2", "parent.j2", "child.j2"):
        assert after.version(name) != before.version(name), "a parent's change is a change"
    assert after.version("system.j2") == before.version("system.j2")


def test_a_run_keeps_to_the_templates_it_began_with(folder: Path) -> None:
    put(folder, "base/system.j2", "first")
    templates = Templates("convnet")
    first = templates.render("system.j2", {})
    put(folder, "base/system.j2", "second")
    assert templates.render("system.j2", {}) == first
