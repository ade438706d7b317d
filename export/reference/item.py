"""What a reference embeds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class ReferenceItem:
    """One sequence.

    Attributes:
        input_ids: Its token ids, image tokens included.
        patches: Pixels of its tiles as the preprocessing step sends them, `(image tokens, bytes of a row)` uint8; None
            for a text.
    """

    input_ids: Sequence[int]
    patches: NDArray[np.uint8] | None = None
