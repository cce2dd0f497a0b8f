"""The process sandbox: for machines without a container engine.

Each job is a process forked from a clean one that has imported torch already (`worker.forkserver`), so a
job starts training after some tens of milliseconds instead of the seconds that a fresh interpreter needs.

What is stopped, wherever the kernel allows user namespaces (`isolation.not_enforced` says what is not):
    - network: the job has none, nor the sockets under /run
    - writing: every file system is read-only but the job's work folder and 64 MiB of scratch in memory
    - the host's processes: not visible, not to be signalled; their memory and environment not readable
    - secrets in the environment: the job's holds eight harmless names
    - running on: at the limit of time, memory or processes, on cancel, on close and when the host dies,
      all processes of the job are ended, those that tried to hide as well
    - size of each file, core dumps, open files, capabilities, set-uid programs, output to the terminal

What is not stopped:
    - reading any file that the user may read: keep secrets out of reach, or use the container sandbox
    - connecting to Unix sockets outside /run that the user may open
    - a kernel exploit: there is no filter on system calls
    - memory and process counts are looked at every 50 ms: a burst within that time is not seen
    - filling the disk with many files, each below the limit
    - disturbing other jobs' timings: caches and memory bandwidth are shared

It is no sandbox for code that means harm. Genotypes of declarative spaces are built by trusted code and
are safe here; code written by a model belongs into a container.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from cambrian.sandbox.errors import InfrastructureError
from cambrian.sandbox.forkclient import ForkClient, ServerDied
from cambrian.sandbox.outcome import JobFolder, disk, remove_tree, write_arrays
from cambrian.sandbox.protocol import SPACE, Isolation, Job, Outcome
from cambrian.sandbox.worker.messages import Ending, Order
from cambrian.search_spaces import Splits
from cambrian.search_spaces.finding import copy_folder

GRACE_S = 15.0
"""Seconds beyond a job's time limit after which its supervisor is taken for hung."""
MARK = "CAMBRIAN_SANDBOX"
"""Environment name by which processes of a run are found when all else failed."""
PASSED_ON = ("CUDA_VISIBLE_DEVICES", "LD_LIBRARY_PATH")
"""All that a job's environment takes over from the host's: where the GPU and its libraries are."""


class ProcessSandbox:
    """Runs each job in a process of this machine.

    Args:
        plugins: folders put on the workers' import path, for spaces that are not installed.
        namespaces: False does without them even where the kernel would allow them.
    """

    def __init__(self, plugins: Sequence[Path] = (), namespaces: bool = True) -> None:
        self.isolation = Isolation(level="process", not_enforced=("not opened yet",))
        self._plugins = tuple(plugins)
        self._namespaces = namespaces
        self._client: ForkClient | None = None
        self._restarted = False
        self._restarting = asyncio.Lock()
        self._folder = Path()
        self._own = Path()
        self._samples = (0, 0)
        self._mark = ""

    async def open(
        self, run_id: str, folder: Path, splits: Splits, slots: int, space: Path | None = None
    ) -> None:
        """See `Sandbox.open`; takes the seconds that importing torch takes."""
        await self.close()
        if sys.platform != "linux":
            raise InfrastructureError(
                f"the process sandbox needs Linux, this is {sys.platform}",
                hint="start a Docker engine and set 'sandbox.kind: docker'",
            )
        self._folder = folder.resolve()
        self._own = self._folder / "sandbox"
        self._samples = (len(splits.x_val), len(splits.x_test))
        self._mark = f"{run_id}-{hashlib.sha256(str(self._folder).encode()).hexdigest()[:16]}"
        sweep(self._mark)
        with disk(f"prepare {self._own}"):
            remove_tree(self._own)
            (self._own / "scratch").mkdir(parents=True)
        await asyncio.to_thread(write_arrays, self._own / "data", splits)
        if space is not None:
            with disk(f"copy the space to {self._own}"):
                copy_folder(space, self._own / "data" / SPACE)
        self._restarted = False
        await self._start()

    async def _start(self) -> None:
        self._client = ForkClient(
            self._own, environment(self._own, self._mark), self._plugins, self._namespaces
        )
        missing = await self._client.start()
        self.isolation = Isolation(level="process", not_enforced=missing)

    async def run(self, job: Job) -> Outcome:
        """See `Sandbox.run`."""
        started = time.monotonic()
        folder = JobFolder(self._folder, job, *self._samples)
        known = folder.settled(self.isolation)
        if known is not None:
            return known
        while True:
            client = self._client
            if client is None:
                raise InfrastructureError("the sandbox is not open", hint="call open first")
            folder.prepare()
            try:
                ending = await self._attempt(client, job, folder)
            except ServerDied as died:
                await self._restart(client, died)
                continue
            self._restarted = False
            return folder.conclude(ending, self.isolation, time.monotonic() - started)

    async def _attempt(self, client: ForkClient, job: Job, folder: JobFolder) -> Ending:
        scratch = self._own / "scratch" / job.id
        with disk(f"make {scratch}"):
            remove_tree(scratch)
            scratch.mkdir()
        order = Order(
            key=job.id,
            folder=folder.work,
            log=folder.path / "log.txt",
            data=self._own / "data",
            scratch=scratch,
            limits=job.limits,
        )
        ending = client.submit(order)
        try:
            return await asyncio.wait_for(asyncio.shield(ending), job.limits.wall_s + GRACE_S)
        except asyncio.CancelledError:
            client.stop(job.id)
            await asyncio.wait({ending}, timeout=GRACE_S)
            raise
        except TimeoutError:
            client.kill()
            raise ServerDied(f"job {job.id} did not end at its time limit") from None
        finally:
            if ending.done() and not ending.cancelled():
                ending.exception()  # or asyncio complains that nobody looked
            with contextlib.suppress(OSError):
                remove_tree(scratch)

    async def _restart(self, dead: ForkClient, died: ServerDied) -> None:
        """Start the fork server anew, once until a job has ended well; several jobs may call this at once."""
        async with self._restarting:
            if self._client is not dead:
                return
            await dead.close()
            sweep(self._mark)
            if self._restarted:
                raise InfrastructureError(
                    f"the process sandbox's fork server died twice: {died}",
                    hint=f"look into {self._own / 'forkserver.log'}, then resume the run",
                )
            self._restarted = True
            await self._start()

    async def close(self) -> None:
        """See `Sandbox.close`."""
        client, self._client = self._client, None
        if client is not None:
            await client.close()
            sweep(self._mark)
            await asyncio.to_thread(remove_tree, self._own)


def environment(own: Path, mark: str) -> dict[str, str]:
    """The whole environment of the fork server and of every job."""
    found = {
        "PATH": os.defpath,
        "LANG": "C.UTF-8",
        "HOME": str(own / "scratch"),
        "TMPDIR": str(own / "scratch"),
        "PYTHONHASHSEED": "0",  # the order of sets is part of being reproducible
        "OMP_NUM_THREADS": "1",  # the fork server must stay single-threaded; jobs set their own number
        "OPENBLAS_NUM_THREADS": "1",
        "CUBLAS_WORKSPACE_CONFIG": ":4096:8",  # without it cuBLAS is not deterministic
        MARK: mark,
    }
    return found | {name: os.environ[name] for name in PASSED_ON if name in os.environ}


def sweep(mark: str) -> int:
    """Kill every process whose environment carries `mark`, and return how many there were.

    Only needed when a host died so suddenly that not even the kernel's parent-death signal worked, and
    where jobs have no process ids of their own.
    """
    wanted = f"{MARK}={mark}\0".encode()
    killed = 0
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        with contextlib.suppress(OSError):
            if wanted in (entry / "environ").read_bytes():
                os.kill(int(entry.name), signal.SIGKILL)
                killed += 1
    return killed
