"""What `spaces new` writes is sound and runs as it is; what the list says; which tasks fit."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import yaml

from cambrian.agents.checking import check_run
from cambrian.agents.errors import RunFileError, UserError
from cambrian.agents.planner.knowledge import knowledge_of
from cambrian.agents.planner.templates import Templates
from cambrian.agents.runfile import load_run_file
from cambrian.agents.spaces.check import check_space
from cambrian.agents.spaces.fit import check_fit, fitting_tasks, inputs_in_words, kind_of, misfit
from cambrian.agents.spaces.listing import space_rows
from cambrian.agents.spaces.scaffold import new_space
from cambrian.search_spaces import SPACES, TASKS, Signature
from cambrian.search_spaces.finding import folder_of, open_folder
from cambrian.search_spaces.space import GraphShape
from tests.support.folders import write_space


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_new_space_is_sound_and_its_run_file_fits() -> None:
    made = new_space("mine")
    assert made.commands == [
        "cambrian spaces check ./mine", "cambrian run --check mine.yaml", "cambrian run mine.yaml"
    ]  # fmt: skip
    assert all(path.is_file() for path in made.files) and len(made.files) == 4
    assert not [path for path in made.files if "@" in path.read_text()]
    space = open_folder(made.folder)
    assert space.name == "mine"
    report = check_space(space, draws=60)
    assert report.sound and report.never_drawn == []
    config = load_run_file(made.run_file)
    assert config.space == str(made.folder.absolute()) and config.task.name == made.task == "digits"
    assert list(config.baselines) == list(space.baselines())
    opened, task = check_run(config, "mine.yaml")
    assert (opened.name, task.name) == ("mine", "digits")
    assert knowledge_of(space) == [], "a scaffold's placeholder is not for the planner"
    templates = Templates.of(space)
    assert templates.path("propose.j2") == folder_of(space) / "prompts" / "propose.j2"  # type: ignore[operator]


@pytest.mark.parametrize("source", ["cell", "convnet", "encoder", "mlp"])
def test_a_copy_is_the_same_space_under_another_name(source: str, here: Path) -> None:
    made = new_space("mine", source, here / "deep" / "er")
    assert made.commands[0] == f"cambrian spaces check {here}/deep/er/mine"
    original, copy = SPACES.create(source), open_folder(made.folder)
    assert (copy.name, copy.version) == ("mine", "1")
    assert copy.schema() == original.schema() and copy.baselines() == original.baselines()
    assert [path.name for path in (made.folder / "prompts").iterdir()] == ["propose.j2"]
    assert knowledge_of(copy)
    check_run(load_run_file(made.run_file), "mine.yaml")


def test_a_copy_keeps_own_blocks_prompts_notes_and_comments(here: Path) -> None:
    folder = write_space(here / "original", custom=True)
    (folder / "space.yaml").write_text("# kept\n" + (folder / "space.yaml").read_text())
    (folder / "prompts" / "propose.j2").write_text("my prompt")
    (folder / "knowledge" / "b.md").write_text("# B\nnote")
    made = new_space("mine", "./original")
    text = (made.folder / "space.yaml").read_text()
    assert text.startswith("# kept\n") and "name: mine" in text
    assert (made.folder / "blocks.py").read_text() == (folder / "blocks.py").read_text()
    assert (made.folder / "prompts" / "propose.j2").read_text() == "my prompt"
    assert [path.name for path in (made.folder / "knowledge").iterdir()] == ["b.md"]


@pytest.mark.parametrize(
    ("name", "source", "says"),
    [
        ("Mine", None, "cannot name a space"),
        ("../mine", None, "cannot name a space"),
        ("cell", None, "there is a space 'cell' already"),
        ("taken", None, "taken is there already"),
        ("file", None, "file.yaml is there already"),
        ("mine", "cel", "unknown space 'cel'"),
        ("mine", "./nowhere", "no space in ./nowhere"),
    ],
)
def test_nothing_is_overwritten_and_nothing_is_left(
    here: Path, name: str, source: str | None, says: str
) -> None:
    (here / "taken").mkdir()
    (here / "file.yaml").write_text("mine")
    with pytest.raises(UserError) as caught:
        new_space(name, source)
    assert says in caught.value.message
    assert sorted(path.name for path in here.iterdir()) == ["file.yaml", "taken"]
    assert (here / "file.yaml").read_text() == "mine"


def test_a_copy_of_a_broken_space_names_the_place(here: Path) -> None:
    folder = write_space(here / "broken")
    text = (folder / "space.yaml").read_text()
    (folder / "space.yaml").write_text(text.replace("name: broken", "name: {broken"))
    with pytest.raises(UserError, match=r"broken/space\.yaml"):
        new_space("mine", "./broken")
    assert not (here / "mine").exists()


# The list ---------------------------------------------------------------------------------------------------


def test_the_list_tells_all_and_survives_a_broken_space(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CAMBRIAN_SPACES", str(here / "spaces"))
    write_space(here / "spaces" / "fine")
    write_space(here / "spaces" / "cell", name="cell")
    broken = write_space(here / "spaces" / "broken")
    (broken / "space.yaml").write_text((broken / "space.yaml").read_text() + "rulez: {}\n")
    rows = {row.name: row for row in space_rows()}
    assert [*rows] == SPACES.names()
    fine = rows["fine"]
    assert (fine.origin, fine.kind, fine.tasks, fine.baselines, fine.problem) == (
        "yours", "declarative", ["digits"], ["plain"], ""
    )  # fmt: skip
    assert (rows["cell"].origin, rows["cell"].shadows) == ("yours", "shipped")
    assert rows["convnet"].origin == "shipped" and "resnet-20" in rows["convnet"].baselines
    assert "rulez: unknown key, did you mean rules?" in rows["broken"].problem


# Which tasks fit --------------------------------------------------------------------------------------------


GRAPH = Signature(input_shape=(), n_outputs=7, graph=GraphShape(nodes=9, features=4, edges=20))


@pytest.mark.parametrize(
    ("signature", "kind", "words"),
    [
        (Signature(input_shape=(3, 8, 9), n_outputs=10), "images", "image (channels x height x width) 3x8x9"),
        (Signature(input_shape=(50, 12), n_outputs=10), "sequences", "sequence (length x channels) 50x12"),
        (Signature(input_shape=(13,), n_outputs=3), "vectors", "vector 13"),
        (Signature(input_shape=(64,), n_outputs=5, vocabulary=9), "token ids", "token ids 64, vocabulary"),
        (GRAPH, "node ids of a graph", "id of a node of one graph of 9 nodes with 4 features each and 20"),
    ],
)  # fmt: skip
def test_inputs_in_words(signature: Signature, kind: str, words: str) -> None:
    assert kind_of(signature) == kind and inputs_in_words(signature).startswith(words)


def test_a_task_of_another_kind_is_refused_with_those_that_fit() -> None:
    space = SPACES.create("gnn")
    with pytest.raises(RunFileError) as caught:
        check_fit(space, TASKS.create("digits"), "run.yaml")
    assert caught.value.message == (
        "run.yaml: task: 'digits' gives images, space 'gnn' takes node ids of a graph"
    )
    assert caught.value.hint == "tasks that fit: cora"
    reason = misfit(SPACES.create("convnet"), GRAPH)
    assert reason == "gives node ids of a graph, space 'convnet' takes images"


def test_inputs_of_the_right_kind_for_which_nothing_can_be_built_are_refused(here: Path) -> None:
    folder = write_space(here / "large")
    text = (folder / "space.yaml").read_text().replace("1, 8, 8", "3, 64, 64")
    block = "- ConvNorm: {out: 8, kernel: =3 if input.height > 8 else 0}"
    (folder / "space.yaml").write_text(text.replace("- Flatten", f"{block}\n      - Flatten"))
    reason = misfit(open_folder(folder), TASKS.create("digits").signature)
    assert reason.startswith("gives images of 1x8x8, for which space 'large' builds nothing: ")
    assert "kernel" in reason


def test_tasks_that_a_space_lists_are_those_that_fit_and_others_are_tried(here: Path) -> None:
    assert fitting_tasks(SPACES.create("gnn")) == ["cora"]
    folder = write_space(here / "silent")
    text = yaml.safe_load((folder / "space.yaml").read_text())
    del text["tasks"]
    (folder / "space.yaml").write_text(yaml.safe_dump(text, sort_keys=False))
    found = fitting_tasks(open_folder(folder))
    assert "digits" in found and not {"cora", "npz", "wine"} & {*found}
    shutil.rmtree(folder)
