"""`make fuzz`: fuzz every target for a while, and write the inputs that break one to `corpus/findings`."""

from __future__ import annotations

import hashlib
import sys
import time
import traceback

from hypothesis import HealthCheck, Phase, given, seed, settings

from tests.fuzz.mutations import mutate
from tests.fuzz.targets import FINDINGS, TARGETS, Target, open_pool, read_seeds

DEFAULT_SECONDS = 600
EXAMPLES_PER_ROUND = 200
MAX_FINDINGS_PER_TARGET = 20


class Fuzzer:
    """Inputs tried and findings of one target.

    Args:
        name: Of the target.
        folder: Of its seeds.
        target: Raises on a finding.
    """

    def __init__(self, name: str, folder: str, target: Target) -> None:
        self.name = name
        self.tried = 0
        self.findings: dict[str, str] = {}
        self._target = target
        self._inputs = mutate(read_seeds(folder))

    def run_round(self, number: int) -> None:
        """Try a number of inputs, which the round's number decides."""

        @seed(number)
        @settings(
            max_examples=EXAMPLES_PER_ROUND,
            database=None,
            deadline=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(self._inputs)
        def try_inputs(data: bytes) -> None:
            self._try(data)

        try_inputs()

    def _try(self, data: bytes) -> None:
        self.tried += 1
        try:
            self._target(data)
        except Exception as error:
            # Findings that end at the same line, with the same message, are one.
            last = traceback.extract_tb(error.__traceback__)[-1]
            problem = f"{last.filename}:{last.lineno} {type(error).__name__}: {str(error)[:80]}"
            if problem not in self.findings and len(self.findings) < MAX_FINDINGS_PER_TARGET:
                path = FINDINGS / f"{self.name}-{hashlib.sha256(data).hexdigest()[:12]}"
                path.write_bytes(data)
                self.findings[problem] = path.name


def main() -> int:
    """Fuzz all targets in turn until the time is over, and return 1 if there were findings."""
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else DEFAULT_SECONDS
    FINDINGS.mkdir(exist_ok=True)
    fuzzers = [Fuzzer(name, folder, target) for name, (folder, target) in TARGETS.items()]
    spent_s = dict.fromkeys(TARGETS, 0.0)
    start_s = time.monotonic()
    number = time.time_ns() // 1_000_000
    try:
        while time.monotonic() - start_s < seconds:
            fuzzer = min(fuzzers, key=lambda each: spent_s[each.name])
            began_s = time.monotonic()
            fuzzer.run_round(number := number + 1)
            spent_s[fuzzer.name] += time.monotonic() - began_s
    finally:
        open_pool().close()
    for fuzzer in fuzzers:
        sys.stdout.write(f"{fuzzer.name:13} {fuzzer.tried:8} inputs, {len(fuzzer.findings)} findings\n")
        for problem, file in fuzzer.findings.items():
            sys.stdout.write(f"  {file}: {problem}\n")
    return int(any(fuzzer.findings for fuzzer in fuzzers))


if __name__ == "__main__":
    sys.exit(main())
