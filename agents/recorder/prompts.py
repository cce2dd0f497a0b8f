"""A run's prompt templates in MLflow's prompt registry, a version for each that was not there before."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from cambrian.agents.errors import CambrianError
from cambrian.agents.planner.kept_prompts import FOLDER, kept_prompts
from cambrian.agents.planner.templates import Templates
from cambrian.agents.recorder.trace_entries import PromptRef, stem
from cambrian.agents.recorder.trace_tracking import TraceTracking
from cambrian.agents.recorder.tracking import is_hopeless, is_missing
from cambrian.agents.wording import one_line
from cambrian.search_spaces import Space

logger = logging.getLogger(__name__)


class _Template(NamedTuple):
    name: str
    version: str
    text: str


class PromptRegistry:
    """The versions of templates that a run asks with, as MLflow numbers them.

    Args:
        tracking: where they are registered.
        space: whose templates they are.
        run_folder: where the run keeps its resolved templates.
        asks: whether the run asks models at all; one that does not has nothing to register.
    """

    def __init__(self, tracking: TraceTracking, space: Space, run_folder: Path, asks: bool) -> None:
        self._tracking = tracking
        self._space = space
        self._folder = run_folder
        self._asks = asks
        self._known: dict[str, dict[str, int]] = {}
        self.refs: dict[tuple[str, str], PromptRef] = {}

    def register(self) -> None:
        """Register what the run keeps and the registry lacks.

        Raises:
            Exception: whatever MLflow raises where trying again may help.
        """
        for template in self._templates():
            key = (template.name, template.version)
            if key in self.refs:
                continue
            try:
                self.refs[key] = self._registered(template)
            except Exception as error:
                if not is_hopeless(error) or is_missing(error):
                    raise
                logger.warning("MLflow registers no %s: %s", template.name, one_line(str(error), 300))

    def of(self, templates: Mapping[str, str]) -> list[PromptRef]:
        """The registered versions among `templates` (version by name), in their order."""
        return [self.refs[key] for key in templates.items() if key in self.refs]

    def _registered(self, template: _Template) -> PromptRef:
        name = prompt_name(self._space.name, template.name)
        if name not in self._known:
            self._known[name] = self._tracking.registered(name)
        number = self._known[name].get(template.version)
        if number is not None:
            return PromptRef(name, number)
        description = f"Cambrian's template `{template.name}` for the space {self._space.name}"
        ref = self._tracking.register(name, template.version, template.text, description)
        self._known[name][template.version] = ref.number
        return ref

    def _templates(self) -> list[_Template]:
        try:
            kept = kept_prompts(self._folder)
            if kept is not None:
                return [
                    _Template(t.name, t.version, (self._folder / FOLDER / t.file).read_text(encoding="utf-8"))
                    for t in kept.templates
                    if not is_part(t.name)
                ]
            if not self._asks:
                return []
            own = Templates.of(self._space)
            return [
                _Template(name, own.version(name), own.resolved(name))
                for name in own.names()
                if not is_part(name)
            ]
        except (CambrianError, OSError, UnicodeDecodeError) as error:
            logger.warning("prompts are not registered: %s", one_line(str(error), 300))
            return []


def is_part(template: str) -> bool:
    """Whether a template is only there to be imported by others, in whose versions it is contained."""
    return template.startswith("_")


def prompt_name(space: str, template: str) -> str:
    """Such as `cambrian-convnet-propose`."""
    return re.sub(r"[^A-Za-z0-9_.-]", "-", f"cambrian-{space}-{stem(template)}")
