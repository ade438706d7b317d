from collections.abc import Callable

import numpy as np
import pytest
from safetensors.numpy import load_file

from export.graphs.nemotron_vl import build_embedder, build_vision_encoder, image_tokens_per_tile
from export.graphs.targets import Target
from tests.export.array_weights import ArrayWeights
from tests.export.golden_inputs import CHECKPOINT, CONFIG, GoldenInput, load_golden_inputs

TOLERANCE = 2e-4
HIDDEN_SIZE = CONFIG["llm_config"]["hidden_size"]

Embed = Callable[[list[GoldenInput]], np.ndarray]


@pytest.fixture(scope="module")
def golden() -> list[GoldenInput]:
    inputs = load_golden_inputs()
    assert len(inputs) == 28
    return inputs


@pytest.fixture(scope="module")
def weights() -> ArrayWeights:
    return ArrayWeights(load_file(CHECKPOINT / "model.safetensors"))


@pytest.fixture(scope="module")
def embed(load, weights, target) -> Embed:
    """Both graphs over one packed batch, as the ensembles run them."""
    encode_patches = load(build_vision_encoder(CONFIG, weights, target=target))
    return chain(encode_patches, load(build_embedder(CONFIG, weights, target=target)))


@pytest.fixture(scope="module", params=["cpu", "cuda", "tensorrt"])
def target(request) -> Target:
    """The forms that take a batch of all golden inputs: dense attention would need gigabytes."""
    return request.param


def chain(encode_patches, embed_tokens) -> Embed:
    def embed_batch(items: list[GoldenInput]) -> np.ndarray:
        image_embeds = [
            encode_patches(patches=item.patches.ravel())
            if len(item.patches)
            else np.full((1, HIDDEN_SIZE), np.nan, np.float32)
            for item in items
        ]
        return embed_tokens(
            input_ids=np.concatenate([item.input_ids for item in items]),
            image_embeds=np.concatenate(image_embeds).ravel(),
            sequence_lengths=np.array([len(item.input_ids) for item in items], np.int32),
            image_rows=np.array([len(rows) for rows in image_embeds], np.int32),
        )

    return embed_batch


def expected_of(items: list[GoldenInput]) -> np.ndarray:
    return np.stack([item.embedding for item in items])


def test_golden_embeddings_in_one_batch(embed, golden):
    np.testing.assert_allclose(embed(golden), expected_of(golden), atol=TOLERANCE)


def test_golden_embeddings_with_dense_attention(load, weights, golden):
    encode_patches = load(build_vision_encoder(CONFIG, weights, target="tensorrt-dense"))
    embed = chain(encode_patches, load(build_embedder(CONFIG, weights, target="tensorrt-dense")))
    failed = GoldenInput(np.zeros(0, np.int64), np.zeros((0, 3072), np.uint8), np.full(HIDDEN_SIZE, np.nan))
    items = [golden[0], failed, min(golden[20:], key=lambda item: len(item.patches)), golden[1]]
    np.testing.assert_allclose(embed(items), expected_of(items), atol=TOLERANCE)


def test_golden_embeddings_alone(embed, golden):
    for item in golden:
        np.testing.assert_allclose(embed([item]), expected_of([item]), atol=TOLERANCE)


def test_golden_embeddings_mixed_with_a_failed_item(embed, golden):
    failed = GoldenInput(np.zeros(0, np.int64), np.zeros((0, 3072), np.uint8), np.full(HIDDEN_SIZE, np.nan))
    mixed = [golden[20], failed, golden[0], golden[24], failed, golden[1], golden[17], failed]
    np.testing.assert_allclose(embed(mixed), expected_of(mixed), atol=TOLERANCE)


def test_tiles_of_a_batch_are_independent(load, weights, golden, target):
    encode_patches = load(build_vision_encoder(CONFIG, weights, target=target))
    tiles = [item.patches[:256] for item in golden if len(item.patches)][:3]
    together = encode_patches(patches=np.concatenate(tiles).ravel())
    alone = np.concatenate([encode_patches(patches=tile.ravel()) for tile in tiles])
    assert together.shape == (3 * 256, HIDDEN_SIZE)
    np.testing.assert_allclose(together, alone, atol=1e-5)


def test_image_token_without_image_rows_affects_only_its_sequence(embed, golden):
    text = golden[0]
    stray = GoldenInput(np.append(text.input_ids, CONFIG["img_context_token_id"]), text.patches, text.embedding)
    first, middle, last = embed([golden[20], stray, golden[1]])
    assert np.isnan(middle).all()
    np.testing.assert_allclose([first, last], expected_of([golden[20], golden[1]]), atol=TOLERANCE)


def test_older_layout_of_vision_tensors_gives_the_same_result(load, weights, golden):
    older = ArrayWeights(
        {name.replace("vision_model.", "vision_model.vision_model."): weights.read(name) for name in weights.names}
    )
    patches = golden[20].patches[:256].ravel()
    newer_rows = load(build_vision_encoder(CONFIG, weights))(patches=patches)
    older_rows = load(build_vision_encoder(CONFIG, older))(patches=patches)
    np.testing.assert_array_equal(older_rows, newer_rows)


@pytest.mark.parametrize(
    ("precision", "target", "least_cosine"),
    [("fp16", "cpu", 0.9999), ("int8", "cpu", 0.998), ("fp16", "cuda", 0.9999), ("fp16", "tensorrt", 0.9999)],
)
def test_lower_precisions_keep_the_direction(load, weights, golden, precision, target, least_cosine):
    encode_patches = load(build_vision_encoder(CONFIG, weights, precision, target))
    embed = chain(encode_patches, load(build_embedder(CONFIG, weights, precision, target)))
    items = [golden[0], golden[8], golden[16], golden[24]]
    cosines = (embed(items) * expected_of(items)).sum(axis=1)
    assert least_cosine < cosines.min() < 0.9999999


def test_int8_embeddings_do_not_depend_on_the_batch(load, weights, golden):
    embed = chain(load(build_vision_encoder(CONFIG, weights, "int8")), load(build_embedder(CONFIG, weights, "int8")))
    items = [golden[0], golden[16], golden[7], golden[24]]
    alone = np.concatenate([embed([item]) for item in items])
    np.testing.assert_allclose(embed(items), alone, atol=1e-5)


def test_image_tokens_per_tile_follow_from_the_config():
    assert image_tokens_per_tile(CONFIG) == 256
    assert image_tokens_per_tile(CONFIG | {"downsample_ratio": 0.25}) == 64


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"select_layer": -2}, "select_layer -2"),
        ({"pooling": "weighted"}, "pooling 'weighted'"),
        ({"llm_config": CONFIG["llm_config"] | {"hidden_act": "gelu"}}, "hidden_act 'gelu'"),
        ({"vision_config": CONFIG["vision_config"] | {"model_type": "clip"}}, "model_type 'clip'"),
    ],
)
def test_unsupported_config_is_refused_by_name(weights, change, message):
    with pytest.raises(ValueError, match=message):
        build_embedder(CONFIG | change, weights)
