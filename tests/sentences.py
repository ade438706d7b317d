"""Two hundred texts in many scripts, of 1 to 400 words."""

from pathlib import Path

TESTS = Path(__file__).parent


def load_sentences() -> list[str]:
    """Return a hundred short texts in many scripts, and a hundred passages of 1, 5, 9 … 397 words."""
    short = (TESTS / "data" / "sentences.txt").read_text(encoding="utf-8").splitlines()
    words = (TESTS.parent / "LICENSE").read_text().split()
    passages = [" ".join(words[7 * i : 7 * i + 4 * i + 1]) for i in range(100)]
    assert len(short) == 100 and len(passages[-1].split()) == 397
    return short + passages
