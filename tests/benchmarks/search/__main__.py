"""`cambrian bench search` on the tables at hand: who finds how much how soon, without any training.

    make bench NAME=search                                     # all tables, 20 seeds
    make bench NAME=search ARGS="cifar10 --seeds 50 --arms default,local-search"

Names come first, then options of the command. The tables lie in `nas/` of a folder of CAMBRIAN_DATA, or in
that folder itself: nb201.parquet for `cifar10` and `cifar100`, nasbench_graph.parquet for `graph`. Writes
`runs/bench/search-NAME.json` with every curve, and `search-NAME.png`.

Known of `cifar10`, where 200 epochs' validation accuracy is the signal: regularized evolution finds the best
cell after 216 evaluations (median), local search after 188; after 100, the best cell so far of random search
has 93.73 % on the test images, that of evolution 94.01, that of local search 94.08.
"""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from pathlib import Path

from cambrian.agents.benching.summary import Study
from cambrian.agents.cli.bench_search import print_study

TABLES = {
    "cifar10": (
        "nb201.parquet",
        "--space cell --metric cifar10_val_acc_200ep --report cifar10_test_acc_200ep",
    ),
    "cifar100": (
        "nb201.parquet",
        "--space cell --metric cifar100_val_acc_12ep --report cifar100_test_acc_200ep",
    ),
    "graph": (
        "nasbench_graph.parquet",
        "--genotype-columns link,op0,op1,op2,op3 --metric valid_perf --report test_perf "
        "--cost-column latency_s",
    ),
}
FOLDER = Path("runs/bench")
TARGETS = {"median": 60.0, "after 100": 94.25}
"""Of the default portfolio on `cifar10`."""


def find(name: str) -> Path:
    """The table, where CAMBRIAN_DATA says."""
    for folder in os.environ.get("CAMBRIAN_DATA", "data").split(os.pathsep):
        for path in (Path(folder) / "nas" / name, Path(folder) / name):
            if path.is_file():
                return path
    raise SystemExit(f"there is no {name}: set CAMBRIAN_DATA to the folder that has it")


def measure(name: str, more: list[str]) -> Study:
    """Run the command, as anybody would."""
    table, options = TABLES[name]
    FOLDER.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-P", "-c", "from cambrian.agents.cli import main; main()", "bench", "search"]
    picture = ["--plot", str(FOLDER / f"search-{name}.png")]
    told = subprocess.run(
        [*command, "--table", str(find(table)), *options.split(), *more, *picture, "--json"],
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    if told.returncode:
        raise SystemExit(told.returncode)
    (FOLDER / f"search-{name}.json").write_text(told.stdout)
    return Study.model_validate_json(told.stdout)


def missed(study: Study) -> list[str]:
    """What the default portfolio falls short of on `cifar10`."""
    lines = {line.name: line for line in study.lines}
    if "default" not in lines or study.evaluations < 100:
        return []
    median, found = lines["default"].median, {e.evaluations: e.mean for e in lines["default"].incumbents}
    wanted = []
    if median is None or median > TARGETS["median"]:
        wanted.append(f"evaluations to best: {median}, wanted at most {TARGETS['median']:g}")
    if (found[100] or 0.0) < TARGETS["after 100"]:
        wanted.append(f"after 100: {found[100]}, wanted at least {TARGETS['after 100']}")
    return wanted


def main() -> int:
    """Measure, print, write; 1 when a target is missed or the default loses to one of its arms."""
    words = sys.argv[1:]
    names = list(itertools.takewhile(lambda word: not word.startswith("-"), words))
    if {"-h", "--help"} & {*words} or not {*names} <= {*TABLES}:
        print(f"{__doc__}\ntables: {', '.join(TABLES)}")
        return 2
    more = words[len(names) :]
    short = []
    for name in names or TABLES:
        study = measure(name, more)
        print_study(study)
        print(f"written to {FOLDER}/search-{name}.json and .png\n")
        short += [f"{name}: {what}" for what in missed(study)] if name == "cifar10" else []
        short += [f"{name}: {study.verdict}"] if "is significantly worse" in study.verdict else []
    print("\n".join(short) or "no target is missed")
    return int(bool(short))


if __name__ == "__main__":
    sys.exit(main())
