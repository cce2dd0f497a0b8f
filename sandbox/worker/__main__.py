"""One job and out: `python -m cambrian.sandbox.worker JOBFOLDER DATAFOLDER`."""

import sys
import time
from pathlib import Path


def process_start() -> float:
    """When this process was started, on the clock of `time.monotonic`."""
    import os

    fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
    since_boot = int(fields[19]) / os.sysconf("SC_CLK_TCK")
    return time.monotonic() - (time.clock_gettime(time.CLOCK_BOOTTIME) - since_boot)


def main(arguments: list[str]) -> int:
    """Run the job of the folder given; the exit code is not 0 when no report could be written."""
    if len(arguments) != 2:
        sys.stderr.write("usage: python -m cambrian.sandbox.worker JOBFOLDER DATAFOLDER\n")
        return 64
    started = process_start()
    from cambrian.sandbox.worker.execute import execute

    return execute(Path(arguments[0]), Path(arguments[1]), started)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
