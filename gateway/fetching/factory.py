"""The fetcher that the settings ask for."""

import httpcore

from gateway.fetching.fetcher import FetchLimits, UrlFetcher
from gateway.fetching.interface import ImageFetcher, NoFetcher
from gateway.fetching.network import GuardedNetwork, SystemResolver
from gateway.fetching.queue import FetchQueue
from gateway.fetching.urls import UrlRules
from gateway.settings import Settings

SCHEMES = {"https": frozenset({"https"}), "on": frozenset({"http", "https"})}


def build_fetcher(settings: Settings) -> ImageFetcher:
    """Puts the parts together; nothing is opened before the first picture."""
    if settings.image_urls == "off":
        return NoFetcher()
    connect_timeout_s = settings.image_url_connect_timeout_s
    return UrlFetcher(
        UrlRules(SCHEMES[settings.image_urls], frozenset(settings.image_url_hosts.lower().replace(",", " ").split())),
        GuardedNetwork(SystemResolver(), httpcore.AnyIOBackend(), connect_timeout_s),
        FetchQueue(
            concurrency=settings.image_url_concurrency,
            host_concurrency=settings.image_url_host_concurrency,
            capacity=settings.image_url_queue,
        ),
        FetchLimits(settings.max_image_bytes, settings.image_url_timeout_s, connect_timeout_s),
    )
