"""What clients' own requests have told about each model lately."""

import time

from gateway.engine import ServedModel

NEVER_S = float("-inf")


class AnswerHistory:
    """When each model last answered and last could not; moments are of `time.monotonic`, in seconds."""

    def __init__(self) -> None:
        """Remembers nothing yet."""
        self._success_s: dict[str, float] = {}
        self._failure_s: dict[str, float] = {}

    def note_success(self, model: ServedModel) -> None:
        """The model has just answered."""
        self._success_s[model.public_id] = time.monotonic()

    def note_failure(self, model: ServedModel) -> None:
        """The engine was just unavailable for the model."""
        self._failure_s[model.public_id] = time.monotonic()

    def answered_since(self, model: ServedModel, moment_s: float) -> bool:
        """Whether the model has answered since then, and has not failed after that."""
        success_s = self._success_s.get(model.public_id, NEVER_S)
        return success_s >= moment_s and success_s > self._failure_s.get(model.public_id, NEVER_S)

    def failed_since(self, moment_s: float) -> bool:
        """Whether any model has failed since then."""
        return any(failure_s >= moment_s for failure_s in self._failure_s.values())
