import json
from pathlib import Path

import pytest

from cambrian.agents.cli.app import app
from cambrian.agents.errors import RunFileError
from cambrian.agents.runfile import load_run_file, parse_budget
from cambrian.agents.sections import Constraint, LatencySection
from cambrian.sandbox import LatencySpec

GOOD = """
name: test
space: convnet
task: digits
budget: {evaluations: 5, wall_s: 10m}
constraints: [latency_ms <= 2, params <= 100k]
arms: {random: 1, mutation: 0.5}
"""


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "run.yaml"
    path.write_text(text)
    return path


def test_a_good_file_is_read_with_its_units(tmp_path: Path) -> None:
    config = load_run_file(write(tmp_path, GOOD))
    assert config.budget.wall_s == 600
    assert [str(c) for c in config.constraints] == ["latency_ms <= 2", "params <= 100k"]
    assert config.task.name == "digits"
    assert config.arms["mutation"].weight == 0.5


def test_the_resolved_configuration_reads_back_as_itself(tmp_path: Path) -> None:
    import yaml

    config = load_run_file(write(tmp_path, GOOD), {"task.data": "some/folder", "seed": 3})
    again = load_run_file(write(tmp_path, yaml.safe_dump(config.model_dump(mode="json"))))
    assert again == config
    assert again.task.options() == {"data": "some/folder"}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (GOOD + "slotz: 3", "slotz: unknown key, did you mean slots"),
        (GOOD.replace("wall_s", "wall"), "budget.wall: unknown key, did you mean wall_s"),
        (GOOD.replace("convnet", "convnets"), "unknown space 'convnets' (did you mean convnet"),
        (GOOD.replace("digits", "digit"), "did you mean digits"),
        (GOOD.replace("mutation", "mutations"), "arms: unknown name 'mutations' (did you mean mutation"),
        (GOOD.replace("latency_ms <=", "latency <="), "did you mean latency_ms"),
        (GOOD.replace("latency_ms <= 2", "latency_ms below 2"), "is not of the form"),
        (GOOD.replace("{evaluations: 5, wall_s: 10m}", "{}"), "would never end"),
        (GOOD.replace("random: 1, mutation: 0.5", "random: 0"), "all weights are 0"),
        (GOOD.replace("name: test", "name: My Run"), "name: use lower-case letters"),
        (GOOD.replace("name: test", ""), "name: field required"),
        (GOOD + "slots: none", "slots: input should be a valid integer"),
        (GOOD + "seed: -1", "seed: input should be greater than or equal to 0"),
        ("name: [", "is not YAML at line"),
        (GOOD + "name: again", "the key 'name' stands here twice"),
        (GOOD.replace("budget: {evaluations: 5, wall_s: 10m}", ""), "budget: field required"),
        (GOOD.replace("wall_s: 10m", "wall_s: .inf").replace("evaluations: 5, ", ""), "finite"),
        (GOOD.replace("{evaluations: 5, wall_s: 10m}", "[5]"), "budget: should be a mapping"),
        (GOOD.replace("params <= 100k", "params <= 1.2.3"), "'1.2.3' is not a number"),
        (GOOD + "latency: {device: desk}", "latency.device: unknown name 'desk'"),
        (GOOD + "devices: {desk: {}}\nlatency: {device: dsk}", "did you mean desk"),
        (GOOD + "devices: {desk: {thread: 1}}", "devices.desk.thread: unknown key, did you mean threads"),
        (GOOD + "devices: {desk: {kind: process, gpu: 0}}", "need a container"),
        (GOOD + "devices: {desk: {engine: example.org}}", "is no address of an engine"),
        (GOOD + "devices: {Desk: {}}", "devices.Desk: use lower-case letters"),
        (GOOD + "sandbox: {engine: 'context:'}", "sandbox.engine: 'context:' is no address"),
        (GOOD + "sandbox: {kind: process, runtime: runsc}", "'runtime' needs a container"),
        (GOOD + "latency: {device: null, throughput_batch: 0}", "latency.throughput_batch: input should be"),
        (
            GOOD.replace("params <= 100k", "throughput >= 1k") + "latency: {throughput_batch: null}",
            "latency.throughput_batch: a limit on 'throughput' needs it",
        ),
        (GOOD + "llm: {price: {inputt: 3, output: 1}}", "llm.price.inputt: unknown key, did you mean input"),
        (
            GOOD + "llm: {models: [{model: a, modell: b}]}",
            "llm.models.0.modell: unknown key, did you mean model",
        ),
        (
            GOOD + "llm: {roles: {repair: {call: 3}}}",
            "llm.roles.repair.call: unknown key, did you mean calls",
        ),
        (GOOD + "llm: {models: weak}", "llm.models: should be a list (given 'weak')"),
        (GOOD + "review: on", "review: input should be 'off' or 'gate'"),
        (GOOD + "llm: {base_url: 'http://bob:pw@host/v1'}", "set OPENAI_API_KEY in the environment"),
        (
            GOOD + "llm: {models: [{model: a, key_env: MINE, base_url: 'http://bob:pw@host/v1'}]}",
            "llm.models.0.base_url: a user name or password in it would be kept with the run (leave it out, "
            "and set MINE",
        ),
        ("- a list", "holds no mapping"),
        ("", "holds no mapping"),
    ],
)
def test_a_bad_file_is_refused_in_one_line_that_names_the_field(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(RunFileError) as caught:
        load_run_file(write(tmp_path, text))
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "run.yaml" in str(caught.value)


@pytest.mark.parametrize("written", ["off", "'off'", "false"])
def test_off_needs_no_quotes(tmp_path: Path, written: str) -> None:
    config = load_run_file(write(tmp_path, f"{GOOD}review: {written}\nanalyst: {{lessons: {written}}}"))
    assert (config.review, config.analyst.lessons) == ("off", "off")


def test_a_password_in_an_address_is_not_said_again(tmp_path: Path) -> None:
    with pytest.raises(RunFileError) as caught:
        load_run_file(write(tmp_path, GOOD), {"llm.base_url": "http://bob:pa55word@host"})
    assert "pa55word" not in str(caught.value)


def test_places_are_named_and_read_back(tmp_path: Path) -> None:
    text = """
devices:
  one-core: {}
  gpu: {kind: docker, gpu: 0, engine: "ssh://me@there"}
  other: {engine: "context:lab"}
latency: {device: gpu, repeats: 5}
sandbox: {runtime: runsc, engine: "tcp://there:2376", gpu: 1, trust_generated_code: true}
"""
    limits = GOOD.replace("params <= 100k", "latency_ratio <= 3, throughput >= 1k")
    config = load_run_file(write(tmp_path, limits + text))
    assert config.devices["gpu"].gpu == "0" and config.devices["one-core"].threads == 1
    assert (config.latency.device, config.latency.throughput_batch) == ("gpu", 64)
    assert (config.sandbox.runtime, config.sandbox.gpu) == ("runsc", "1")
    assert [str(c) for c in config.constraints] == [
        "latency_ms <= 2",
        "latency_ratio <= 3",
        "throughput >= 1k",
    ]


def test_latency_is_described_as_the_sandbox_takes_it() -> None:
    ours = {name: (f.default, f.annotation) for name, f in LatencySection.model_fields.items()}
    theirs = {name: (f.default, f.annotation) for name, f in LatencySpec.model_fields.items()}
    ours.pop("device")
    theirs.pop("limit_ms")  # from the run's constraints
    assert ours == theirs


def test_a_budget_may_be_written_in_short(tmp_path: Path) -> None:
    for short, kind in (("10m", "wall_s"), ("50", "evaluations")):
        config = load_run_file(write(tmp_path, GOOD.replace("{evaluations: 5, wall_s: 10m}", short)))
        assert config.budget.model_dump(exclude_none=True).keys() == {kind}


def test_unreadable_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(RunFileError, match=r"none\.yaml: No such file"):
        load_run_file(tmp_path / "none.yaml")
    binary = tmp_path / "binary.yaml"
    binary.write_bytes(b"\xff\xfe\x00name")
    with pytest.raises(RunFileError, match="not UTF-8"):
        load_run_file(binary)
    with pytest.raises(RunFileError, match="Is a directory"):
        load_run_file(tmp_path)


def test_overrides_reach_nested_keys_and_are_validated(tmp_path: Path) -> None:
    path = write(tmp_path, GOOD)
    config = load_run_file(path, {"budget.wall_s": "2h", "llm.model": "m", "task.data": "d"})
    assert (config.budget.wall_s, config.llm.model, config.task.options()) == (7200, "m", {"data": "d"})
    with pytest.raises(RunFileError, match=r"llm\.modle: unknown key, did you mean model"):
        load_run_file(path, {"llm.modle": "m"})


@pytest.mark.parametrize(
    ("text", "means"),
    [
        ("10m", {"budget.wall_s": 600.0}),
        ("50", {"budget.evaluations": 50}),
        ("evaluations=50,wall_s=90s", {"budget.evaluations": 50, "budget.wall_s": "90s"}),
    ],
)
def test_budget_option(text: str, means: dict[str, object]) -> None:
    assert parse_budget(text) == means


def test_several_budget_options_are_joined(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "run.yaml"
    path.write_text("name: r\nspace: convnet\ntask: digits\nbudget: {evaluations: 3, tokens: 9000}\n")
    told = ["--budget", "evaluations=24", "--budget", "5m,calls=7"]
    app(["run", "--check", str(path), *told, "--json"], standalone_mode=False)
    budget = json.loads(capsys.readouterr().out)["config"]["budget"]
    assert (budget["evaluations"], budget["wall_s"], budget["calls"]) == (24, 300.0, 7)
    assert budget["tokens"] == 9000, "what the file limits besides stays"
    with pytest.raises(RunFileError, match="--budget: evaluations is limited twice in '24,evaluations=30'"):
        app(["resume", "--budget", "24", "--budget", "evaluations=30"], standalone_mode=False)


@pytest.mark.parametrize("text", ["soon", "eval=3", "10parsecs", "5m,10m"])
def test_budget_option_refuses(text: str) -> None:
    with pytest.raises(RunFileError, match="--budget"):
        parse_budget(text)


@pytest.mark.parametrize(
    ("text", "value", "holds"),
    [("params <= 100k", 100_000, True), ("params <= 100k", 100_001, False), ("flops >= 1m", 2e6, True)],
)
def test_constraints(text: str, value: float, holds: bool) -> None:
    assert Constraint.parse(text).holds(value) is holds


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("params <= 100k", "params <= 100k"),
        ("params <= 100000", "params <= 100k"),
        ("flops<=2.5m", "flops <= 2.5M"),
        ("params <= 1234567", "params <= 1234567"),
        ("params >= 950", "params >= 950"),
        ("latency_ms <= 2000", "latency_ms <= 2000"),
    ],
)
def test_constraints_are_shown_as_people_write_them(text: str, shown: str) -> None:
    assert str(Constraint.parse(text)) == shown
    assert Constraint.parse(shown) == Constraint.parse(text)


def test_shipped_run_files_are_valid() -> None:
    folder = Path(__file__).parents[2] / "runs"
    files = sorted(folder.glob("*.yaml"))
    assert {f.name for f in files} >= {"first-light.yaml", "fashion-mnist.yaml"}
    for file in files:
        assert load_run_file(file).name == file.stem
