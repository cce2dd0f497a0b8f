"""A process that imports Cambrian once and then forks one child for each run, so that killing many is cheap.

Started as `python -m tests.support.nursery`. It reads one JSON line for each child, `{"config": {...}}` for
a new run or `{"resume": "last"}`, each with `"runs": folder`; it answers with the child's pid, and, when the
child has ended, with its wait status. The sandbox is `tests.support.instant` with a pause for a training.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from cambrian.agents.runfile import parse_config
from cambrian.agents.session import Watch, resume, start
from cambrian.agents.workspace import Workspace
from cambrian.sandbox import SANDBOXES, Job, Outcome
from cambrian.search_spaces import TASKS
from tests.support.instant import InstantSandbox


class PausingSandbox(InstantSandbox):
    """Trains for 30 ms, and notes the start and the end of every training; reproduces and examines sooner."""

    async def run(self, job: Job) -> Outcome:
        if job.purpose in ("reproduce", "examine"):
            await asyncio.sleep(0.01 if job.purpose == "reproduce" else 0.003)
            return await super().run(job)
        if not (self._folder / "jobs" / job.id / "outcome.json").exists():
            self._note("start", job)
            await asyncio.sleep(0.03)
            outcome = await super().run(job)
            self._note("end", job)
            return outcome
        return await super().run(job)

    def _note(self, what: str, job: Job) -> None:
        with (self._folder / "trainings.log").open("a") as log:
            log.write(f"{what} {job.id} {time.monotonic_ns()}\n")


def child(order: dict[str, Any]) -> None:
    """Run one order to its end."""
    workspace, watch = Workspace(Path(order["runs"])), Watch(say=lambda _line: None)
    if "resume" in order:
        asyncio.run(resume(order["resume"], workspace, watch))
    else:
        asyncio.run(start(parse_config(order["config"], "test"), workspace, watch))


def main() -> None:
    """Serve orders until the end of input."""
    SANDBOXES.register("pausing", PausingSandbox)
    TASKS.create("digits").load()
    for line in sys.stdin:
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                child(json.loads(line))
                code = 0
            except BaseException as error:
                print(f"child: {error!r}", file=sys.stderr, flush=True)
            finally:
                os._exit(code)
        print(pid, flush=True)
        _, status = os.waitpid(pid, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


if __name__ == "__main__":
    main()
