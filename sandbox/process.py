"""The process sandbox: for machines without a container engine.

Each job is a process forked from a clean one that has imported torch already (`worker.forkserver`), so a
job starts training after some tens of milliseconds instead of the seconds that a fresh interpreter needs.

What is stopped, wherever the kernel allows user namespaces (`isolation.not_enforced` says what is not):
    - network: the job has none, nor any socket of the host
    - reading: of the file systems a job sees Python, its packages, system libraries and the task's training
      data; no home, no keys, no other job
    - writing: 64 MiB of scratch in memory
    - the host's processes: not visible, not to be signalled; their memory and environment not readable
    - secrets in the environment: the job's holds eight harmless names
    - system calls that no training needs: mounting, tracing, loading into the kernel, new namespaces
    - running on: at the limit of time, memory or processes, on cancel, on close and when the host dies,
      all processes of the job are ended, those that tried to hide as well
    - size of each file, core dumps, open files, capabilities, set-uid programs, output to the terminal

What is not stopped:
    - a kernel exploit: the filter on system calls makes the kernel smaller, not safe
    - memory and process counts are looked at every 50 ms: a burst within that time is not seen
    - disturbing other jobs' timings: caches and memory bandwidth are shared

Code that a model wrote belongs into a container all the same: this sandbox refuses it unless it is told that
the code is trusted. Genotypes of declarative spaces are built by trusted code and are safe here.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from cambrian.sandbox.conversation import Conversation
from cambrian.sandbox.cores import Cores, shared_cores
from cambrian.sandbox.cores import Place as CorePlace
from cambrian.sandbox.errors import InfrastructureError
from cambrian.sandbox.forkclient import ForkClient, ServerDied
from cambrian.sandbox.held_out import HeldOut
from cambrian.sandbox.job_folder import JobFolder
from cambrian.sandbox.outputs import disk, remove_tree, write_arrays
from cambrian.sandbox.protocol import SPACE, Isolation, Job, Outcome
from cambrian.sandbox.running import Running
from cambrian.sandbox.worker.channel import ChannelBroken
from cambrian.sandbox.worker.messages import Ending
from cambrian.search_spaces import Splits, UserError
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
        trust_generated_code: whether source that a model wrote may run here, where it can read the files of
            this user.
        cores: what jobs share out among them; None takes all that this process may use.
    """

    def __init__(
        self,
        plugins: Sequence[Path] = (),
        namespaces: bool = True,
        trust_generated_code: bool = False,
        cores: Cores | None = None,
    ) -> None:
        self.isolation = Isolation(level="process", not_enforced=("not opened yet",))
        self._plugins = tuple(plugins)
        self._namespaces = namespaces
        self._trusts = trust_generated_code
        self._cores = cores
        self._client: ForkClient | None = None
        self._threads: ThreadPoolExecutor | None = None
        self._restarted = False
        self._restarting = asyncio.Lock()
        self._folder = Path()
        self._own = Path()
        self._held_out: HeldOut | None = None
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
        self._held_out = HeldOut.of(splits)
        self._mark = f"{run_id}-{hashlib.sha256(str(self._folder).encode()).hexdigest()[:16]}"
        self._cores = self._cores or shared_cores()
        # two threads a slot: one talks to the keeper, one may have to end it
        self._threads = ThreadPoolExecutor(2 * slots + 2, thread_name_prefix="cambrian-process")
        sweep(self._mark)
        with disk(f"prepare {self._own}"):
            remove_tree(self._own)
            (self._own / "scratch").mkdir(parents=True)
        await self._blocking(write_arrays, self._own / "data", splits)
        if space is not None:
            with disk(f"copy the space to {self._own}"):
                copy_folder(space, self._own / "data" / SPACE)
        self._restarted = False
        await self._start()

    async def _blocking(self, call: Callable[..., Any], *arguments: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._threads, call, *arguments)

    async def _start(self) -> None:
        client = ForkClient(self._own, environment(self._own, self._mark), self._plugins, self._namespaces)
        self._client = client
        missing = await self._blocking(client.start)
        self.isolation = Isolation(level="process", not_enforced=missing)

    async def run(self, job: Job) -> Outcome:
        """See `Sandbox.run`.

        Raises:
            UserError: the job would run source that a model wrote, and nobody said that it is trusted.
        """
        if job.generated_code and not self._trusts:
            raise UserError(
                f"job {job.id}: the process sandbox runs no code by a model: it could read your files",
                hint="start a Docker engine, or set 'sandbox.trust_generated_code: true' in the run file",
            )
        held_out = self._held_out
        if self._client is None or held_out is None:
            raise InfrastructureError("the sandbox is not open", hint="call open first")
        folder = held_out.folder(self._folder, job)
        known = folder.settled(self.isolation)
        if known is not None:
            return known
        while True:
            client = self._client
            if client is None:
                raise InfrastructureError("the sandbox is not open", hint="call open first")
            folder.prepare()
            running = Running()
            thread = asyncio.ensure_future(
                self._blocking(self._attempt, client, job, folder, held_out, running)
            )
            try:
                outcome = await running.outcome(thread, GRACE_S)
            except ServerDied as died:
                await self._restart(client, died)
                continue
            self._restarted = False
            return outcome

    def _attempt(
        self, client: ForkClient, job: Job, folder: JobFolder, held_out: HeldOut, running: Running
    ) -> Outcome:
        """The whole life of a job's processes, in one thread."""
        assert self._cores is not None
        submitted = time.monotonic()
        scratch = self._own / "scratch" / job.id
        with disk(f"make {scratch}"):
            remove_tree(scratch)
            scratch.mkdir()
        place = self._cores.place(job.limits.threads)
        try:
            link = client.fork(job.id, self._own / "data", scratch)
            try:
                conversation = Conversation(link)
                running.begin(conversation.close)
                ending = self._talk(conversation, job, folder, held_out, place)
            finally:
                link.close()
                client.join(job.id, GRACE_S)
        finally:
            place.release()
            with contextlib.suppress(OSError):
                remove_tree(scratch)
        running.check()
        first_step = conversation.first_step
        return folder.conclude(
            ending,
            self.isolation,
            time.monotonic() - submitted,
            first_step - submitted if first_step is not None else None,
            "fork",
        )

    @staticmethod
    def _talk(
        conversation: Conversation, job: Job, folder: JobFolder, held_out: HeldOut, place: CorePlace
    ) -> Ending:
        place.on_pause(lambda: conversation.pause(True), lambda: conversation.pause(False))
        try:
            conversation.greet()
            conversation.ready(GRACE_S)
            return conversation.run(job, folder, held_out, place)
        except (OSError, EOFError):  # the keeper was killed; `join` tells whether the fork server was, too
            return Ending(why="gone")
        except ChannelBroken:
            return Ending(why="forged")

    async def _restart(self, dead: ForkClient, died: ServerDied) -> None:
        """Start the fork server anew, once until a job has ended well; several jobs may call this at once."""
        async with self._restarting:
            if self._client is not dead:
                return
            await self._blocking(dead.close)
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
        threads, self._threads = self._threads, None
        if client is not None:
            await asyncio.to_thread(client.close)
            sweep(self._mark)
            await asyncio.to_thread(remove_tree, self._own)
        if threads is not None:
            threads.shutdown(wait=False, cancel_futures=True)


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
