import pytest

from export.errors import ExportError
from export.names import check_public_id, model_names, slug


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


@pytest.mark.parametrize("public_id", ["", "a b", "../etc", "/root", "a//b", "a/", "naïve", "a\n"])
def test_public_ids_other_than_paths_of_letters_and_digits_are_refused(public_id):
    with pytest.raises(ExportError, match="cannot be a public id"):
        check_public_id(public_id)
