"""Who may ask, and how much: keys, rates and quotas."""

from gateway.access.keyed import build_access
from gateway.access.policy import ANYBODY, AccessPolicy, AccessSettingsError, Caller, OpenAccess

__all__ = ["ANYBODY", "AccessPolicy", "AccessSettingsError", "Caller", "OpenAccess", "build_access"]
