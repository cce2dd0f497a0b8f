"""The proof of a space: what it finds in a sound one, and that each kind of fault is found."""

from __future__ import annotations

import random
import sys
from pathlib import Path
from typing import Any

import pytest

from cambrian.agents.spaces.check import Trial, check_space
from cambrian.agents.spaces.code import check_code, plugins_of
from cambrian.agents.spaces.coverage import never_drawn
from cambrian.agents.spaces.report import CheckReport, Quantiles, Size
from cambrian.agents.spaces.unused import unused
from cambrian.search_spaces import SPACES, TASKS, Genotype, UserError
from cambrian.search_spaces.declarative.space import DeclarativeSpace
from cambrian.search_spaces.finding import open_folder
from tests.support.code_space import install
from tests.support.folders import write_space


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> CheckReport:
    folder = write_space(tmp_path_factory.mktemp("check") / "tiny")
    return check_space(open_folder(folder), draws=150, seed=3, all_identities=True)


def test_a_sound_space(report: CheckReport) -> None:
    assert report.sound and report.failures == []
    assert (report.designs, report.edits, report.valid, report.share_valid) == (150, 150, 300, 1.0)
    assert report.never_drawn == [] and report.left_out == []
    assert report.signature == "image (channels x height x width) 1x8x8"
    assert {"sample", "validate", "edit", "crossover", "build", "build and run", "identity"} == {
        *report.milliseconds
    }


def test_sizes_of_the_designs(report: CheckReport) -> None:
    sizes = report.quantiles["parameters"]
    # least: 64 features to 8 and on to 10 outputs; most: 64 to 32, three more of 32, 10 outputs
    assert sizes.least == 64 * 8 + 8 + 8 * 10 + 10
    assert sizes.most == 64 * 32 + 32 + 3 * (32 * 32 + 32) + 32 * 10 + 10
    assert sizes.least <= sizes.p5 <= sizes.median <= sizes.p95 <= sizes.most
    assert (report.quantiles["depth"].least, report.quantiles["depth"].most) == (2, 5)


def test_size_of_the_space_and_its_duplicates(report: CheckReport) -> None:
    assert report.size is not None and report.duplicates is not None
    assert report.size.exact and report.size.members == report.size.derivations == str(3 * 4 * 4)
    # 48 networks in all, and no two of them compute the same
    assert report.duplicates.examined == 150
    assert report.duplicates.distinct == report.duplicates.distinct_genotypes <= 48
    assert report.duplicates.share == 1 - report.duplicates.distinct / 150
    assert report.duplicates.example is None


def test_baselines_and_tasks(report: CheckReport) -> None:
    (baseline,) = report.baselines
    assert (baseline.name, baseline.parameters, baseline.problem) == ("plain", 64 * 16 + 16 + 170, "")
    (task,) = report.tasks
    assert (task.name, task.status, task.built) == ("digits", "fits", 20)


def test_the_report_survives_json(report: CheckReport) -> None:
    assert CheckReport.model_validate_json(report.model_dump_json()) == report


def test_equal_functions_of_different_genotypes_are_shown_as_a_pair(tmp_path: Path) -> None:
    folder = write_space(tmp_path / "twins")
    text = (folder / "space.yaml").read_text()
    idle = "      idle: {boolean: true, about: nothing}\n    build:"
    text = text.replace("    build:", idle, 1).replace("relu}}", "relu, idle: true}}")
    (folder / "space.yaml").write_text(text)
    found = check_space(open_folder(folder), draws=100, all_identities=True).duplicates
    assert found is not None and found.genotypes is not None and found.example is not None
    first, second = found.genotypes
    assert {name for name in first if first[name] != second[name]} == {"idle"}
    assert found.distinct <= 48 < found.distinct_genotypes <= 96


class Faulty(DeclarativeSpace):
    """A space with one fault."""

    fault = ""

    def sample(self, rng: random.Random) -> Genotype:
        genotype = super().sample(rng)
        if self.fault == "sample" and genotype["depth"] == 4:
            raise ValueError("no such depth")
        return {**genotype, "width": 9} if self.fault == "member" else genotype

    def validate(self, data: object) -> Genotype:
        genotype = super().validate(data)
        return {**genotype, "depth": 1} if self.fault == "canonical" else genotype

    def mutate(self, genotype: Genotype, rng: random.Random) -> tuple[Genotype, str]:
        if self.fault == "in place":
            genotype["width"] = 8 if genotype["width"] != 8 else 16
        same = self.fault in ("in place", "no change")
        return (genotype, "nothing") if same else super().mutate(genotype, rng)

    def build(self, genotype: Genotype, signature: Any) -> Any:
        from torch import nn

        module = super().build(genotype, signature)
        if self.fault == "shape" and genotype["activation"] == "tanh":
            return nn.Sequential(module, nn.Linear(11, 10))
        return module


@pytest.mark.parametrize(
    ("fault", "stage", "says"),
    [
        ("sample", "sample", "ValueError: no such depth"),
        ("member", "validate", "width"),
        ("canonical", "validate", "not in canonical form"),
        ("in place", "edit", "changed in place"),
        ("no change", "edit", "changed nothing"),
        ("shape", "build and run", "Linear"),
    ],
)
def test_each_fault_is_found_and_shown_with_a_design(
    tmp_path: Path, fault: str, stage: str, says: str
) -> None:
    space = Faulty(write_space(tmp_path / "faulty"))
    space.fault = fault
    report = check_space(space, draws=40)
    assert not report.sound and report.share_valid < 1
    first = report.failures[0]
    assert first.stage == stage and says in first.reason
    assert (first.genotype is None) == (fault == "sample")
    assert sum(failure.times for failure in report.failures) >= 5


def test_baselines_of_another_size_than_published_and_tasks_that_do_not_fit(tmp_path: Path) -> None:
    folder = write_space(tmp_path / "odd")
    text = (folder / "space.yaml").read_text()
    text = text.replace("tasks: [digits]", "tasks: [digits, digitz, npz, cora]")
    published = "parameters: 1000, at: {input_shape: [1, 28, 28], n_outputs: 10}, genotype"
    (folder / "space.yaml").write_text(text.replace("{genotype", f"{{{published}"))
    report = check_space(open_folder(folder), draws=10)
    assert not report.sound and report.failures == []
    assert report.baselines[0].problem == "has 12,730 parameters, published are 1,000"
    by_name = {task.name: task for task in report.tasks}
    assert by_name["digits"].status == "fits" and by_name["npz"].status == "not tried"
    assert by_name["digitz"].status == "does not fit" and "did you mean digits" in by_name["digitz"].reason
    assert by_name["cora"].status in ("does not fit", "not tried")


def test_equal_seeds_give_equal_reports(tmp_path: Path) -> None:
    folder = write_space(tmp_path / "tiny")
    first, second = (check_space(open_folder(folder), draws=20, seed=5) for _ in range(2))
    without = {"milliseconds": {}, "wall_s": 0.0}
    assert first.model_copy(update=without) == second.model_copy(update=without)


# Choices that are never taken -------------------------------------------------------------------------------


def test_values_that_no_design_can_have_are_told(tmp_path: Path) -> None:
    folder = write_space(tmp_path / "narrow")
    text = (folder / "space.yaml").read_text()
    rule = "    require: [{rule: width * depth <= 32, else: too large}]\n    build:"
    (folder / "space.yaml").write_text(text.replace("    build:", rule, 1).replace("max: 4", "max: 4"))
    space, rng = open_folder(folder), random.Random(0)
    designs = [space.sample(rng) for _ in range(400)]
    assert never_drawn(space.definition.grammar, designs) == []
    some = [design for design in designs if design["activation"] != "gelu" and design["depth"] > 1]
    assert never_drawn(space.definition.grammar, some) == [
        f"width: 32 in none of {len(some)} draws",
        f"depth: 1 in none of {len(some)} draws",
        f"activation: 'gelu' in none of {len(some)} draws",
    ]
    assert never_drawn(space.definition.grammar, some[:30]) == [], "too few draws to tell"


BOOM = """

class Broken(nn.Module):
    def __init__(self, in_channels: int) -> None:
        super().__init__()
        self.map = nn.Linear(in_channels, in_channels)

    def forward(self, x: Tensor) -> Tensor:
        raise RuntimeError("the map is upside down")
"""


def with_a_switch(folder: Path, then: str) -> DeclarativeSpace:
    """A small space with a field `shifted`, which adds the part `then`."""
    text = (write_space(folder, custom=True) / "space.yaml").read_text()
    fields = "      shifted: {boolean: true, about: whether it is}\n    build:\n      - Flatten\n"
    switch = f"      - {{if: shifted, then: [{then}], else: [Identity]}}\n"
    text = text.replace("    build:\n      - Flatten\n", fields + switch, 1)
    (folder / "space.yaml").write_text(text.replace("relu}}", "relu, shifted: false}}"))
    with (folder / "blocks.py").open("a") as file:
        file.write(BOOM)
    space = open_folder(folder)
    assert isinstance(space, DeclarativeSpace)
    return space


@pytest.mark.parametrize(
    ("then", "says"),
    [
        ("Broken", "the map is upside down"),
        ("GlobalPool: {kind: avg}", "GlobalPool"),
    ],
)
def test_a_choice_that_is_always_ill_typed_is_a_failure(tmp_path: Path, then: str, says: str) -> None:
    report = check_space(with_a_switch(tmp_path / "broken", then), draws=60)
    assert not report.sound and report.valid == 120
    (failure,) = report.failures
    assert failure.stage == "typing" and failure.times > 100
    assert failure.reason.startswith("shifted: True in no valid design") and says in failure.reason
    assert failure.genotype is not None and failure.genotype["shifted"] is True
    assert report.never_drawn == [], "told once"
    assert report.acceptance is not None and report.acceptance.draws == 400
    (refusal,) = report.acceptance.refusals
    assert refusal.cause == "typing" and refusal.times == 400 - report.acceptance.members > 100
    assert says in str(report.acceptance)


def test_a_broken_choice_is_found_behind_a_rule_that_often_refuses_first(tmp_path: Path) -> None:
    folder = tmp_path / "ruled"
    with_a_switch(folder, "Broken")
    text = (folder / "space.yaml").read_text()
    rule = "    require: [{rule: width * depth <= 32, else: too large}]\n    build:"
    (folder / "space.yaml").write_text(text.replace("    build:", rule, 1))
    report = check_space(open_folder(folder), draws=60)
    assert [failure.stage for failure in report.failures] == ["typing"]
    assert report.acceptance is not None
    assert {(refusal.cause, refusal.what) for refusal in report.acceptance.refusals} >= {
        ("require", "too large")
    }


def test_what_limits_and_rules_refuse_is_no_failure(tmp_path: Path) -> None:
    folder = write_space(tmp_path / "limited")
    text = (folder / "space.yaml").read_text()
    rule = "    require: [{rule: activation != 'tanh', else: no tanh}]\n    build:"
    text = text.replace("    build:", rule, 1).replace("rules:", "limits: {params: 2400}\nrules:")
    (folder / "space.yaml").write_text(text)
    report = check_space(open_folder(folder), draws=60)
    assert report.sound and report.acceptance is not None
    assert {(refusal.cause, refusal.what) for refusal in report.acceptance.refusals} == {
        ("limit", "limits.params"), ("require", "no tanh"),
    }  # fmt: skip
    assert "width: 32 in none of 60 draws" in report.never_drawn
    text = str(report.acceptance)
    assert "% of 400 raw draws are members; of the others" in text
    assert "% exceed limits.params" in text and "% break the rule 'no tanh'" in text


def test_a_space_without_members_is_told_soon(tmp_path: Path) -> None:
    folder = write_space(tmp_path / "none")
    rule = "    require: [{rule: width > 100 or depth > 4, else: too small}]\n    build:"
    text = (folder / "space.yaml").read_text().replace("    build:", rule, 1)
    (folder / "space.yaml").write_text(text.partition("baselines:")[0])
    report = check_space(open_folder(folder), draws=60)
    assert not report.sound and report.acceptance is not None and report.acceptance.members == 0
    assert [(each.stage, each.times) for each in report.failures] == [("sample", 1)]


# Fields that change nothing ---------------------------------------------------------------------------------

UNUSED = """
name: idle
version: "1"
title: Fields that some use and others do not
about: Vectors.
reference: {input_shape: [64], n_outputs: 10}
features: {waste: spare}
genes:
  rate: {choice: [1, 2]}
  forgotten: {choice: [1, 2]}
rules:
  network:
    label: "{told}"
    fields:
      spare: {choice: [1, 2, 3]}
      told: {choice: [1, 2]}
      shared: {choice: [8, 16]}
      gate: {boolean: true}
      ruled: {choice: [1, 2, 3]}
      value: {choice: [1, 2]}
      size: {fields: {width: {choice: [8, 16]}, idle: {boolean: true}}}
      body: {repeat: block, min: 1, max: 2}
    require: [{rule: ruled < 3, else: too much}]
    build: [body, {Linear: {out: =size.width}}, {Linear: {out: =n_outputs}}]
  block:
    options:
      wide:
        fields:
          rate: rate
          value: {choice: [1, 2]}
          extra: {choice: [1, 2], when: gate, otherwise: 1}
        build: [{Linear: {out: =shared * value}}]
      none: {build: [Identity]}
"""


def test_fields_and_genes_that_change_nothing_are_told(tmp_path: Path) -> None:
    (tmp_path / "idle").mkdir()
    (tmp_path / "idle" / "space.yaml").write_text(UNUSED)
    space = open_folder(tmp_path / "idle")
    suffix = "is used by no layout, rule or condition"
    assert sorted(unused(space.definition)) == [
        "genes.forgotten is used by no field",
        f"rules.block.options.wide.fields.extra {suffix}",
        f"rules.block.options.wide.fields.rate {suffix}",
        f"rules.network.fields.size.fields.idle {suffix}",
        f"rules.network.fields.spare {suffix}",
        f"rules.network.fields.told {suffix}",
        f"rules.network.fields.value {suffix}",
    ]
    report = check_space(space, draws=10)
    assert report.sound and report.unused == unused(space.definition)


def test_records_that_are_compared_as_a_whole_are_used(tmp_path: Path) -> None:
    (tmp_path / "idle").mkdir()
    text = UNUSED.replace("rule: ruled < 3", "rule: 'ruled < 3 and (len(body) < 2 or body[0] != body[1])'")
    (tmp_path / "idle" / "space.yaml").write_text(text)
    assert not any("rules.block" in line for line in unused(open_folder(tmp_path / "idle").definition))


@pytest.mark.parametrize("name", ["cell", "convnet", "encoder", "gnn", "grammar", "hybrid", "mlp"])
def test_the_shipped_spaces_use_all_their_fields(name: str) -> None:
    assert unused(SPACES.create(name).definition) == []


def test_folded_choices_do_not_count() -> None:
    space, rng = SPACES.create("convnet"), random.Random(0)
    designs = [space.sample(rng) for _ in range(600)]
    assert never_drawn(space.definition.grammar, designs) == []


def test_failures_that_differ_in_numbers_only_are_one_kind() -> None:
    trial = Trial()
    for reason in ("none of 10,000 designs; 8,337 times: too long",
                   "none of 10,000 designs; 812 times: too long",
                   "cannot take image 16x8x8", "cannot take image 64x4x4", "cannot take vector 64",
                   "needs Conv2d", "needs Conv1d"):  # fmt: skip
        trial.fail("sample", reason, None)
    assert [(each.times, each.reason) for each in trial.failures] == [
        (2, "none of 10,000 designs; 8,337 times: too long"),
        (2, "cannot take image 16x8x8"),
        (1, "cannot take vector 64"),
        (1, "needs Conv2d"),
        (1, "needs Conv1d"),
    ]


def test_a_bound_is_not_told_as_an_estimate() -> None:
    size = Size(derivations="10^90", exact=False, accepted_share=0.2, members="", low="10^30", high="10^90")
    assert str(size).startswith("at least 10^30 networks (a bound, not an estimate); at most 10^90 genotypes")


def test_quantiles_are_values() -> None:
    found = Quantiles.of(range(101))
    assert (found.least, found.p5, found.median, found.p95, found.most) == (0, 5, 50, 95, 100)
    assert Quantiles.of([7]).p95 == 7


# Spaces of code ---------------------------------------------------------------------------------------------


@pytest.fixture
def coded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(install(tmp_path / "plugin")))
    yield SPACES.create("coded")
    SPACES._loaded.pop("coded", None)
    sys.modules.pop("code_space", None)


def test_code_is_never_built_here(coded: Any) -> None:
    with pytest.raises(ValueError, match="holds code, which is never built here"):
        check_space(coded)
    with pytest.raises(AssertionError, match="outside a sandbox"):
        coded.build(coded.sample(random.Random(0)), TASKS.create("digits").signature)


async def check_in(kind: str, coded: Any, draws: int) -> CheckReport:
    return await check_code(
        coded,
        TASKS.create("digits"),
        draws=draws,
        sandbox_kind=kind,
        trust_generated_code=kind == "process",
    )


async def test_code_that_nobody_trusts_is_checked_in_a_container_only(
    coded: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/none.sock")
    for kind in ("process", "auto"):
        with pytest.raises(UserError, match="generated code") as caught:
            await check_code(coded, TASKS.create("digits"), draws=1, sandbox_kind=kind)
        assert "--trust-generated-code" in caught.value.hint


async def test_code_is_checked_in_a_sandbox(coded: Any, tmp_path: Path) -> None:
    assert plugins_of(coded) == (tmp_path / "plugin",)
    report = await check_in("process", coded, 3)
    assert report.sound and report.valid == 6 and report.isolation == "process"
    assert report.quantiles.keys() == {"parameters"} and report.duplicates is None and report.size is None
    assert "sandbox job" in str(report.milliseconds) and "read from a network" in report.left_out[0]
    assert (report.baselines[0].name, report.baselines[0].parameters) == ("perceptron", 64 * 16 + 16 + 170)


async def test_code_that_fails_in_the_sandbox_is_a_failure(
    coded: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = {"source": coded.sample(random.Random(0))["source"].replace("nn.Linear", "nn.Linaer")}
    monkeypatch.setattr(type(coded), "sample", lambda self, rng: broken)
    report = await check_in("process", coded, 2)
    assert not report.sound and report.valid == 0
    assert "Linaer" in report.failures[0].reason and report.failures[0].genotype == broken


@pytest.mark.docker
@pytest.mark.slow
@pytest.mark.timeout(900)
async def test_code_is_checked_in_a_container(coded: Any) -> None:
    report = await check_in("docker", coded, 1)
    assert report.sound and report.valid == 2 and report.isolation == "docker"
