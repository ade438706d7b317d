"""The Triton engine against a gRPC server that speaks Triton's protocol."""

import asyncio
import base64
import gc
import json
import socket
from dataclasses import replace
from typing import Any

import grpc
import numpy as np
import pytest
from tritonclient.grpc import service_pb2_grpc

from gateway.core.admission import AdmissionGate
from gateway.engine import EmbedResult, Golden, ItemFailure, Slot, discovery
from gateway.engine.interface import DEFAULT_MAX_IMAGE_BYTES
from gateway.engine.triton import TritonEngine
from gateway.errors import DeadlineError, EngineFaultError, EngineUnavailableError, ModelReplacedError
from gateway.settings import Settings
from gateway.types import Client, Deadline, ImageItem, Item, TextImageItem, TextItem, TokensItem
from tests.gateway.engine.batches import make_batch
from tests.gateway.engine.fake_triton import (
    DIMENSIONS,
    PUBLIC_ID,
    FakeTriton,
    ensemble_config,
    item_vector,
    read_inputs,
    step_config,
)


async def embed(engine: TritonEngine, *items: Item, **options: Any) -> EmbedResult:
    return await engine.embed(make_batch((await engine.models())[PUBLIC_ID], *items, **options))


@pytest.mark.parametrize(
    ("precision", "name", "fingerprint"),
    [
        ("fp32", "onnxruntime-1.31.1", "f00"),
        ("fp16", "triton", "f00"),
        ("int8", "triton", "f00-triton-2.61.0"),
        ("int8", "the second of two", "f00-triton-2.61.0"),
        ("int8", "onnxruntime-1.31.1", "f00-onnxruntime-1.31.1"),
    ],
)
async def test_fingerprints_of_int8_name_the_engine(
    triton: FakeTriton, engine: TritonEngine, precision: str, name: str, fingerprint: str
) -> None:
    triton.name = name
    triton.configs = [ensemble_config("vl_text", "text", precision=precision)]
    (model,) = (await engine.models()).values()
    assert model.fingerprint == fingerprint


async def test_int8_without_a_fingerprint_gets_none(triton: FakeTriton, engine: TritonEngine) -> None:
    triton.configs = [ensemble_config("vl_text", "text", precision="int8", fingerprint="")]
    (model,) = (await engine.models()).values()
    assert model.fingerprint == ""


async def test_models_are_read_from_ensemble_parameters(engine: TritonEngine) -> None:
    (model,) = (await engine.models()).values()
    assert (model.public_id, model.dimensions, model.max_tokens, model.takes_images) == (PUBLIC_ID, 8, 100, True)
    assert (model.max_tiles, model.tokens_per_tile, model.fingerprint) == (7, 256, "f00")
    assert (model.owner, model.created_s) == ("nvidia", 7)


async def test_image_limit_of_a_model_is_read_and_a_higher_setting_logs_a_warning(
    port: int, triton: FakeTriton, caplog: pytest.LogCaptureFixture
) -> None:
    for limit, warned in (("1000", True), ("5000", False), ("", True)):
        triton.configs = [
            ensemble_config("vl_text", "text"),
            ensemble_config("vl_image", "image", max_image_bytes=limit),
        ]
        max_image_bytes = 2000 if limit else DEFAULT_MAX_IMAGE_BYTES + 1
        engine = TritonEngine(Settings(triton_url=f"127.0.0.1:{port}", max_image_bytes=max_image_bytes))
        await engine.start()
        (model,) = (await engine.models()).values()
        assert model.max_image_bytes == int(limit or DEFAULT_MAX_IMAGE_BYTES)
        assert ("GATEWAY_MAX_IMAGE_BYTES" in caplog.text) is warned
        caplog.clear()
        await engine.close()


@pytest.mark.parametrize(
    "configs",
    [
        [step_config("embedder")],
        [ensemble_config("a", "image")],
        [ensemble_config("a", "text", dimensions="")],
        [ensemble_config("a", "text", max_tokens="many")],
        [ensemble_config("a", "text", manifest="{")],
        [ensemble_config("a", "video")],
        [ensemble_config("a", "text", public_id="")],
    ],
)
async def test_models_that_break_the_contract_are_left_out(
    engine: TritonEngine, triton: FakeTriton, configs: list[object]
) -> None:
    triton.configs = configs
    assert await engine.models() == {}


@pytest.mark.parametrize(
    ("not_loaded", "unavailable"),
    [
        ({"vl_image"}, {PUBLIC_ID}),  # known from the other ensemble
        ({"vl_text"}, {PUBLIC_ID}),
        ({"vl_text", "vl_image", "vl_embedder"}, {"vl"}),
        ({"other_text", "other_preprocess_text"}, {"other"}),
        ({"vl_embedder", "foreign"}, set()),
    ],
)
async def test_a_model_of_which_an_ensemble_is_not_loaded_is_unavailable(
    engine: TritonEngine, triton: FakeTriton, not_loaded: set[str], unavailable: set[str]
) -> None:
    triton.configs += [
        ensemble_config("other_text", "text", public_id="org/other"),
        step_config("other_preprocess_text"),
    ]
    triton.configs.append(step_config("foreign"))
    triton.not_loaded = frozenset(not_loaded)
    models = await engine.models(refresh=True)
    assert engine.unavailable_models() == unavailable
    expected = {PUBLIC_ID, "org/other"} - ({PUBLIC_ID} if unavailable & {PUBLIC_ID, "vl"} else set())
    assert models.keys() == expected - ({"org/other"} if "other" in unavailable else set())


@pytest.mark.parametrize(
    ("golden", "is_served"),
    [
        ({"text": "a", "embedding": base64.b64encode(bytes(4 * DIMENSIONS)).decode(), "min_cosine": 0.9}, True),
        ({"text": "a", "embedding": base64.b64encode(bytes(4)).decode(), "min_cosine": 0.9}, False),
        ({"text": "a"}, False),
    ],
)
async def test_golden_is_read_and_one_of_another_size_breaks_the_contract(
    engine: TritonEngine, triton: FakeTriton, golden: dict[str, Any], is_served: bool
) -> None:
    triton.configs = [ensemble_config("vl_text", "text", golden=json.dumps(golden))]
    models = await engine.models(refresh=True)
    assert bool(models) is is_served
    if is_served:
        assert models[PUBLIC_ID].golden == Golden("a", bytes(4 * DIMENSIONS), 0.9)


async def test_vectors_and_counts_keep_the_order_over_chunks_and_ensembles(
    engine: TritonEngine, triton: FakeTriton
) -> None:
    items: list[Item] = []
    expected = []
    for number in range(30):
        text, image = f"text {number}", f"image {number}".encode()
        kinds = (TextItem(text), ImageItem(image), TextImageItem(text, image))
        parts = ((text.encode(), b""), (b"", image), (text.encode(), image))
        items.append(kinds[number % 3])
        expected.append(item_vector(*parts[number % 3]))
    result = await embed(engine, *items)
    np.testing.assert_array_equal(result.embeddings, np.stack(expected))
    np.testing.assert_array_equal(result.image_token_counts > 0, [number % 3 > 0 for number in range(30)])
    assert result.failures == {}
    assert len(triton.requests) == 3 + 5


async def test_chunks_run_side_by_side_but_not_all_at_once(engine: TritonEngine, triton: FakeTriton) -> None:
    triton.delay_s = 0.02
    await embed(engine, *[TextItem(str(number)) for number in range(40)])
    assert len(triton.requests) == 10
    assert triton.most_in_flight == 3


async def test_defaults_are_left_out_and_the_rest_is_sent(engine: TritonEngine, triton: FakeTriton) -> None:
    await embed(engine, TextItem("a"))
    await embed(engine, TextItem("a"), TokensItem([5, 6]), input_type="query", truncate="END")
    await embed(engine, ImageItem(b"p"), truncate="START")
    plain, full, image = map(read_inputs, triton.requests)
    assert plain == {"text": [b"a"]}
    np.testing.assert_array_equal(full.pop("token_ids"), [5, 6])
    np.testing.assert_array_equal(full.pop("token_id_counts"), [0, 2])
    assert full == {"text": [b"a", b""], "input_type": [b"query"], "truncate": [b"END"]}
    assert image == {"image": [b"p"], "truncate": [b"START"]}


async def test_simultaneous_small_requests_share_an_inference_request(port: int, triton: FakeTriton) -> None:
    items: list[Item] = [TextItem("a"), TokensItem([5, 6]), TextItem("long"), TextItem("b")]
    for microbatch_items, count in ((8, 1), (1, 4)):
        triton.requests.clear()
        engine = TritonEngine(Settings(triton_url=f"127.0.0.1:{port}", microbatch_items=microbatch_items))
        await engine.start()
        model = (await engine.models())[PUBLIC_ID]
        batches = [make_batch(model, item) for item in items]
        answers = await asyncio.gather(*map(engine.embed, batches))
        assert len(triton.requests) == count
        for text, answer in zip((b"a", b"", b"", b"b"), answers, strict=True):
            if not answer.failures:
                np.testing.assert_array_equal(answer.embeddings, [item_vector(text, b"")])
        assert [bool(answer.failures) for answer in answers] == [False, False, True, False]
        await engine.close()


async def test_small_requests_wait_for_others_if_configured(port: int, triton: FakeTriton) -> None:
    for wait_ms, count in ((0, 2), (200, 1)):
        triton.requests.clear()
        engine = TritonEngine(Settings(triton_url=f"127.0.0.1:{port}", microbatch_wait_ms=wait_ms))
        await engine.start()
        model = (await engine.models())[PUBLIC_ID]
        batches = [make_batch(model, TextItem(text)) for text in ("a", "b")]
        first = asyncio.ensure_future(engine.embed(batches[0]))
        await asyncio.sleep(0.02)
        await asyncio.gather(first, engine.embed(batches[1]))
        assert len(triton.requests) == count
        await engine.close()


async def test_failed_items_keep_their_indices(engine: TritonEngine) -> None:
    result = await embed(engine, *[TextItem("long" if number in (2, 6) else "a") for number in range(8)])
    failure = ItemFailure("text_too_long", "it is")
    assert result.failures == {2: failure, 6: failure}
    assert np.isnan(result.embeddings[[2, 6]]).all()
    assert np.isfinite(np.delete(result.embeddings, [2, 6], axis=0)).all()


async def test_chunk_refused_as_a_whole_names_its_items(engine: TritonEngine, triton: FakeTriton) -> None:
    await engine.models()
    triton.refusal = (grpc.StatusCode.INVALID_ARGUMENT, "in ensemble 'vl_text', text_invalid: no\ntext_invalid: nor")
    result = await embed(engine, TextItem("a"), TextItem("b"))
    assert result.failures == {0: ItemFailure("text_invalid", "no"), 1: ItemFailure("text_invalid", "nor")}
    assert result.embeddings.shape == (2, DIMENSIONS)


async def test_tokens_and_counts_keep_the_order_over_chunks_and_ensembles(engine: TritonEngine) -> None:
    items: list[Item] = [ImageItem(b"p"), *[TextItem("long" if number == 5 else "a") for number in range(6)]]
    result = await engine.tokenize(make_batch((await engine.models())[PUBLIC_ID], *items))
    # In each chunk the first item has one token, the second two, and so on; ids are counted up.
    assert list(result.token_counts) == [1, 1, 2, 3, 4, 1, 2]
    assert list(result.untruncated_token_counts) == [4, 4, 5, 6, 7, 4, 5]
    assert list(result.image_token_counts) == [256, 0, 0, 0, 0, 0, 0]
    assert list(result.tile_counts) == [1, 0, 0, 0, 0, 0, 0]
    assert [list(ids) for ids in result.token_ids] == [[0], [0], [1, 2], [3, 4, 5], [6, 7, 8, 9], [0], [1, 2]]
    assert result.failures == {6: ItemFailure("text_too_long", "it is")}


async def test_pages_are_counted_and_their_pdf_is_sent_once(engine: TritonEngine, triton: FakeTriton) -> None:
    model = (await engine.models())[PUBLIC_ID]
    assert model.takes_pdfs
    document, other = b"pdf", b"other"
    pages = [ImageItem(document, 1), ImageItem(document, 2), ImageItem(b"i"), ImageItem(document, 3)]
    batch = make_batch(model, *pages, ImageItem(other, 1))
    result = await engine.tokenize(replace(batch, item_tokens=[1] * 5))
    assert list(result.page_counts) == [7, 7, 0, 7, 7]
    inputs = [read_inputs(request) for request in triton.requests]
    assert [page for each in inputs for page in each["page"]] == [1, 2, 0, 3, 1]
    assert [image for each in inputs for image in each["image"]] == [document, b"", b"i", document, other]


async def test_old_exports_take_no_pdfs(engine: TritonEngine, triton: FakeTriton) -> None:
    triton.configs = [ensemble_config("vl_text", "text"), ensemble_config("vl_image", "image", is_old=True)]
    assert not (await engine.models())[PUBLIC_ID].takes_pdfs


async def test_images_for_a_tower_of_their_own_have_counts_and_no_token_ids(
    engine: TritonEngine, triton: FakeTriton
) -> None:
    text, image = ensemble_config("vl_text", "text", padded_tokens="64"), ensemble_config("vl_image", "image")
    assert (await engine.models())[PUBLIC_ID].takes_text_with_images
    image.input.remove(next(tensor for tensor in image.input if tensor.name == "text"))
    triton.configs = [text, image]
    model = (await engine.models(refresh=True))[PUBLIC_ID]
    assert model.takes_images and not model.takes_text_with_images and model.padded_tokens == 64
    result = await engine.tokenize(make_batch(model, TextItem("a"), ImageItem(b"p")))
    assert [list(ids) for ids in result.token_ids] == [[0], []]
    assert list(result.image_token_counts) == [0, 256]


async def test_refused_chunk_that_is_only_tokenised_names_its_items(engine: TritonEngine, triton: FakeTriton) -> None:
    batch = make_batch((await engine.models())[PUBLIC_ID], TextItem("a"), TextItem("b"))
    triton.refusal = (grpc.StatusCode.INVALID_ARGUMENT, "text_invalid: no\ntext_invalid: nor")
    result = await engine.tokenize(batch)
    assert result.failures == {0: ItemFailure("text_invalid", "no"), 1: ItemFailure("text_invalid", "nor")}
    assert ([list(ids) for ids in result.token_ids], list(result.token_counts)) == ([[], []], [0, 0])


@pytest.mark.parametrize(
    ("refusal", "kind"),
    [
        ((grpc.StatusCode.INVALID_ARGUMENT, "unexpected shape"), EngineFaultError),
        ((grpc.StatusCode.UNAVAILABLE, "unloading"), EngineUnavailableError),
        ((grpc.StatusCode.INTERNAL, "Stub process is not healthy"), EngineUnavailableError),
    ],
)
async def test_refusals_become_domain_errors(
    engine: TritonEngine, triton: FakeTriton, refusal: tuple[grpc.StatusCode, str], kind: type[Exception]
) -> None:
    await engine.models()
    triton.refusal = refusal
    with pytest.raises(kind):
        await embed(engine, TextItem("a"))


@pytest.mark.parametrize("name", ["embeddings", "token_counts", "tile_counts"])
async def test_missing_output_is_a_fault(engine: TritonEngine, triton: FakeTriton, name: str) -> None:
    triton.outputs_left_out = frozenset({name})
    with pytest.raises(EngineFaultError):
        await embed(engine, ImageItem(b"p"))


async def test_vectors_of_another_size_are_a_fault(engine: TritonEngine, triton: FakeTriton) -> None:
    triton.configs = [ensemble_config("vl_text", "text", dimensions="9")]
    with pytest.raises(EngineFaultError):
        await embed(engine, TextItem("a"))


async def test_call_that_triton_has_lost_is_given_up(port: int, triton: FakeTriton) -> None:
    engine = TritonEngine(Settings(triton_url=f"127.0.0.1:{port}", request_timeout_s=0.1))
    await engine.start()
    await engine.models()
    triton.delay_s = 30
    with pytest.raises(DeadlineError):
        await embed(engine, TextItem("a"))
    await engine.close()


async def test_one_failed_chunk_holds_back_those_not_sent(engine: TritonEngine, triton: FakeTriton) -> None:
    await engine.models()
    triton.delay_s = 0.05
    triton.refusal = (grpc.StatusCode.UNAVAILABLE, "")
    with pytest.raises(EngineUnavailableError):
        await embed(engine, *[TextItem("a")] * 400)
    await asyncio.sleep(0.2)
    assert len(triton.requests) <= 6
    assert triton.in_flight == 0


async def test_disconnected_client_keeps_its_slot_until_its_calls_end(engine: TritonEngine, triton: FakeTriton) -> None:
    await engine.models()
    triton.is_held = True
    gate = AdmissionGate(1000, 60.0, 60.0)

    async def visit() -> None:
        with gate.admit(Client(), 160) as ticket:
            await embed(engine, *[TextItem("a")] * 40, enter=ticket.enter)

    work = asyncio.ensure_future(visit())
    while triton.in_flight < 3:
        await asyncio.sleep(0.005)
    work.cancel()
    with pytest.raises(asyncio.CancelledError):
        await work
    gc.collect()
    await asyncio.sleep(0.05)
    assert (triton.in_flight, gate.in_flight) == (3, 48), "a call was cancelled, or its slot was released"
    triton.is_held = False
    while gate.in_flight:
        await asyncio.sleep(0.005)
    assert triton.in_flight == 0
    await asyncio.sleep(0.05)
    assert (len(triton.requests), gate.in_flight, triton.abandoned) == (3, 0, 0)


async def test_unreachable_triton_is_unavailable_and_found_once_it_is_up(triton: FakeTriton) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    engine = TritonEngine(Settings(triton_url=f"127.0.0.1:{port}"))
    await engine.start()
    with pytest.raises(EngineUnavailableError):
        await engine.models()
    server = grpc.aio.server()
    service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(triton, server)
    assert server.add_insecure_port(f"127.0.0.1:{port}") == port
    await server.start()
    for _ in range(100):
        try:
            await embed(engine, TextItem("a"))
            break
        except EngineUnavailableError:
            await asyncio.sleep(0.05)
    else:
        pytest.fail("the engine was not found within five seconds")
    await engine.close()
    await server.stop(0)


async def test_list_of_models_is_refreshed_in_the_background(port: int, triton: FakeTriton) -> None:
    engine = TritonEngine(Settings(triton_url=f"127.0.0.1:{port}", catalogue_ttl_s=0))
    await engine.start()
    assert PUBLIC_ID in await engine.models()
    triton.configs = [ensemble_config("b_text", "text", public_id="b/b")]
    assert PUBLIC_ID in await engine.models()
    for _ in range(100):
        await asyncio.sleep(0.01)
        if "b/b" in await engine.models():
            break
    assert list(await engine.models()) == ["b/b"]
    await engine.close()


async def test_tiles_that_an_image_could_have_had_are_given_back(engine: TritonEngine) -> None:
    refunds: list[int] = []

    async def enter(cost: int) -> Slot:
        return Slot(on_refund=refunds.append)

    await embed(engine, ImageItem(b"image"), ImageItem(b"image"), TextItem("a"), enter=enter)
    assert refunds == [2 * 7 * 256 - (1 + 2) * 256], "of seven tiles, the fake's images have one, two and so on"


async def test_concurrent_requests_read_the_list_once(engine: TritonEngine, triton: FakeTriton) -> None:
    await asyncio.gather(*(engine.models() for _ in range(20)))
    assert triton.index_questions == 1


async def test_images_carry_the_time_that_is_left_to_their_request(engine: TritonEngine, triton: FakeTriton) -> None:
    await embed(engine, ImageItem(b"image"), TextItem("a"), deadline=Deadline.after(60))
    timeouts_us = {
        request.model_name: request.parameters["timeout"].int64_param
        for request in triton.requests
        if "timeout" in request.parameters
    }
    assert list(timeouts_us) == ["vl_image"]
    assert 30e6 < timeouts_us["vl_image"] <= 60e6


async def test_images_whose_deadline_has_passed_are_not_sent(engine: TritonEngine, triton: FakeTriton) -> None:
    with pytest.raises(DeadlineError):
        await embed(engine, ImageItem(b"image"), deadline=Deadline.after(0))
    assert not triton.requests


async def test_images_that_triton_gave_up_have_missed_the_deadline(engine: TritonEngine, triton: FakeTriton) -> None:
    triton.refusal = (grpc.StatusCode.UNAVAILABLE, "in ensemble 'vl_image', request timeout expired")
    with pytest.raises(DeadlineError):
        await embed(engine, ImageItem(b"image"))


async def test_a_request_names_the_version_whose_fingerprint_is_known(engine: TritonEngine, triton: FakeTriton) -> None:
    triton.versions = {"vl_text": "42", "vl_image": "42"}
    model = (await engine.models())[PUBLIC_ID]
    await engine.embed(make_batch(model, TextItem("a"), ImageItem(b"image")))
    assert {(request.model_name, request.model_version) for request in triton.requests} == {
        ("vl_text", "42"),
        ("vl_image", "42"),
    }
    triton.versions = {"vl_text": "43", "vl_image": "43"}
    with pytest.raises(ModelReplacedError):
        await engine.embed(make_batch(model, TextItem("a")))
    await engine.models(refresh=True)
    await engine.embed(make_batch(model, TextItem("a")))  # the same embedding space under another number
    triton.configs = [
        ensemble_config("vl_text", "text", fingerprint="f01"),
        ensemble_config("vl_image", "image", fingerprint="f01"),
    ]
    await engine.models(refresh=True)
    with pytest.raises(ModelReplacedError):
        await engine.embed(make_batch(model, TextItem("a")))


async def test_a_model_half_of_which_is_replaced_is_read_again(
    engine: TritonEngine, triton: FakeTriton, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(discovery, "READ_INTERVAL_S", 0.01)
    new_text, new_image = (ensemble_config(f"vl_{kind}", kind, fingerprint="f01") for kind in ("text", "image"))
    old_image = triton.configs[1]
    triton.configs = [new_text, old_image]
    assert await engine.models(refresh=True) == {}
    assert triton.index_questions == discovery.MAX_READS
    asyncio.get_running_loop().call_later(0.03, lambda: triton.configs.__setitem__(1, new_image))
    models = await engine.models(refresh=True)
    assert models[PUBLIC_ID].fingerprint == "f01"


async def test_a_removed_model_is_not_unavailable(engine: TritonEngine, triton: FakeTriton) -> None:
    triton.unloaded = frozenset({"other_text", "other_embedder"})
    await engine.models(refresh=True)
    assert engine.unavailable_models() == frozenset()
