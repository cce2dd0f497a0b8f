"""A host process of its own: opens a sandbox and runs one job. Tests kill it.

python -m tests.sandbox.host KIND PLUGIN RUN_ID FOLDER JOBFILE

KIND is a registered name, or `bare` for processes without namespaces.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from cambrian.sandbox import SANDBOXES, Job
from cambrian.search_spaces import TASKS


async def main(kind: str, plugin: str, run_id: str, folder: str, job_file: str) -> None:
    options = {"namespaces": False} if kind == "bare" else {}
    sandbox = SANDBOXES.create("process" if kind == "bare" else kind, plugins=[Path(plugin)], **options)
    await sandbox.open(run_id, Path(folder), TASKS.create("digits").load(), 1)
    print(await sandbox.run(Job.model_validate_json(Path(job_file).read_bytes())))


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
