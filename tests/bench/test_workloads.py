from bench.workloads import load_sentences


def test_int8_is_compared_over_a_hundred_sentences() -> None:
    assert len(set(load_sentences())) >= 100
