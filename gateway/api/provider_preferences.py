"""OpenRouter's `provider` field: which providers may serve a request, and in which order they are tried.

This server is the only provider there is. A preference that chooses among providers includes or excludes it; one that
only orders them is valid and has no effect. What cannot be honoured is refused.
"""

import re
from typing import Annotated, Any, Literal

from msgspec import Meta, Struct

from gateway.engine import ServedModel
from gateway.errors import InvalidRequestError, NotFoundError, quote

Names = list[str]
Price = Annotated[float, Meta(ge=0)] | Annotated[str, Meta(pattern=r"^[0-9]{1,20}(\.[0-9]{1,20})?$")]
Cutoff = Annotated[float, Meta(ge=0)]
SortKey = Literal["price", "throughput", "latency", "exacto"]


class MaxPrice(Struct, forbid_unknown_fields=True):
    """The highest price to pay, in USD. This server charges nothing."""

    prompt: Price | None = None
    completion: Price | None = None
    image: Price | None = None
    request: Price | None = None
    audio: Price | None = None


class Sort(Struct, forbid_unknown_fields=True):
    """How to order providers."""

    by: SortKey | None = None
    partition: Literal["model", "none"] | None = None


class PercentileCutoffs(Struct, forbid_unknown_fields=True):
    """A limit for each percentile."""

    p50: Cutoff | None = None
    p75: Cutoff | None = None
    p90: Cutoff | None = None
    p99: Cutoff | None = None


class ProviderPreferences(Struct, forbid_unknown_fields=True):
    """Which providers may respond: this server is the only one."""

    only: Annotated[Names | None, Meta(description="Providers that may respond; 404 without this one.")] = None
    ignore: Annotated[Names | None, Meta(description="Providers that may not respond; 404 with this one.")] = None
    order: Annotated[
        Names | None,
        Meta(description="Providers to try; 404 without this one, unless `allow_fallbacks` is true."),
    ] = None
    allow_fallbacks: Annotated[bool | None, Meta(description="Whether providers outside `order` may respond.")] = None
    require_parameters: Annotated[
        bool | None,
        Meta(description="404 if true and the request has a parameter that this server ignores, such as `seed`."),
    ] = None
    data_collection: Annotated[
        Literal["allow", "deny"] | None, Meta(description="Satisfied: this server stores no input.")
    ] = None
    zdr: Annotated[bool | None, Meta(description="Satisfied: this server stores no input.")] = None
    quantizations: Annotated[
        Names | None, Meta(description="Precisions that the model may have; 404 without that of the served model.")
    ] = None
    max_price: Annotated[MaxPrice | None, Meta(description="Satisfied: the price is 0.")] = None
    sort: Annotated[SortKey | Sort | None, Meta(description="Orders providers: no effect with only one.")] = None
    preferred_min_throughput: Annotated[
        Cutoff | PercentileCutoffs | None, Meta(description="Orders providers: no effect with only one.")
    ] = None
    preferred_max_latency: Annotated[
        Cutoff | PercentileCutoffs | None, Meta(description="Orders providers: no effect with only one.")
    ] = None
    enforce_distillable_text: Annotated[
        bool | None, Meta(description="400 if true: the server does not know what the model's author permits.")
    ] = None
    options: Annotated[
        dict[str, dict[str, Any]] | None,
        Meta(description="Options by provider: those of other providers have no effect, and this one has none."),
    ] = None


ARRAY_OF_STRINGS = "an array of strings"
BOOLEAN = "true or false"
SORT_KEYS = "'price', 'throughput', 'latency' or 'exacto'"
CUTOFFS = 'a number from 0, or an object with any of "p50", "p75", "p90" and "p99"'

EXPECTED = {
    "provider": "an object",
    "provider.only": ARRAY_OF_STRINGS,
    "provider.ignore": ARRAY_OF_STRINGS,
    "provider.order": ARRAY_OF_STRINGS,
    "provider.quantizations": ARRAY_OF_STRINGS,
    "provider.allow_fallbacks": BOOLEAN,
    "provider.require_parameters": BOOLEAN,
    "provider.zdr": BOOLEAN,
    "provider.enforce_distillable_text": BOOLEAN,
    "provider.data_collection": "'allow' or 'deny'",
    "provider.max_price": "an object of prices",
    "provider.sort": f'{SORT_KEYS}, or an object with "by" and "partition"',
    "provider.sort.by": SORT_KEYS,
    "provider.sort.partition": "'model' or 'none'",
    "provider.preferred_min_throughput": CUTOFFS,
    "provider.preferred_max_latency": CUTOFFS,
    "provider.options": "an object with an object for each provider",
}
"""What the parser accepts, as messages describe it."""


def explain_provider(path: str, problem: str) -> InvalidRequestError:
    """Return the error for a `provider` field of the wrong shape.

    Args:
        path: Where the problem is, such as `provider.only[0]`.
        problem: The parser's message.
    """
    field = path.partition("[")[0]
    if unknown := re.search("unknown field `(.*)`", problem, re.DOTALL):
        name = f"{field}.{unknown[1]}"
        shown = quote(name)
        if not shown.startswith("'"):
            return InvalidRequestError(f"{field} has an unknown field", param=field)
        return InvalidRequestError(f"unknown field {shown}", param=name)
    return InvalidRequestError(f"{field} must be {EXPECTED.get(field, 'a number from 0')}", param=field)


def check_provider(preferences: ProviderPreferences, name: str, ignores_parameters: bool) -> None:
    """Check that the preferences let this server respond.

    Args:
        preferences: Of the request.
        name: The provider name of this server.
        ignores_parameters: Whether the request has a parameter that this server ignores.

    Raises:
        NotFoundError: A preference excludes this server.
        InvalidRequestError: A preference cannot be honoured.
    """
    name = name.lower()
    only, ignore, order = (list_names(each) for each in (preferences.only, preferences.ignore, preferences.order))
    if only and name not in only:
        raise provider_error("only")
    if name in ignore:
        raise provider_error("ignore")
    if order and name not in order and preferences.allow_fallbacks is not True:
        raise provider_error("order")
    if preferences.require_parameters and ignores_parameters:
        raise provider_error("require_parameters")
    if preferences.enforce_distillable_text:
        field = "provider.enforce_distillable_text"
        raise InvalidRequestError(
            f"{field} is not supported: the server does not know what the model's author permits", param=field
        )
    if any(options and provider.lower() == name for provider, options in (preferences.options or {}).items()):
        field = f"provider.options.{name}"
        raise InvalidRequestError(f"{field} must be empty: this provider has no options", param=field)


def check_quantizations(preferences: ProviderPreferences, model: ServedModel) -> None:
    """Check that the preferences allow the model's precision.

    Raises:
        NotFoundError: They do not.
    """
    if preferences.quantizations and model.precision.lower() not in list_names(preferences.quantizations):
        raise provider_error("quantizations")


def list_names(names: list[str] | None) -> list[str]:
    """Return names in lower case, in which they are compared."""
    return [name.lower() for name in names or ()]


def provider_error(field: str) -> NotFoundError:
    """Return the error for a preference that excludes this server, in OpenRouter's words."""
    return NotFoundError("no allowed providers are available for the selected model", param=f"provider.{field}")
