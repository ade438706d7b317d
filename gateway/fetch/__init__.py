"""Images given by URL, fetched without reaching into private networks."""

from gateway.fetch.fetcher import ByteBudget, FileFetcher, NoFetcher, build_fetcher

__all__ = ["ByteBudget", "FileFetcher", "NoFetcher", "build_fetcher"]
