"""Two hundred varied real texts: many scripts, one to four hundred words."""

from pathlib import Path

_TESTS = Path(__file__).parent
_LONG_TEXT = (_TESTS.parent / "LICENSE").read_text().split()


def load_sentences() -> list[str]:
    """Return a hundred short texts in many scripts, and a hundred passages of 1, 5, 9 … 397 words."""
    short = (_TESTS / "data" / "sentences.txt").read_text(encoding="utf-8").splitlines()
    passages = [" ".join(_LONG_TEXT[7 * i : 7 * i + 4 * i + 1]) for i in range(100)]
    return short + passages
