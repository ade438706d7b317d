"""What the rest of the gateway has to know of a dialect."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Dialect:
    """One of the APIs that clients already speak.

    Attributes:
        name: in logs and metrics.
        title: before people.
        statuses: HTTP statuses it has in place of those of the table of errors.
    """

    name: str
    title: str = ""
    statuses: Mapping[int, int] = field(default_factory=dict)


NO_DIALECT = Dialect("")
"""Of requests that no route took."""
