"""The few calls of MLflow about traces and prompts that the recorder needs.

Traces are written whole through MLflow's tracing client: two requests, one of them for a whole batch, where
its fluent interface needs a tracer of the whole process and a queue that may not be emptied.
"""

from __future__ import annotations

import base64
import json
import logging
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from cambrian.agents.recorder.trace_entries import PromptRef, TraceEntry
from cambrian.agents.recorder.tracking import Tracking, is_hopeless, is_missing, load_mlflow
from cambrian.agents.wording import one_line

logger = logging.getLogger(__name__)

TAG_VERSION = "cambrian.version"
_PER_LINK = 100
_MAX_TAG = 4000


class _PromptVersion(NamedTuple):
    name: str
    version: int


class _Version(Protocol):
    version: int
    tags: Mapping[str, str]
    aliases: Sequence[str]


class TraceTracking:
    """Traces and prompts on the server of `tracking`, in its experiment."""

    def __init__(self, tracking: Tracking) -> None:
        load_mlflow()
        from mlflow.tracing.client import TracingClient

        self._client = tracking.client
        self._experiment_id = tracking.experiment_id
        self._tracing = TracingClient(tracking.client.tracking_uri)
        self._warned = False

    def write(self, entries: Sequence[TraceEntry], parent_run_id: str) -> None:
        """Write traces; ones that are there already become what is written.

        One that the server will not take, however often it is asked, is left out with a warning.

        Raises:
            Exception: whatever MLflow raises where trying again may help.
        """
        taken = []
        for entry in entries:
            try:
                self._tracing.start_trace(self._info(entry, parent_run_id))
                taken.append(entry)
            except Exception as error:
                if not is_hopeless(error) or is_missing(error):
                    raise
                logger.warning(
                    "MLflow refuses the trace of %s: %s", entry.exchange, one_line(str(error), 300)
                )
        if taken:
            self._write_spans(taken)
            for entry in taken:
                self._link_prompts(entry)

    def link(self, trace_ids: Sequence[str], run_id: str) -> None:
        """Show traces on the page of a run, beside the one that they came from."""
        for start in range(0, len(trace_ids), _PER_LINK):
            ids = [f"tr-{each}" for each in trace_ids[start : start + _PER_LINK]]
            self._client.link_traces_to_run(ids, run_id)

    def tag(self, trace_id: str, key: str, value: str) -> None:
        """Set a tag of a trace; nothing happens when a person has deleted it."""
        try:
            self._client.set_trace_tag(f"tr-{trace_id}", key, value[:_MAX_TAG])
        except Exception as error:
            if not is_missing(error):
                raise
            logger.debug("trace %s is gone: %s", trace_id, error)

    def registered(self, name: str) -> dict[str, int]:
        """MLflow's number of each version of a prompt that we registered, by its hash."""
        found: dict[str, int] = {}
        for each in self._versions(name):
            if TAG_VERSION in each.tags:
                found.setdefault(each.tags[TAG_VERSION], int(each.version))
        return found

    def register(self, name: str, version: str, text: str, description: str) -> PromptRef:
        """A new version of a prompt, which is made when there is none of that name."""
        from mlflow.prompt.constants import PROMPT_EXPERIMENT_IDS_TAG_KEY

        # Not `register_prompt`: that files prompts under the experiment of the fluent interface.
        prompt = self._client.get_prompt(name)
        ids = [] if prompt is None else prompt.tags.get(PROMPT_EXPERIMENT_IDS_TAG_KEY, "").split(",")
        ids = [each for each in ids if each]
        listed = f",{','.join([*ids, self._experiment_id])},"
        if prompt is None:
            tags = {PROMPT_EXPERIMENT_IDS_TAG_KEY: listed}
            self._client.create_prompt(name, description=description, tags=tags)
        elif self._experiment_id not in ids:
            self._client.set_prompt_tag(name, PROMPT_EXPERIMENT_IDS_TAG_KEY, listed)
        made = self._client.create_prompt_version(
            name, text, description=f"template version {version}", tags={TAG_VERSION: version}
        )
        self._client.set_prompt_alias(name, version, int(made.version))
        return PromptRef(name, int(made.version))

    def _versions(self, name: str) -> list[_Version]:
        found: list[_Version] = []
        token: str | None = None
        while True:
            try:
                page = self._client.search_prompt_versions(name, max_results=100, page_token=token)
            except Exception as error:
                if is_missing(error):
                    return found
                raise
            found += page
            token = page.token
            if not token:
                return found

    def _write_spans(self, entries: Sequence[TraceEntry]) -> None:
        try:
            self._tracing.log_spans(self._experiment_id, [_span(entry) for entry in entries])
        except Exception as error:
            if not is_hopeless(error) or is_missing(error):
                raise
            # A server before 3.4 takes no spans: its traces show the beginning of question and answer only.
            if not self._warned:
                logger.warning("MLflow takes no spans: %s", one_line(str(error), 300))
            self._warned = True

    def _link_prompts(self, entry: TraceEntry) -> None:
        """Show a trace on the pages of its prompts; its own page goes by a tag that it has already."""
        if not entry.prompts:
            return
        versions = [_PromptVersion(ref.name, ref.number) for ref in entry.prompts]
        try:
            # The client's method of that name asks the server of the fluent interface instead of this one.
            self._tracing.store.link_prompts_to_trace(f"tr-{entry.trace_id}", versions)
        except Exception as error:
            if not is_hopeless(error) or is_missing(error):
                raise
            logger.debug("prompts of %s are not linked: %s", entry.exchange, error)

    def _info(self, entry: TraceEntry, parent_run_id: str) -> Any:
        from mlflow.entities import TraceInfo, TraceLocation
        from mlflow.entities.trace_state import TraceState

        metadata = {
            "mlflow.sourceRun": parent_run_id,
            "mlflow.source.name": "cambrian",
            "mlflow.source.type": "LOCAL",
        }
        if entry.session:
            metadata["mlflow.trace.session"] = entry.session[:250]
        return TraceInfo(
            trace_id=f"tr-{entry.trace_id}",
            trace_location=TraceLocation.from_experiment_id(self._experiment_id),
            request_time=round(entry.start * 1000),
            execution_duration=round(entry.seconds * 1000),
            state=TraceState.OK if entry.ok else TraceState.ERROR,
            request_preview=entry.question,
            response_preview=entry.answer,
            client_request_id=entry.exchange,
            trace_metadata=metadata,
            tags={"mlflow.traceName": entry.name}
            | {key: value[:_MAX_TAG] for key, value in entry.tags.items()},
        )


def _span(entry: TraceEntry) -> Any:
    from mlflow.entities import Span

    start = round(entry.start * 1e9)
    attributes = {"mlflow.traceRequestId": f"tr-{entry.trace_id}", **entry.attributes}
    return Span.from_dict(
        {
            "trace_id": base64.b64encode(bytes.fromhex(entry.trace_id)).decode(),
            "span_id": base64.b64encode(bytes.fromhex(entry.span_id)).decode(),
            "parent_span_id": None,
            "name": entry.name,
            "start_time_unix_nano": start,
            "end_time_unix_nano": start + round(entry.seconds * 1e9),
            "status": {
                "code": "STATUS_CODE_OK" if entry.ok else "STATUS_CODE_ERROR",
                "message": entry.problem,
            },
            "attributes": {key: json.dumps(value) for key, value in attributes.items()},
            "events": [],
        }
    )
