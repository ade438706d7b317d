import pytest

from export.errors import ExportError
from export.names import check_public_id, model_names, possible_model_names, slug


@pytest.mark.parametrize(
    ("public_id", "expected"),
    [
        ("sentence-transformers/all-MiniLM-L6-v2", "all_minilm_l6_v2"),
        ("nvidia/llama-nemotron-embed-vl-1b-v2", "llama_nemotron_embed_vl_1b_v2"),
        ("Model.v1", "model_v1"),
    ],
)
def test_slug_is_the_last_component_in_lower_case_letters_and_digits(public_id, expected):
    assert slug(public_id) == expected


def test_steps_come_before_ensembles():
    assert model_names("a/m", ("text", "image")) == (
        "m_preprocess_text", "m_preprocess_image", "m_vision_encoder", "m_embedder", "m_text", "m_image",
    )  # fmt: skip
    assert model_names("a/m", ("text",)) == ("m_preprocess_text", "m_embedder", "m_text")
    assert model_names("a/m", ("text", "image"), "rank") == (
        "m_preprocess_rank", "m_preprocess_rank_image", "m_vision_encoder", "m_reranker", "m_rank", "m_rank_image",
    )  # fmt: skip


def test_all_models_that_a_public_id_may_have_are_those_of_every_task():
    possible = possible_model_names("a/m")
    assert set(possible) == {
        *model_names("a/m", ("text", "image")),
        *model_names("a/m", ("text", "image"), "rank"),
    }
    assert set(possible[-4:]) == {"m_text", "m_image", "m_rank", "m_rank_image"}


@pytest.mark.parametrize("public_id", ["", "a b", "../etc", "/root", "a//b", "a/", "naïve", "a\n"])
def test_public_ids_other_than_paths_of_letters_and_digits_are_refused(public_id):
    with pytest.raises(ExportError, match="cannot be a public id"):
        check_public_id(public_id)
