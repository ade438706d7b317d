import pytest

from bench.goals import GOALS, Goal, compare_with_infinity
from bench.report import format_goals, format_section
from bench.results import Load, Measurement, Results, Sample, p99
from bench.sections import INT8_LOAD, LOWEST_COSINE, MEAN_COSINE
from tests.bench.published_page import read_published_results

LOAD = Load("12 words", 1, 1)


@pytest.mark.parametrize(("value", "verdict"), [(0.5, "missed"), (0.75, "met"), (0.95, "aim met")])
def test_a_goal_is_met_at_or_above_its_value(value: float, verdict: str) -> None:
    assert Goal("", 0.75, 0.9, lambda results: None).judge(Results(), value) == verdict


@pytest.mark.parametrize(("value", "verdict"), [(81, "missed"), (80, "met"), (40, "aim met")])
def test_a_cost_goal_is_met_at_or_below_its_value(value: float, verdict: str) -> None:
    assert Goal("", 80, 40, lambda results: None, lower_is_better=True).judge(Results(), value) == verdict


def test_a_goal_is_missed_without_its_condition() -> None:
    assert Goal("", 0.75, 0.9, lambda results: None, condition=lambda results: False).judge(Results(), 1) == "missed"


def test_the_gateway_is_compared_with_the_better_engine_of_infinity() -> None:
    rates = {"gateway": (200, 10), "infinity torch": (100, 20), "infinity optimum": (50, 5)}
    measured = [
        Measurement("peers", name, LOAD, [Sample(rate, 1.0, p99_ms, 9)]) for name, (rate, p99_ms) in rates.items()
    ]
    assert compare_with_infinity(LOAD)(Results(measured)) == pytest.approx(2)
    assert compare_with_infinity(LOAD, p99)(Results(measured)) == pytest.approx(2)
    assert compare_with_infinity(LOAD)(Results(measured[:2])) is None


@pytest.mark.parametrize(("mean_cosine", "verdict"), [(0.9959, "| met "), (0.98, "| missed ")])
def test_int8_misses_its_goal_when_its_embeddings_are_off(mean_cosine: float, verdict: str) -> None:
    samples = {"fp32": [Sample(100, 1.0, 2.0, 10)], "int8": [Sample(200, 1.0, 2.0, 10)]}
    agreement = {MEAN_COSINE: mean_cosine, LOWEST_COSINE: 0.9}
    results = Results.from_json(
        Results(
            Measurement("int8", name, INT8_LOAD, found, agreement if name == "int8" else {})
            for name, found in samples.items()
        ).to_json()
    )
    [row] = [line for line in format_goals(results).splitlines() if line.startswith("| int8")]
    assert verdict in row
    assert format_section(results, "int8").endswith(f"int8: mean cosine {mean_cosine:.4g}, lowest cosine 0.9.")


@pytest.mark.parametrize("goal", GOALS, ids=lambda goal: goal.measure)
def test_every_goal_finds_its_measurements_in_a_full_run(goal: Goal) -> None:
    assert goal.read(read_published_results()) is not None
