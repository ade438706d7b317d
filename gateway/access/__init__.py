"""Authentication and rate limits: who may send requests, and how many."""

from gateway.access.policy import ANONYMOUS, AccessPolicy, AccessSettingsError, Caller, OpenAccess, build_access

__all__ = ["ANONYMOUS", "AccessPolicy", "AccessSettingsError", "Caller", "OpenAccess", "build_access"]
