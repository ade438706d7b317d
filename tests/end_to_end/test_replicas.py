"""Two gateways in front of two Tritons, one of which is killed under load."""

import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from tritonclient.grpc import InferenceServerClient
from tritonclient.utils import InferenceServerException

from bench.traffic import TEXTS, Kind, Outcome, Traffic
from tests.end_to_end.samples import MINILM
from tests.service import Service, run_gateway, run_service, wait_until

pytestmark = [pytest.mark.triton, pytest.mark.slow]

CLIENTS = 4
"""Of each gateway."""

FEW_S = 5.0
"""After that, nobody notices any more that a Triton is gone."""


@pytest.fixture
def victim(repository: Path, tmp_path: Path) -> Iterator[Service]:
    with run_service(repository, tmp_path) as running:
        yield running


@pytest.fixture
def traffics(service: Service, victim: Service) -> Iterator[Sequence[Traffic]]:
    """Clients of both gateways, as long as the test runs."""
    text: tuple[Kind, dict[str, Any]] = ("text", {"model": MINILM, "input": list(TEXTS)})
    bodies = {f"client {number}": text for number in range(CLIENTS)}
    with ExitStack() as stack:
        urls = [
            stack.enter_context(run_gateway(service, TRITON_URL=f"{service.grpc_url},{victim.grpc_url}"))
            for _ in range(2)
        ]
        yield [stack.enter_context(Traffic(url, bodies)) for url in urls]


def count_inferences(triton: Service) -> int:
    """Return how many inference requests Triton has answered; 0 while it does not respond."""
    try:
        with InferenceServerClient(triton.grpc_url) as client:
            statistics = client.get_inference_statistics("all_minilm_l6_v2_text")
    except InferenceServerException:
        return 0
    return int(statistics.model_stats[0].inference_stats.success.count)


def list_outcomes(traffics: Sequence[Traffic]) -> list[Outcome]:
    return [outcome for traffic in traffics for outcome in list(traffic.outcomes)]


def list_refused(traffics: Sequence[Traffic]) -> list[Outcome]:
    return [outcome for outcome in list_outcomes(traffics) if outcome.verdict != "right"]


def test_a_killed_triton_fails_what_it_works_on_at_most_and_is_used_again(
    service: Service, victim: Service, traffics: Sequence[Traffic]
) -> None:
    tritons = (service, victim)
    before = [count_inferences(triton) for triton in tritons]
    wait_until(lambda: len(list_outcomes(traffics)) > 200, 60)
    shares = [count_inferences(triton) - count for triton, count in zip(tritons, before, strict=True)]
    assert min(shares) > 0.2 * sum(shares), shares
    assert not list_refused(traffics)

    killed_s = time.monotonic()
    victim.find("tritonserver").kill()
    time.sleep(2 * FEW_S)
    refused = list_refused(traffics)
    assert len(refused) <= 2 * CLIENTS and not any(outcome.sent_s > killed_s + FEW_S for outcome in refused), refused

    wait_until(lambda: count_inferences(victim) > 100, 60)  # the launcher's own canaries are one a second
    assert list_refused(traffics) == refused
