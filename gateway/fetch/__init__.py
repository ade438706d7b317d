"""Images given by URL, fetched without reaching into private networks."""

from gateway.fetch.fetcher import ByteBudget, ImageFetcher, NoFetcher, build_fetcher

__all__ = ["ByteBudget", "ImageFetcher", "NoFetcher", "build_fetcher"]
