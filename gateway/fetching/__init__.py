"""Pictures that a request names by address: the interface, and the guarded way to get them."""

from gateway.fetching.factory import build_fetcher
from gateway.fetching.interface import ByteBudget, ImageFetcher, NoFetcher

__all__ = ["ByteBudget", "ImageFetcher", "NoFetcher", "build_fetcher"]
