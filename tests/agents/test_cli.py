"""The command line, run as a user runs it."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.command import cambrian, command

QUICK: dict[str, Any] = {
    "name": "quick",
    "space": "convnet",
    "task": {"name": "digits", "train_samples": 200, "rungs": [{"epochs": 1}]},
    "slots": 2,
    "budget": {"evaluations": 5},
    "warmup": 3,
    "baselines": ["two-layer-cnn"],
    "sandbox": {"kind": "process"},
}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one finished run of the process sandbox, recorded in MLflow."""
    folder = tmp_path_factory.mktemp("cli")
    (folder / "quick.yaml").write_text(yaml.safe_dump(QUICK))
    done = cambrian("run", "quick.yaml", cwd=folder)
    assert "no model endpoint" in done.stdout and "cannot stop" in done.stdout
    report = done.stdout[done.stdout.index("quick-") :].splitlines()
    assert done.stdout.count("evaluated") >= 5
    assert any(line.startswith("cost: 5 evaluations") for line in report)
    arms = {line.split()[0]: line.split() for line in report if line}
    assert arms["baseline"][1:5] == ["1", "0", "0", "1"], "what each arm brought"
    assert report[-1].startswith("next: ")
    return folder


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_show_runs_and_export(finished: Path) -> None:
    runs = json.loads(cambrian("runs", "--json", cwd=finished).stdout)
    assert [r["status"] for r in runs] == ["finished"]
    report = json.loads(cambrian("show", "--json", cwd=finished).stdout)
    assert report["ledger"]["evaluations"] == 5 and report["baselines"].keys() == {"two-layer-cnn"}
    best = report["leaderboard"][0]
    shown = json.loads(cambrian("show", best["id"], "--json", cwd=finished).stdout)
    assert shown["evaluations"][0]["isolation"]["level"] == "process"
    assert shown["evaluations"][0]["latency"]["repeats"] >= 3
    text = cambrian("show", f"{report['run_id']}/{best['id']}", cwd=finished).stdout
    assert "quartiles" in text and "isolation process" in text
    assert best["id"] in cambrian("show", "quick", cwd=finished).stdout
    assert report["run_id"] in cambrian("runs", cwd=finished).stdout


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_an_exported_network_reaches_its_score_without_us(finished: Path, tmp_path: Path) -> None:
    written = json.loads(cambrian("export", "last", "--out", tmp_path, "--json", cwd=finished).stdout)
    source = Path(written["source"]).read_text()
    assert source.startswith("# c-") and "divided by 16" in source.splitlines()[1]
    imports = [line for line in source.splitlines() if line.lstrip().startswith(("import ", "from "))]
    assert imports and all(line.split()[1].split(".")[0] in {"collections", "torch"} for line in imports)
    from cambrian.search_spaces import TASKS

    task = TASKS.create("digits", train_samples=200)
    splits = task.load()
    import numpy as np

    np.save(tmp_path / "x.npy", splits.x_test)
    program = f"""
import sys, numpy, torch
sys.path.insert(0, {str(tmp_path)!r})
from safetensors.torch import load_file
module = __import__({Path(written["source"]).stem!r})
net = module.build()
net.load_state_dict(load_file({written["weights"]!r}))
net.eval()
with torch.no_grad():
    out = net(torch.from_numpy(numpy.load({str(tmp_path / "x.npy")!r})))
numpy.save({str(tmp_path / "out.npy")!r}, out.numpy())
assert not [m for m in sys.modules if m.startswith("cambrian")]
"""
    subprocess.run([sys.executable, "-I", "-c", program], check=True, timeout=120)
    outputs = np.load(tmp_path / "out.npy")
    assert task.score(outputs, "test")["accuracy"] == pytest.approx(written["test_score"], abs=1e-6)


@pytest.mark.slow
def test_what_the_run_recorded_in_mlflow(finished: Path) -> None:
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{finished / 'runs' / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("convnet/digits")
    assert experiment is not None
    found = client.search_runs([experiment.experiment_id])
    children = [r for r in found if "mlflow.parentRunId" in r.data.tags]
    assert len(found) == len(children) + 1
    store_rows = json.loads(cambrian("show", "--json", cwd=finished).stdout)["ledger"]["candidates"]
    assert len(children) == store_rows
    evaluated = [r for r in children if r.data.tags.get("state") == "evaluated"]
    assert all("accuracy" in r.data.metrics for r in evaluated)


def write(tmp_path: Path, **changes: Any) -> Path:
    path = tmp_path / "run.yaml"
    path.write_text(yaml.safe_dump({**QUICK, **changes}))
    return path


@pytest.mark.parametrize(
    ("arguments", "changes", "code", "says"),
    [
        (["run", "none.yaml"], {}, 2, "cannot read run file none.yaml"),
        (["run", "run.yaml"], {"slotz": 2}, 2, "did you mean slots"),
        (["run", "run.yaml"], {"space": "convnt"}, 2, "did you mean convnet"),
        (["run", "run.yaml"], {"task": "digit"}, 2, "did you mean digits"),
        (["run", "run.yaml"], {"task": {"name": "fashion-mnist", "data": "nowhere"}}, 2, "nowhere"),
        (["run", "run.yaml", "--set", "seed"], {}, 2, "no '='"),
        (["run", "run.yaml", "--budget", "soon"], {}, 2, "--budget"),
        (["run", "--check", "run.yaml", "--set", "bugdet.wall_s=3"], {}, 2, "did you mean budget"),
        (["show", "nothing"], {}, 2, "so no 'nothing'"),
        (["resume"], {}, 2, "no runs in"),
        (["export", "c-0001"], {}, 2, "start one: cambrian run"),
        (["review"], {}, 2, "no runs in"),
        (["run"], {}, 2, "for RUNFILE: name one"),
        (["rum"], {}, 2, "No such command"),
        (["run", "run.yaml"], {"sandbox": {"kind": "dokcer"}}, 2, "did you mean docker"),
        (["run", "run.yaml"], {"mlflow": {"tracking_uri": "foo://x"}}, 2, "MLflow knows no 'foo'"),
        (["spaces", "convnt"], {}, 2, "did you mean convnet"),
    ],
)
def test_wrong_input_is_one_line_and_a_hint(
    tmp_path: Path, arguments: list[str], changes: dict[str, Any], code: int, says: str
) -> None:
    write(tmp_path, **changes)
    done = cambrian(*arguments, cwd=tmp_path, code=code)
    assert says in done.stderr
    assert done.stderr.startswith("error: ") and len(done.stderr.splitlines()) <= 2
    assert not (tmp_path / "runs").exists(), "nothing was started"


def test_errors_are_json_when_asked(tmp_path: Path) -> None:
    done = cambrian("show", "nothing", "--json", cwd=tmp_path, code=2)
    assert json.loads(done.stdout)["exit_code"] == 2


def test_check_runs_nothing(tmp_path: Path) -> None:
    assert "is fine" in cambrian("run", "--check", write(tmp_path), cwd=tmp_path).stdout
    assert not (tmp_path / "runs").exists()


def test_spaces_and_doctor(tmp_path: Path) -> None:
    listed = json.loads(cambrian("spaces", "--json", cwd=tmp_path).stdout)
    assert "convnet" in {s["name"] for s in listed["spaces"]} and "digits" in listed["tasks"]
    assert "two-layer-cnn" in cambrian("spaces", "convnet", cwd=tmp_path).stdout
    findings = {f["what"]: f for f in json.loads(cambrian("doctor", "--json", cwd=tmp_path).stdout)}
    assert (
        findings["model endpoint"]["status"] == "absent" and "OPENAI" in findings["model endpoint"]["means"]
    )
    assert findings["data: digits"]["status"] == "ok"
    assert {"GPU", "Docker", "python", "runs folder"} <= findings.keys()
    assert "model endpoint" in cambrian("doctor", cwd=tmp_path).stdout


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_ctrl_c_keeps_everything_and_a_second_process_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path, budget={"evaluations": 1000}, mlflow={"enabled": False})
    process = subprocess.Popen(command("run", path), cwd=tmp_path, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    for line in process.stdout:
        if "evaluated" in line:
            break
    refused = cambrian("resume", cwd=tmp_path, code=2)
    assert "held by another process" in refused.stderr and str(process.pid) in refused.stderr
    assert json.loads(cambrian("runs", "--json", cwd=tmp_path).stdout)[0]["status"] == "running"
    process.send_signal(signal.SIGINT)
    process.stdout.read()
    assert process.wait(60) == 130
    before = json.loads(cambrian("show", "--json", cwd=tmp_path).stdout)
    assert before["status"] == "stopped"
    after = before["ledger"]["evaluations"] + 2
    resumed = json.loads(cambrian("resume", "--budget", str(after), "--json", cwd=tmp_path).stdout)
    assert resumed["ledger"]["evaluations"] == after and resumed["status"] == "finished"


@pytest.mark.slow
def test_ui_serves_and_a_taken_port_is_an_error(finished: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = cambrian("ui", "--port", str(port), cwd=finished, code=2)
        assert str(port) in done.stderr and "--port" in done.stderr
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = subprocess.Popen(
        command("ui", "--port", str(port), "--json"),
        cwd=finished,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    try:
        assert process.stdout is not None
        url = json.loads(process.stdout.readline())["url"]
        import urllib.request

        with urllib.request.urlopen(url, timeout=30) as answer:
            assert b"mlflow" in answer.read().lower()
    finally:
        process.send_signal(signal.SIGINT)
        deadline = time.monotonic() + 30
        while process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.1)
        assert process.poll() in (0, 130)
