import pytest

from bench.results import Load, Measurement, Results, Sample, ratio

LOAD = Load("12 words", 1, 1)


def make_measurement(contender: str, *rates: float) -> Measurement:
    return Measurement("throughput", contender, LOAD, [Sample(rate, 1.0, 2.0, 10) for rate in rates])


def test_ratio_is_the_median_of_the_per_round_ratios() -> None:
    # The third round was slow for both: the ratio of the medians would be 90 / 110.
    assert ratio(make_measurement("a", 100, 90, 11), make_measurement("b", 100, 180, 110)) == pytest.approx(0.5)


def test_ratio_without_one_of_the_measurements_is_none() -> None:
    assert ratio(make_measurement("a", 1), None) is None


def test_results_survive_json() -> None:
    results = Results([make_measurement("a", 1, 2)])
    assert Results.from_json(results.to_json()).measurements == results.measurements


def test_a_measurement_is_found_by_contender_and_load() -> None:
    results = Results([make_measurement("a", 1), make_measurement("b", 2)])
    assert results.find("throughput", "b", LOAD) == results.measurements[1]
    assert results.find("throughput", "b", Load("12 words", 1, 2)) is None
