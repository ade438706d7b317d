from bench.engine import CORES, list_run_configs


def test_single_threaded_runs_are_tried_only_where_every_core_could_get_a_batch() -> None:
    configs = list_run_configs((8, 32), 8 * CORES)
    assert {config.batch_size for config in configs if config.threading == "single"} == {8}
    assert {config.batch_size for config in configs if config.threading == "spinning"} == {8, min(32, 8 * CORES)}


def test_one_item_in_flight_is_a_batch_of_one() -> None:
    assert {config.batch_size for config in list_run_configs((8, 32), 1)} == {1}
