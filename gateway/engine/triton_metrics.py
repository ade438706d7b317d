"""Triton's own metrics: queue and compute times of every step, batch sizes, failures."""

import anyio
import httpcore

from gateway.errors import EngineUnavailableError

TIMEOUT_S = 5.0
MAX_BYTES = 4 * 1024 * 1024


async def read_triton_metrics(url: str) -> bytes:
    """The page as Triton shows it, in Prometheus' text.

    Args:
        url: of the page.

    Raises:
        EngineUnavailableError: Triton does not answer with one, in time and of a sane size.
    """
    unavailable = EngineUnavailableError("the engine's metrics are not available at the moment", retry_after_s=1.0)
    page = b""
    try:
        with anyio.fail_after(TIMEOUT_S):
            async with httpcore.AsyncConnectionPool() as pool, pool.stream("GET", url) as response:
                async for piece in response.aiter_stream():
                    page += piece
                    if len(page) > MAX_BYTES:
                        raise unavailable
    except (httpcore.NetworkError, httpcore.ProtocolError, httpcore.UnsupportedProtocol, TimeoutError) as error:
        raise unavailable from error
    if response.status != 200:
        raise unavailable
    return page
