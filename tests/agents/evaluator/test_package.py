import subprocess
import sys


def test_importing_the_package_and_its_records_costs_no_heavy_import() -> None:
    script = (
        "import sys\n"
        "import cambrian.agents.evaluator\n"
        "import cambrian.agents.evaluator.ranking, cambrian.agents.evaluator.gain\n"
        "print(sorted({'torch', 'sklearn', 'scipy'} & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-P", "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
