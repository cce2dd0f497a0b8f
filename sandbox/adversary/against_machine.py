"""Candidates that go for the machine: its resources, its processes, its secrets."""

from __future__ import annotations

import signal
from collections.abc import Iterable

from cambrian.sandbox.adversary.probe import (
    BAD,
    BRIEF,
    ERROR,
    KILLED,
    MEMORY,
    ORDINARY,
    TIMEOUT,
    TRAINED,
    Probe,
    claims_are_ignored,
    log_is_capped,
)

SMALL = ORDINARY.model_copy(update={"memory_mb": 600})
WATCHED = "memory and process counts are watched"
DISK, SIGNALS, WRITES, READS = "disk space", "signals processes", "writes files", "reads files"
NETWORK, UNIX, MEMORY_OF_OTHERS = "reaches the network", "Unix sockets", "reads memory and environment"


def resources() -> Iterable[Probe]:
    """They use up what there is, or never end."""
    yield Probe(
        "fork-bomb", "Forks without end.", {"act": "bomb"}, TIMEOUT | KILLED | ERROR | MEMORY,
        limits=BRIEF.model_copy(update={"processes": 24}), short=True,
    )  # fmt: skip
    yield Probe(
        "thread-bomb", "Starts threads without end.", {"act": "threads"}, ERROR | KILLED,
        limits=ORDINARY.model_copy(update={"processes": 48}),
    )  # fmt: skip
    yield Probe(
        "memory-in-steps", "Takes 8 GB of memory bit by bit.", {"act": "eat", "mb": 8000}, MEMORY,
        limits=SMALL, short=True,
    )  # fmt: skip
    yield Probe(
        "memory-at-once", "Takes 8 GB of memory in one piece.", {"act": "grab", "mb": 8000}, MEMORY,
        limits=SMALL
    )  # fmt: skip
    yield Probe(
        "memory-of-children", "Takes 4 GB in four children, each below the limit.",
        {"act": "eat-by-children", "mb": 4000}, MEMORY | TIMEOUT | KILLED,
        limits=BRIEF.model_copy(update={"memory_mb": 1200}),
    )  # fmt: skip
    yield Probe(
        "memory-in-files", "Takes 1.2 GB of memory in files that have no name and belong to no process.",
        {"act": "eat-memory-files", "mb": 1200}, MEMORY | KILLED | ERROR, escaped="holds ",
        declared={"escaped": WATCHED}, limits=SMALL,
    )  # fmt: skip
    yield Probe(
        "memory-in-tmpfs", "Writes more to its scratch folder than fits.", {"act": "fill-here", "mb": 100},
        ERROR, words="No space left", declared={"state": DISK},
    )  # fmt: skip
    yield Probe(
        "one-large-file", "Writes a file larger than allowed.", {"act": "write", "mb": 40}, ERROR,
        words="File too large",
    )  # fmt: skip
    yield Probe(
        "many-files", "Fills the disk with many files, each below the limit.", {"act": "fill", "mb": 160},
        ERROR, escaped="wrote ", declared={"escaped": DISK}, short=True,
    )  # fmt: skip
    for number, name in ((1, "stdout"), (2, "stderr")):
        yield Probe(
            f"{name}-flood", f"Writes 64 MB to its {name}.", {"act": "flood", "stream": number, "mb": 64},
            TRAINED, look=log_is_capped, short=number == 1, shared=number == 2,
        )  # fmt: skip
    yield Probe("endless-loop", "Never ends, in Python.", {"act": "spin"}, TIMEOUT, limits=BRIEF, shared=True)
    yield Probe(
        "endless-loop-in-c", "Never ends, in C, holding the interpreter's lock.", {"act": "spin-in-c"},
        TIMEOUT,
        limits=BRIEF, short=True,
    )  # fmt: skip
    yield Probe("sleep", "Sleeps for ten minutes.", {"act": "sleep"}, TIMEOUT, limits=BRIEF, shared=True)
    yield Probe(
        "deaf",
        "Ignores and blocks every signal, and stays.",
        {"act": "ignore-signals"},
        TIMEOUT,
        limits=BRIEF,
    )
    yield Probe(
        "daemon", "Leaves behind a process of another session that ignores SIGTERM.",
        {"act": "hide", "seconds": 0}, TRAINED, short=True,
    )  # fmt: skip
    yield Probe(
        "lingering", "Leaves a thread and an exit hook that sleep for ten minutes.", {"act": "linger"},
        TRAINED,
    )  # fmt: skip
    yield Probe(
        "deep-folders",
        "Leaves folders 300 deep and awkward names.",
        {"act": "dig", "depth": 300},
        TRAINED,
        shared=True,
    )
    yield Probe(
        "open-everything",
        "Opens files until none can be had.",
        {"act": "open-everything"},
        ERROR | KILLED,
        shared=True,
    )


def endings() -> Iterable[Probe]:
    """They end themselves, or others, before their time."""
    yield Probe(
        "self-kill", "Kills itself.", {"act": "signal", "number": int(signal.SIGKILL)}, KILLED, short=True
    )
    yield Probe(
        "kill-everything", "Kills every process that it may.", {"act": "kill-all"}, KILLED,
        short=True, needs=SIGNALS,
    )  # fmt: skip
    yield Probe(
        "kill-parents", "Kills its parent and everyone above.",
        {"act": "kill-parents", "number": int(signal.SIGKILL)}, KILLED | TRAINED | BAD, needs=SIGNALS,
    )  # fmt: skip
    yield Probe(
        "stop-parents", "Stops its parent and everyone above, so that nobody watches.",
        {"act": "kill-parents", "number": int(signal.SIGSTOP)}, TIMEOUT | KILLED, limits=BRIEF, needs=SIGNALS,
    )  # fmt: skip
    yield Probe("segfault", "Reads address 0.", {"act": "segfault"}, KILLED, words="SIGSEGV", short=True)
    yield Probe("abort", "Aborts.", {"act": "abort"}, KILLED, words="SIGABRT", shared=True)
    yield Probe("stack", "Overflows the stack of C.", {"act": "recurse"}, KILLED | ERROR, shared=True)
    yield Probe("exit", "Leaves the interpreter.", {"act": "quit"}, ERROR, words="SystemExit", shared=True)
    yield Probe(
        "exit-well",
        "Ends with exit code 0 before the end.",
        {"act": "exit", "code": 0},
        BAD,
        short=True,
        shared=True,
    )
    yield Probe(
        "speechless",
        "Raises what exits when it is printed.",
        {"act": "speechless"},
        ERROR | KILLED | BAD,
        shared=True,
    )
    yield Probe(
        "close-everything", "Closes all its files, the channel to the keeper too.",
        {"act": "close-everything"},
        ERROR | KILLED | BAD,
    )  # fmt: skip
    yield Probe(
        "bomb-in-training", "Behaves when tried, ends itself in training.",
        {"act": "exit", "code": 0, "when": "training"}, BAD | KILLED, shared=True,
    )  # fmt: skip
    yield Probe(
        "bomb-in-evaluation", "Behaves in training, never ends when evaluated.",
        {"act": "spin", "when": "evaluating"}, TIMEOUT, limits=BRIEF,
    )  # fmt: skip
    yield Probe(
        "prompt-injection", "Prints and raises control characters and orders to a model.", {"act": "inject"},
        ERROR,
        look=log_is_capped, short=True, shared=True,
    )  # fmt: skip


def reaching() -> Iterable[Probe]:
    """They reach for what is not theirs."""
    yield Probe(
        "secrets", "Looks for the host's keys in environments, files and the memory of other processes.",
        {"act": "read-secrets"}, ERROR,
        facts={"environments": [], "names": [], "files": [], "memory": []},
        declared={"files": READS, "environments": MEMORY_OF_OTHERS, "memory": MEMORY_OF_OTHERS}, short=True,
    )  # fmt: skip
    yield Probe(
        "network", "Connects to the internet, the host, the gateway, and sockets with and without names.",
        {"act": "use-network"}, ERROR,
        facts={"tcp": [], "internet": [], "datagrams": False, "unix": [], "abstract": [], "raw": []},
        declared={"unix": UNIX, **dict.fromkeys(("tcp", "internet", "datagrams", "abstract", "raw"),
        NETWORK)},
        short=True,
    )  # fmt: skip
    yield Probe(
        "knobs", "Opens for writing what steers the kernel, in /proc and /sys.", {"act": "turn-knobs"}, ERROR,
        facts={"opened": []}, declared={"opened": WRITES}, short=True,
    )  # fmt: skip
    yield Probe(
        "privileges",
        "Makes device files, mounts, becomes another user, runs set-user-id programs, raises limits.",
        {"act": "take-privileges"}, ERROR,
        facts={"taken": [], "capabilities": "0x0", "set_user_id": [], "raised": []}, short=True,
    )  # fmt: skip
    yield Probe(
        "namespaces", "Becomes root of namespaces of its own.", {"act": "make-namespaces"}, ERROR,
        facts={"made": []}, declared={"made": "system calls"},
    )  # fmt: skip
    yield Probe(
        "trace", "Traces the processes above and beside it, opens their memory and files.", {"act": "trace"},
        ERROR,
        facts={"traced": [], "memory": [], "files": []},
        declared=dict.fromkeys(("traced", "memory", "files"), MEMORY_OF_OTHERS), short=True, needs=SIGNALS,
    )  # fmt: skip
    yield Probe(
        "edit-worker", "Writes to the files of the worker, torch and Python.", {"act": "edit-worker"}, ERROR,
        facts={"opened": [], "made": []}, short=True, needs=WRITES,
    )  # fmt: skip
    nothing: dict[str, list[str]] = {"files": [], "arrays": [], "datasets": []}
    yield Probe(
        "peek", "Looks for held-out data in files and memory when it is built.",
        {"act": "peek", "labels_only": False}, ERROR, facts=nothing, declared={"datasets": READS}, short=True,
    )  # fmt: skip
    yield Probe(
        "peek-in-training", "Looks for held-out data in the first training step.",
        {"act": "peek", "labels_only": False, "when": "training"}, ERROR, facts=nothing,
        declared={"datasets": READS}, shared=True,
    )  # fmt: skip
    yield Probe(
        "peek-at-labels", "Looks for held-out labels while it is evaluated.",
        {"act": "peek", "labels_only": True, "when": "evaluating"}, ERROR, facts=nothing,
        declared={"datasets": READS}, shared=True,
    )  # fmt: skip
    yield Probe(
        "notes", "Leaves prepared answers for a later job, in files and shared memory.",
        {"act": "leave-note"},
        TRAINED, then={"act": "find-note"}, facts={"notes": [], "segment": False},
        declared={"notes": WRITES, "left": WRITES, "segment": WRITES}, short=True,
    )  # fmt: skip
    yield Probe(
        "all-descriptors", "Writes forged words to every open file of every process.",
        {"act": "write-to-files-of-all"}, TRAINED | BAD | KILLED, look=claims_are_ignored, short=True,
        needs=SIGNALS,
    )  # fmt: skip
