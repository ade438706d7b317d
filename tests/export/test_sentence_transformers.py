import pytest
from tiny_bert import MAX_TOKENS, write_json, write_pooling

from export.checkpoint import Checkpoint
from export.errors import CheckpointError
from export.sentence_transformers import SentenceEmbedding, read_sentence_embedding


def test_published_files_are_followed(own_tiny_bert):
    prompts = {"query": "query: ", "document": "passage: "}
    write_json(own_tiny_bert / "config_sentence_transformers.json", {"prompts": prompts})
    assert read_sentence_embedding(Checkpoint(own_tiny_bert)) == SentenceEmbedding(
        pooling="mean", normalize=True, max_tokens=MAX_TOKENS, lowercase=False,
        query_prefix="query: ", passage_prefix="passage: ",
    )  # fmt: skip


@pytest.mark.parametrize("pooling", ["mean", "cls", "max"])
@pytest.mark.parametrize("normalize", [True, False])
def test_pooling_and_normalisation_are_read(own_tiny_bert, pooling, normalize):
    write_pooling(own_tiny_bert, pooling, normalize)
    found = read_sentence_embedding(Checkpoint(own_tiny_bert))
    assert (found.pooling, found.normalize) == (pooling, normalize)


def test_checkpoint_without_such_files_is_mean_pooled_and_normalised(tmp_path):
    found = read_sentence_embedding(Checkpoint(tmp_path))
    assert found == SentenceEmbedding("mean", True, None, False, "", "")


def test_default_prompt_stands_before_queries_and_passages(tmp_path):
    config = {"prompts": {"any": "text: ", "query": "ask: "}, "default_prompt_name": "any"}
    write_json(tmp_path / "config_sentence_transformers.json", config)
    found = read_sentence_embedding(Checkpoint(tmp_path))
    assert (found.query_prefix, found.passage_prefix) == ("ask: ", "text: ")


def test_module_that_is_not_exported_is_named(own_tiny_bert):
    modules = Checkpoint(own_tiny_bert).json("modules.json")
    dense = {"type": "sentence_transformers.models.Dense", "path": "2_Dense"}
    write_json(own_tiny_bert / "modules.json", [*modules, dense])
    with pytest.raises(CheckpointError, match="asks for Dense"):
        read_sentence_embedding(Checkpoint(own_tiny_bert))


@pytest.mark.parametrize(
    "modes",
    [
        {"pooling_mode_weightedmean_tokens": True},
        {"pooling_mode_mean_tokens": True, "pooling_mode_max_tokens": True},
        {"pooling_mode_mean_tokens": False},
    ],
)
def test_pooling_that_is_not_exported_is_refused(own_tiny_bert, modes):
    write_json(own_tiny_bert / "1_Pooling" / "config.json", modes)
    with pytest.raises(CheckpointError, match="not mean, cls or max"):
        read_sentence_embedding(Checkpoint(own_tiny_bert))
