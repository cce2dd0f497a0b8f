"""The models of a run: which of them plays which role, behind one ledger.

The LLM arm, its repair turns and the analyst all ask here, so that budgets hold for them together and a model
that does not answer is left alone by all.
"""

from __future__ import annotations

from cambrian.agents.planner.client import LLMClient, ModelRequest
from cambrian.agents.planner.endpoint import resolve_endpoint
from cambrian.agents.planner.exchange import Exchange, ExchangeLog
from cambrian.agents.planner.openai_client import OpenAIClient
from cambrian.agents.runfile import RunConfig
from cambrian.agents.sections import Role


class Models:
    """Asks the model that plays a role.

    Args:
        config: `llm` and `budget` are used.
        exchanges: the run's record of what was asked and answered.
        client: answers in place of all models; None makes clients from the run file and the environment.
    """

    def __init__(self, config: RunConfig, exchanges: ExchangeLog, client: LLMClient | None = None) -> None:
        self.exchanges = exchanges
        self._configured = client is not None or not resolve_endpoint(config.llm).problem
        self._client: LLMClient = client or OpenAIClient(config, exchanges)

    @property
    def names(self) -> tuple[str, ...]:
        """All of them, the one that plays roles by default first."""
        return (self._client.model,)

    def ready(self, role: Role) -> bool:
        """Whether somebody plays `role` and may be asked now; whether it answers shows when it is asked."""
        del role
        return self._configured

    async def ask(self, request: ModelRequest, model: str | None = None) -> Exchange:
        """The recorded exchange with the model that plays the request's role.

        Args:
            request: the question.
            model: one of `names`; None takes the role's own.

        Raises:
            ModelUnavailable: see `LLMClient.ask`.
            LimitReached: see `LLMClient.ask`.
        """
        del model
        return await self._client.ask(request)

    async def close(self) -> None:
        """Close all clients. Safe to call twice."""
        await self._client.close()
