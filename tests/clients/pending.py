"""What clients ask for and the server does not offer yet.

A test of it is expected to fail, and fails if it passes: then its line goes.
"""

import pytest

PENDING = {
    "Dify, images": "`messages` with an instruction and an empty response around the user's",
}


def pending(name: str) -> pytest.MarkDecorator:
    """Return a mark under which a test is expected to fail if the server does not offer what it needs."""
    return pytest.mark.xfail(name in PENDING, strict=True, reason=f"not served yet: {PENDING.get(name)}")
