import unicodedata

import numpy as np
import pytest

from export.errors import ValidationError
from export.sample_texts import QUALITY_TEXTS, SAMPLE_TEXTS
from export.validation import compare_embeddings, find_loss, require_agreement
from export.validation.scores import compare_scores

EXPECTED = np.eye(3, 4, dtype=np.float32)


def test_agreement_reports_the_worst_component_and_cosine():
    found = EXPECTED.copy()
    found[1, 2] = 0.5
    agreement = compare_embeddings(found, EXPECTED)
    assert agreement.max_abs_error == 0.5
    assert agreement.min_cosine == pytest.approx(1 / np.sqrt(1.25))
    assert agreement.samples == 3


def test_agreement_counts_samples_that_keep_their_nearest_neighbour():
    expected = np.array([[1, 0], [1, 0.1], [0, 1]], np.float32)
    found = np.array(
        [[2, 0], [2, 0.2], [1, -0.05]], np.float32
    )  # the last is now nearer to the first than the second is
    assert compare_embeddings(expected * 2, expected).nearest_kept == 1
    assert compare_embeddings(found, expected).nearest_kept == pytest.approx(1 / 3)


@pytest.mark.parametrize(("difference", "warns"), [(0.05, False), (0.2, True)])
def test_a_precision_that_loses_much_gets_a_warning(difference, warns):
    agreement = compare_embeddings(EXPECTED + np.array([0, 0, 0, difference], np.float32), EXPECTED)
    warning = find_loss(agreement, "int8")
    assert bool(warning) == warns
    assert not warns or f"mean cosine {agreement.mean_cosine:.4f}" in str(warning)


@pytest.mark.parametrize("difference", [0.9e-4, 1.1e-4])
def test_fp32_is_checked_by_components(difference):
    agreement = compare_embeddings(EXPECTED + np.float32(difference), EXPECTED)
    if difference < 1e-4:
        require_agreement(agreement, "fp32")
    else:
        with pytest.raises(ValidationError, match="differ from the reference"):
            require_agreement(agreement, "fp32")


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_other_precisions_are_checked_by_direction(precision):
    require_agreement(compare_embeddings(EXPECTED * 1.01, EXPECTED), precision)
    with pytest.raises(ValidationError, match="cosine"):
        require_agreement(compare_embeddings(EXPECTED[::-1], EXPECTED), precision)


def test_components_that_are_not_finite_are_refused():
    with pytest.raises(ValidationError, match="not finite"):
        compare_embeddings(np.full_like(EXPECTED, np.nan), EXPECTED)


def test_different_shapes_are_refused():
    with pytest.raises(ValidationError, match="shape"):
        compare_embeddings(EXPECTED[:, :2], EXPECTED)


def test_sample_texts_cover_many_scripts():
    assert len(set(SAMPLE_TEXTS)) >= 24
    assert len(set(QUALITY_TEXTS)) == len(QUALITY_TEXTS)  # equal texts would have no one nearest neighbour
    scripts = ("LATIN", "CYRILLIC", "GREEK", "HEBREW", "ARABIC", "DEVANAGARI", "THAI", "CJK", "HANGUL")
    letters = [unicodedata.name(letter, "") for text in SAMPLE_TEXTS for letter in text]
    assert all(any(name.startswith(script) for name in letters) for script in scripts)


SCORES = np.linspace(-8, 8, 5, dtype=np.float32)


@pytest.mark.parametrize("difference", [7e-4, 9e-4])
def test_scores_in_fp32_are_checked_in_proportion_to_the_largest(difference):
    agreement = compare_scores(SCORES + np.float32(difference), SCORES)
    if difference < 8e-4:
        require_agreement(agreement, "fp32")
    else:
        with pytest.raises(ValidationError, match="does not agree with the reference over 5 samples"):
            require_agreement(agreement, "fp32")


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_scores_in_other_precisions_are_checked_by_correlation(precision):
    require_agreement(compare_scores(SCORES * 1.1 - 1, SCORES), precision)
    with pytest.raises(ValidationError, match="correlation of at least"):
        require_agreement(compare_scores(SCORES[[0, 2, 1, 4, 3]], SCORES), precision)


def test_scores_that_are_not_finite_or_too_few_are_refused():
    with pytest.raises(ValidationError, match="not finite"):
        compare_scores(np.full_like(SCORES, np.nan), SCORES)
    with pytest.raises(ValidationError, match="shape"):
        compare_scores(SCORES[:2], SCORES)
