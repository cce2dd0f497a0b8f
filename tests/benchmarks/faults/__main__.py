"""Whole runs against a model server with one fault each, by both APIs.

Everything is real but the training, which costs nothing: arms, the LLM arm's client with its retries and its
breaker, the analyst, the loop. Each fault is met twice: at every request, and at every second one. A run
passes when it completes its whole budget and its ledger is the server's own log, call by call and token by
token. Usage that a server does not tell, or that nobody can believe, is in no log; what we estimate then
stands in a column of its own.

    make bench NAME=faults ARGS="--evaluations 24"
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import sys
import tempfile
from pathlib import Path

from cambrian.sandbox import SANDBOXES
from cambrian.search_spaces import TASKS
from tests.benchmarks.faults.trouble import FAULTS, Endured, endure, mixed, timeout_s
from tests.benchmarks.harness import Row, publish
from tests.support.instant import InstantSandbox


def row(fault: str, when: str, api: str, endured: Endured) -> Row:
    """One line of the table."""
    return {
        "fault": fault,
        "at": when,
        "api": api,
        "evaluations": f"{endured.evaluations}/{endured.budget}",
        "by the model": endured.by_model,
        "calls": endured.calls,
        "server's": endured.server_calls,
        "tokens": endured.tokens,
        "server's ": endured.server_tokens,
        "estimated": endured.estimated,
        "s": endured.seconds,
        "result": "ok" if endured.exact and endured.evaluations == endured.budget else "FAILED",
    }


def main() -> int:
    """Run all faults; the exit code is 1 when one of them cost the run anything but time."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--evaluations", type=int, default=24)
    parser.add_argument("--apis", nargs="+", default=["chat", "responses"], choices=["chat", "responses"])
    parser.add_argument("--faults", nargs="+", default=list(FAULTS), choices=list(FAULTS), metavar="FAULT")
    options = parser.parse_args()
    logging.disable(logging.WARNING)
    SANDBOXES.register("instant", InstantSandbox)
    TASKS.create("digits").load()
    rows: list[Row] = []
    for api in options.apis:
        for fault in options.faults:
            for when, response in (("each request", FAULTS[fault]), ("every second", mixed(FAULTS[fault]))):
                with tempfile.TemporaryDirectory() as folder:
                    run = endure(
                        response, Path(folder), options.evaluations, api=api, timeout_s=timeout_s(fault)
                    )
                    endured = asyncio.run(run)
                rows.append(row(fault, when, api, endured))
                print(*rows[-1].values(), sep="  ", file=sys.stderr)
    failed = sum(each["result"] != "ok" for each in rows)
    publish(
        "faults",
        rows,
        note=f"{len(rows) - failed} of {len(rows)} runs completed their budget with a ledger that is the "
        "server's log",
    )
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
