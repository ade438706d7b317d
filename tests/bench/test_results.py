import pytest

from bench.goals import Goal, compare_with_infinity, p99
from bench.results import Load, Measurement, Results, Sample, ratio
from bench.sections import int8
from bench.tables import goals_table, section_table
from bench.workloads import load_sentences

LOAD = Load("12 words", 1, 1)


def measurement(contender: str, *rates: float) -> Measurement:
    return Measurement("throughput", contender, LOAD, [Sample(rate, 1.0, 2.0, 10) for rate in rates])


def test_ratio_is_the_median_of_the_rounds_ratios() -> None:
    # The third round was slow for both: the ratio of the medians would be 90 / 110.
    assert ratio(measurement("a", 100, 90, 11), measurement("b", 100, 180, 110)) == pytest.approx(0.5)


def test_ratio_of_something_unmeasured_is_none() -> None:
    assert ratio(measurement("a", 1), None) is None


def test_results_survive_json() -> None:
    results = Results([measurement("a", 1, 2)])
    assert Results.from_json(results.to_json()).measurements == results.measurements


def test_results_find_by_contender_and_load() -> None:
    results = Results([measurement("a", 1), measurement("b", 2)])
    assert results.find("throughput", "b", LOAD) == results.measurements[1]
    assert results.find("throughput", "b", Load("12 words", 1, 2)) is None


@pytest.mark.parametrize(("value", "verdict"), [(0.5, "missed"), (0.75, "met"), (0.95, "aim met")])
def test_a_goal_is_met_from_its_figure_up(value: float, verdict: str) -> None:
    assert Goal("", 0.75, 0.9, lambda results: None).judge(value) == verdict


@pytest.mark.parametrize(("value", "verdict"), [(81, "missed"), (80, "met"), (40, "aim met")])
def test_a_goal_of_cost_is_met_from_its_figure_down(value: float, verdict: str) -> None:
    assert Goal("", 80, 40, lambda results: None, lower_is_better=True).judge(value) == verdict


def test_the_gateway_is_compared_with_infinitys_engine_that_does_better() -> None:
    rates = {"gateway": (200, 10), "infinity torch": (100, 20), "infinity optimum": (50, 5)}
    measured = [Measurement("peers", name, LOAD, [Sample(rate, 1.0, p99, 9)]) for name, (rate, p99) in rates.items()]
    assert compare_with_infinity(LOAD)(Results(measured)) == pytest.approx(2)
    assert compare_with_infinity(LOAD, p99)(Results(measured)) == pytest.approx(2)
    assert compare_with_infinity(LOAD)(Results(measured[:2])) is None


@pytest.mark.parametrize(("mean_cosine", "verdict"), [(0.9959, "| met "), (0.98, "| missed ")])
def test_int8_misses_its_goal_when_its_embeddings_are_off(mean_cosine: float, verdict: str) -> None:
    samples = {"fp32": [Sample(100, 1.0, 2.0, 10)], "int8": [Sample(200, 1.0, 2.0, 10)]}
    agreement = {int8.MEAN_COSINE: mean_cosine, int8.LOWEST_COSINE: 0.9}
    results = Results.from_json(
        Results(
            Measurement("int8", name, int8.LOAD, found, agreement if name == "int8" else {})
            for name, found in samples.items()
        ).to_json()
    )
    [row] = [line for line in goals_table(results).splitlines() if line.startswith("| int8")]
    assert verdict in row
    assert section_table(results, "int8").endswith(f"int8: mean cosine {mean_cosine:.4g}, lowest cosine 0.9.")


def test_int8_is_compared_over_a_hundred_sentences() -> None:
    assert len(set(load_sentences())) >= 100
