"""The one deadline of a request."""

import pytest

from gateway.errors import DeadlineError
from gateway.timeouts import Deadline


def test_a_passed_deadline_leaves_no_time() -> None:
    assert 0 < Deadline.after(5).remaining_s() <= 5
    with pytest.raises(DeadlineError):
        Deadline.after(-1).remaining_s()
