from __future__ import annotations

from pathlib import Path

import pytest

from cambrian.agents.errors import InfrastructureError, UserError
from cambrian.agents.planner.context import prompt_variables
from cambrian.agents.planner.kept_prompts import keep_prompts, kept_prompts, templates_of_run
from cambrian.agents.planner.templates import Templates
from cambrian.search_spaces import Space
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
        "analyse.j2",
        "propose.j2",
        "repair.j2",
        "schema.j2",
        "system.j2",
    ]


def test_every_shipped_template_renders_for_empty_and_full_populations() -> None:
    spaces: list[Space] = [convnet(), TinySpace()]
    for space in spaces:
        templates = Templates(space.name)
        for candidates in ([], evaluated(space, 1), evaluated(space, 30)):
            variables = prompt_variables(context(space, candidates, constraints=["latency_ms <= 2"]))
            for name in ("system.j2", "propose.j2", "repair.j2", "schema.j2"):
                text = templates.render(
                    name, variables | {"problem": "p", "objected": True, "schema": "{}"}
                ).text
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
    with pytest.raises(UserError, match=r"base/system\.j2 line 1 uses 'metrik' of 'task'") as caught:
        Templates("convnet").render("system.j2", VARIABLES)
    assert caught.value.hint == "did you mean metric?"


def test_all_that_is_undefined_in_one_rendering_is_found(folder: Path) -> None:
    put(folder, "base/_part.j2", "fine\n{{ nmber }}")
    lines = [
        "{{ task.nam }}{% if task.metrik %}x{% endif %}{{ 1 + task.nam }}{{ tusk.name.x | upper }}",
        "{% for c in best %}{{ loop.fist }}{{ c.scoer | round(2) }}{{ c.lesson.verdct() }}{% endfor %}",
        "{{ ''.__class__ }}{{ notes.append(1) }}{% for x in task.also.missing %}{{ x.y }}{% endfor %}",
        "{{ task.maybe | default('none') }}{% if task.maybe is defined %}x{% endif %}{{ task.name }}",
        '{% include "base/_part.j2" %}{{ 1 > task.big }}{{ "a" in task.all }}{{ notes[9] }}',
    ]
    put(folder, "base/system.j2", "\n".join(lines))
    best = [{"score": 1.0, "lesson": {"verdict": "refuted"}}, {"score": 2.0, "lesson": {"verdict": "x"}}]
    found = Templates("convnet").slips("system.j2", VARIABLES | {"best": best})
    told = [slip.error.message.removeprefix("prompt template base/") for slip in found]
    uses = [each.removesuffix(", which is not defined") for each in told if " uses " in each]
    assert uses == [
        "system.j2 line 1 uses 'nam' of 'task'",
        "system.j2 line 1 uses 'metrik' of 'task'",
        "system.j2 line 1 uses 'tusk'",
        "system.j2 line 2 uses 'fist' of 'loop'",
        "system.j2 line 2 uses 'scoer' of an entry of 'best'",
        "system.j2 line 2 uses 'verdct' of 'lesson' of an entry of 'best'",
        "system.j2 line 3 uses 'also' of 'task'",
        "_part.j2 line 2 uses 'nmber'",
        "system.j2 line 5 uses 'big' of 'task'",
        "system.j2 line 5 uses 'all' of 'task'",
        "system.j2 line 5 uses '9' of 'notes'",
    ]
    unsafe = [each for each in told if "line 3 does what templates may not" in each]
    assert ["__class__" in unsafe[0], "append" in unsafe[1]] == [True, True]
    assert len(told) == len(uses) + len(unsafe)
    hints = {slip.error.message.split("'")[1]: slip.error.hint for slip in found}
    assert hints["nam"] == "did you mean name?" and hints["scoer"] == "did you mean score?"
    assert [slip.variable for slip in found].count(True) == 2


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
        ("{{ ''.__class__.__mro__ }}", r"system\.j2 line 1 does what templates may not: .*'__class__'"),
        ("{{ notes.append(1) }}", "does what templates may not: .*'append'"),
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


def test_ours_can_be_had_without_the_users(folder: Path) -> None:
    put(folder, "base/system.j2", "mine")
    ours = Templates("convnet", users=False)
    assert ours.origin("system.j2") == "shipped" and ours.user_folder is None
    assert Templates("convnet").origin("system.j2") == "yours"
    assert ours.version("system.j2") != Templates("convnet").version("system.j2")


def test_a_space_folders_templates_are_told_from_ours(tmp_path: Path) -> None:
    put(tmp_path, "propose.j2", '{% extends "base/propose.j2" %}')
    templates = Templates("tiny", own_folder=tmp_path)
    assert (templates.origin("propose.j2"), templates.origin("base/propose.j2")) == ("space", "shipped")
    assert list(templates.sources("propose.j2")) == [
        "propose.j2",
        "base/propose.j2",
        "base/_candidates.j2",
    ]


def test_a_run_keeps_what_it_asks_with_and_renders_it_again(folder: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    assert kept_prompts(run) is None
    put(folder, "base/system.j2", '{% include "base/_part.j2" %}{{ task.name }} \u00e9')  # no last line end
    put(folder, "base/_part.j2", "first for ")
    before = Templates("convnet")
    keep_prompts(before, run)
    put(folder, "base/_part.j2", "second for ")
    again = templates_of_run(run)
    assert again.render("system.j2", VARIABLES) == before.render("system.j2", VARIABLES)
    assert {name: again.version(name) for name in again.names()} == {
        name: before.version(name) for name in before.names()
    }
    assert again.origin("base/_part.j2") == "yours" and again.origin("propose.j2") == "shipped"
    with pytest.raises(UserError, match="base/_part"):
        put(folder, "base/_part.j2", "{% if %}")
        keep_prompts(Templates("convnet"), run)
    assert templates_of_run(run).version("system.j2") == before.version("system.j2")


def test_each_start_with_other_templates_is_kept_beside_the_earlier(folder: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    put(folder, "base/system.j2", "first")
    keep_prompts(Templates("convnet"), run)
    keep_prompts(Templates("convnet"), run)
    put(folder, "base/system.j2", "second")
    index = keep_prompts(Templates("convnet"), run)
    assert len(index.starts) == 2 and index == kept_prompts(run)
    found = [index.find("system.j2", start.versions["system.j2"]) for start in index.starts]
    texts = [(run / "prompts" / each.file).read_text() for each in found if each is not None]
    assert [text.splitlines()[-1] for text in texts] == ["first", "second"]
    assert templates_of_run(run).render("system.j2", {}).text == "second\n"
    files = sorted(path.name for path in (run / "prompts").glob("*.j2"))
    assert len(files) == len(index.templates) == len(index.starts[0].versions) + 1


def test_kept_templates_that_were_edited_are_not_taken_for_what_was_asked(
    folder: Path, tmp_path: Path
) -> None:
    index = keep_prompts(Templates("convnet"), tmp_path)
    file = next(each.file for each in index.templates if each.name == "system.j2")
    path = tmp_path / "prompts" / file
    path.write_text(path.read_text() + "more")
    with pytest.raises(InfrastructureError, match=rf"{file} is not what the run kept"):
        templates_of_run(tmp_path)
    (tmp_path / "prompts" / "index.json").write_text("{")
    with pytest.raises(InfrastructureError, match=r"index\.json cannot be read"):
        templates_of_run(tmp_path)
    with pytest.raises(UserError, match="keeps no prompts"):
        templates_of_run(folder)
