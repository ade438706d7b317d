from bench.contenders.engine import CORES, find_ways


def test_single_threads_are_tried_only_where_every_core_could_get_a_batch() -> None:
    ways = find_ways((8, 32), 8 * CORES)
    assert {way.batch for way in ways if way.threads == "single"} == {8}
    assert {way.batch for way in ways if way.threads == "spinning"} == {8, min(32, 8 * CORES)}


def test_one_item_in_flight_is_a_batch_of_one() -> None:
    assert {way.batch for way in find_ways((8, 32), 1)} == {1}
