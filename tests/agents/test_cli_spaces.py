"""`cambrian spaces ...`, run as a user runs it."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest
import yaml

from cambrian.agents.spaces.report import CheckReport
from tests.support.code_space import install
from tests.support.command import assert_help_is_light
from tests.support.command import cambrian as run
from tests.support.folders import write_space


def cambrian(*arguments: str | Path, cwd: Path, code: int = 0, **environment: str) -> CompletedProcess[str]:
    return run(*arguments, cwd=cwd, code=code, **{"CAMBRIAN_SPACES": str(cwd / "none"), **environment})


def as_json(*arguments: str | Path, cwd: Path, **environment: str) -> Any:
    return json.loads(cambrian("spaces", *arguments, "--json", cwd=cwd, **environment).stdout)


@pytest.mark.parametrize("command", [[], ["check"]])
def test_help_imports_nothing_heavy(command: list[str], tmp_path: Path) -> None:
    assert_help_is_light("spaces", *command, cwd=tmp_path)


def test_the_list(tmp_path: Path) -> None:
    write_space(tmp_path / "spaces" / "mine")
    install(tmp_path / "plugin")
    there = {"CAMBRIAN_SPACES": str(tmp_path / "spaces"), "PYTHONPATH": str(tmp_path / "plugin")}
    listed = as_json(cwd=tmp_path, **there)
    rows = {row["name"]: row for row in listed["spaces"]}
    assert "digits" in listed["tasks"]
    assert (rows["cell"]["origin"], rows["mine"]["origin"], rows["coded"]["origin"]) == (
        "shipped", "yours", "registered"
    )  # fmt: skip
    assert rows["coded"]["kind"] == "code" and rows["coded"]["title"] == "Small modules, as source"
    text = cambrian("spaces", "list", cwd=tmp_path, **there).stdout
    assert "NAS-Bench-201" in text and "yours" in text


def test_show_by_name_by_path_and_by_the_short_form(tmp_path: Path) -> None:
    write_space(tmp_path / "mine")
    assert "two-layer-cnn" in cambrian("spaces", "convnet", cwd=tmp_path).stdout
    facts = as_json("./mine", cwd=tmp_path)
    assert facts["name"] == "mine" and facts["baselines"] == {
        "plain": {"width": 16, "depth": 1, "activation": "relu"}
    }
    assert json.loads(cambrian("spaces", "--json", "mine", cwd=tmp_path).stdout) == facts
    assert as_json("show", "mine/space.yaml", "--schema", cwd=tmp_path) == facts["schema"]


def test_pages_and_drawings(tmp_path: Path) -> None:
    write_space(tmp_path / "mine")
    page = cambrian("spaces", "show", "mine", "--page", cwd=tmp_path).stdout
    assert page.startswith("# Perceptrons of a test\n") and "Size: about 48 networks" in page
    assert "`ConvNorm`" in cambrian("spaces", "blocks", cwd=tmp_path).stdout
    blocks = {block["name"]: block for block in as_json("blocks", cwd=tmp_path)}
    assert "default" not in blocks["Linear"]["arguments"]["out"] and blocks["Linear"]["takes"]
    cambrian("spaces", "show", "mine", "--drawing", "deep/baselines.svg", cwd=tmp_path)
    assert "plain" in (tmp_path / "deep" / "baselines.svg").read_text()
    drawn = as_json("sample", "mine", "-n", "2", "--seed", "4", "--draw", "designs", cwd=tmp_path)
    again = as_json("sample", "mine", "-n", "2", "--seed", "4", cwd=tmp_path)
    assert [each["genotype"] for each in drawn] == [each["genotype"] for each in again]
    for each in drawn:
        ElementTree.parse(tmp_path / each["drawing"])


def test_from_nothing_to_a_checked_space(tmp_path: Path) -> None:
    done = cambrian("spaces", "new", "mine", cwd=tmp_path)
    commands = [line.split() for line in done.stdout.splitlines()[1:]]
    assert [command[0] for command in commands] == ["cambrian"] * 3
    checked = cambrian(*commands[0][1:], "--draws", "30", cwd=tmp_path).stdout
    assert "mine 1 is sound: 100 % of 30 designs and 30 edits are valid" in " ".join(checked.split())
    ElementTree.parse(tmp_path / "mine-designs.svg")
    assert "mine.yaml is fine: space mine, task digits" in cambrian(*commands[1][1:], cwd=tmp_path).stdout
    again = cambrian("spaces", "new", "mine", cwd=tmp_path, code=2)
    assert "mine is there already" in again.stderr


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_new_space_is_searched_exported_and_resumed_from_its_copy(tmp_path: Path) -> None:
    made = as_json("new", "mine", "--from", "convnet", cwd=tmp_path)
    assert made["task"] == "digits"
    quick = (
        "--set",
        "sandbox.kind=process",
        "--set",
        "task.rungs=[{epochs: 1}]",
        "--set",
        "mlflow.enabled=no",
    )
    cambrian("run", made["run_file"], "--budget", "3", *quick, cwd=tmp_path)
    Path(tmp_path / "mine" / "space.yaml").write_text("broken")
    cambrian("resume", "--budget", "5", cwd=tmp_path)
    report = json.loads(cambrian("show", "--json", cwd=tmp_path).stdout)
    assert report["ledger"]["evaluations"] == 5
    written = json.loads(cambrian("export", "last", "--out", "out", "--json", cwd=tmp_path).stdout)
    assert "def build()" in (tmp_path / written["source"]).read_text()


def test_a_report_for_programs_and_an_exit_code(tmp_path: Path) -> None:
    folder = write_space(tmp_path / "mine")
    text = (folder / "space.yaml").read_text()
    (folder / "space.yaml").write_text(text.replace("tasks: [digits]", "tasks: [digits, wines]"))
    arguments = ("check", "mine", "--draws", "20", "--sheet", "sheet.svg", "--json")
    report = json.loads(cambrian("spaces", *arguments, cwd=tmp_path, code=2).stdout)
    assert report.pop("sound") is False and report.pop("share_valid") == 1.0
    found = CheckReport.model_validate(report)
    assert found.sheet == Path("sheet.svg") and "did you mean wine" in found.tasks[1].reason


def test_a_space_of_code_is_checked_in_a_sandbox(tmp_path: Path) -> None:
    install(tmp_path / "plugin")
    arguments = ("check", "coded", "--draws", "2", "--sandbox", "process", "--trust-generated-code")
    report = as_json(*arguments, cwd=tmp_path, PYTHONPATH=str(tmp_path / "plugin"))
    assert report["sound"] and report["isolation"] == "process" and report["valid"] == 4
    assert "class Network" in (tmp_path / "coded-designs.svg").read_text()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["show", "convnt"], "did you mean convnet"),
        (["convnt"], "did you mean convnet"),
        (["check", "./none"], "no space in ./none"),
        (["check", "broken"], "space.yaml: rules.network.fields.width"),
        (["new", "No"], "cannot name a space"),
        (["sample", "cell", "-n", "0"], "-n"),
        (["show", "coded", "--page"], "has no page"),
    ],
)
def test_wrong_input_is_one_line_and_a_hint(tmp_path: Path, arguments: list[str], says: str) -> None:
    folder = write_space(tmp_path / "broken")
    content = yaml.safe_load((folder / "space.yaml").read_text())
    content["rules"]["network"]["fields"]["width"] = {"choise": [1]}
    (folder / "space.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
    install(tmp_path / "plugin")
    plugin = {"PYTHONPATH": str(tmp_path / "plugin")}
    done = cambrian("spaces", *arguments, cwd=tmp_path, code=2, **plugin)
    assert says in done.stderr
    assert done.stderr.startswith("error: ") and len(done.stderr.splitlines()) <= 2
