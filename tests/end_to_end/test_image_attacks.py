"""Images that cost much to decode, beside small ones and texts of other clients: the short form of `make attacks`."""

import time
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
from tritonclient.grpc import InferenceServerClient, InferInput
from tritonclient.utils import InferenceServerException

from bench.attack_list import SLOW_IMAGES, Attack, make_webp_bomb
from bench.attacks import observe
from launcher.settings import STAND_IN
from tests.end_to_end.samples import TINY
from tests.service import Service, run_gateway

pytestmark = [pytest.mark.triton, pytest.mark.slow]

ATTACK_S = 6
MAX_P99_S = 5.0
"""Beside these attacks, others once waited for two minutes. This machine may be busy: `make attacks` allows 2 s."""


@pytest.fixture(scope="module")
def url(service: Service) -> Iterator[str]:
    """A gateway that serves the tests' model under the name of that which is attacked."""
    with run_gateway(service, GATEWAY_MODEL_ALIASES=f"{STAND_IN}={TINY}") as running:
        yield running


@pytest.mark.parametrize("attack", SLOW_IMAGES, ids=lambda attack: attack.name)
def test_other_clients_are_served_beside_an_attack(url: str, attack: Attack) -> None:
    observation = observe(url, replace(attack, max_p99_s=MAX_P99_S), ATTACK_S)
    assert not observation.complaint, observation


def test_the_image_step_stops_when_the_time_of_a_request_is_over(triton: InferenceServerClient) -> None:
    images = np.array([[make_webp_bomb()] * 50], dtype=np.object_)
    tensor = InferInput("image", images.shape, "BYTES")
    tensor.set_data_from_numpy(images)
    started_s = time.monotonic()
    with pytest.raises(InferenceServerException, match="request timeout expired"):
        triton.infer("tiny_checkpoint_image", [tensor], timeout=500_000)
    assert time.monotonic() - started_s < 30  # all of them take minutes
