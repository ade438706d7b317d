"""The policy that the settings ask for: everybody, or holders of a key within its allowances."""

from starlette.requests import Request

from gateway.access.allowances import Allowances
from gateway.access.keys import ApiKey, KeyRing, read_keys
from gateway.access.policy import AccessPolicy, Caller, OpenAccess
from gateway.errors import UnauthorizedError
from gateway.settings import Settings


class KeyedAccess:
    """Lets holders of a key ask, as often as the key allows."""

    def __init__(self, keys: list[ApiKey], allowances: Allowances) -> None:
        """Keeps what it works with.

        Args:
            keys: at least one.
            allowances: what they have spent.
        """
        self._ring = KeyRing(keys)
        self._keys = {key.name: key for key in keys}
        self._allowances = allowances

    async def admit(self, request: Request) -> Caller:
        """Recognises the key and takes one request from what it may send.

        Raises:
            UnauthorizedError: no valid key.
            RateLimitedError: too many requests or tokens of this key.
            QuotaSpentError: the key's quota is used up.
        """
        key = self._ring.find(read_bearer(request))
        if key is None:
            raise UnauthorizedError("a valid API key is required; send it as 'Authorization: Bearer KEY'")
        await self._allowances.take_request(key)
        return Caller(key.name)

    async def charge(self, caller: Caller, tokens: int) -> None:
        """Counts the tokens of an answered request."""
        await self._allowances.count_tokens(self._keys[caller.name], tokens)


def read_bearer(request: Request) -> bytes:
    """What stands in the Authorization header after `Bearer` (RFC 6750), or nothing."""
    scheme, _, secret = request.headers.get("authorization", "").partition(" ")
    return secret.strip().encode("latin-1") if scheme.lower() == "bearer" else b""


def build_access(settings: Settings) -> AccessPolicy:
    """Puts the policy together.

    Raises:
        AccessSettingsError: the keys, or the store of the counts, cannot be used as they stand.
    """
    keys = read_keys(settings.api_keys, settings.api_keys_file)
    return KeyedAccess(keys, Allowances(settings.rate_store)) if keys else OpenAccess()
