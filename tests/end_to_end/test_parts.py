"""Items with several vectors on the real service: parts, and the pages of PDFs, good and hostile."""

import base64
import io
from typing import Any

import httpx
import numpy as np
import numpy.typing as npt
import pypdfium2
import pytest

from tests.end_to_end.samples import IMAGE_URL, TINY, image_url
from tests.pdf_files import fill, make_pdf, write_text
from tests.service import Service

pytestmark = pytest.mark.triton

PDF = make_pdf([write_text("Invoice 4711"), fill(0.2, 0.4, 0.9), write_text("Thank you")], 595, 842)


def pdf_url(data: bytes) -> str:
    return "data:application/pdf;base64," + base64.b64encode(data).decode()


def post(service: Service, **body: Any) -> httpx.Response:
    return httpx.post(f"{service.http_url}/v1/embeddings", json={"model": TINY, **body}, timeout=120)


def embed(service: Service, *items: Any, **body: Any) -> npt.NDArray[np.float64]:
    response = post(service, input=list(items), **body)
    assert response.status_code == 200, response.text
    return np.array([entry["embedding"] for entry in response.json()["data"]])


def image_of_page(data: bytes, number: int) -> str:
    """Return a page as a PNG in a data URL, rendered here so that its longer side has 2048 pixels."""
    page = pypdfium2.PdfDocument(data)[number - 1]
    file = io.BytesIO()
    page.render(scale=2048 / max(page.get_size())).to_pil().save(file, "PNG")
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()


def block(*parts: str) -> dict[str, Any]:
    """Return a content block of texts and of data URLs."""
    content: list[dict[str, Any]] = []
    for part in parts:
        is_image = part.startswith("data:")
        content.append(
            {"type": "image_url", "image_url": {"url": part}} if is_image else {"type": "text", "text": part}
        )
    return {"content": content}


def test_a_page_of_a_pdf_has_the_vector_of_its_image(service: Service) -> None:
    pages = embed(service, "a text", pdf_url(PDF), IMAGE_URL)
    assert len(pages) == 5
    expected = embed(service, "a text", *(image_of_page(PDF, number) for number in (1, 2, 3)), IMAGE_URL)
    np.testing.assert_allclose(pages, expected, atol=1e-5)
    assert float(pages[1] @ pages[2]) < 0.999, "the pages look the same"


def test_the_mean_is_that_of_the_parts(service: Service) -> None:
    parts = ["a text", image_url(0), image_url(1), pdf_url(PDF)]
    alone = embed(service, block(*parts), combine="none")
    assert len(alone) == 6
    np.testing.assert_allclose(alone[:3], embed(service, *parts[:3]), atol=1e-5)
    mean = alone.sum(axis=0) / np.linalg.norm(alone.sum(axis=0))
    np.testing.assert_allclose(embed(service, block(*parts), "b", combine="mean")[0], mean, atol=1e-5)


def test_more_pages_than_one_inference_request_carries_keep_their_order(service: Service) -> None:
    shades = [number / 20 for number in range(20)]
    data = make_pdf([fill(shade, shade, 1 - shade) for shade in shades], 100, 100)
    pages = embed(service, pdf_url(data))
    single = np.concatenate([embed(service, pdf_url(make_pdf([fill(s, s, 1 - s)], 100, 100))) for s in shades[::5]])
    np.testing.assert_allclose(pages[::5], single, atol=1e-5)


def hostile_pdfs() -> dict[str, tuple[bytes, str]]:
    """Return PDFs that cannot be embedded, and what the error says."""
    return {
        "truncated": (PDF[:200], "damaged"),
        "no PDF": (b"%PDF-1.7 and nothing else", "damaged"),
        "a PNG": (base64.b64decode(IMAGE_URL.partition(",")[2]), "damaged"),
        "no pages": (make_pdf([]), "damaged"),
        "a million pages": (make_pdf([""]).replace(b"/Count 1", b"/Count 1000000"), "limit of 128"),
        "encrypted": (encrypt(PDF), "encrypted"),
    }


def encrypt(data: bytes) -> bytes:
    """Return a PDF whose dictionary says that it is encrypted, with a password that is not empty."""
    dictionary = f"/Encrypt<</Filter/Standard/V 1/R 2/O<{'41' * 32}>/U<{'42' * 32}>/P -4>>/ID[<00><00>]".encode()
    return data.replace(b"trailer<<", b"trailer<<" + dictionary)


@pytest.mark.parametrize("name", hostile_pdfs())
def test_a_hostile_pdf_ends_its_item_only(service: Service, name: str) -> None:
    data, message = hostile_pdfs()[name]
    response = post(service, input=["a text", pdf_url(data), pdf_url(PDF)], on_error="item")
    assert response.status_code == 200, response.text
    entries = response.json()["data"]
    assert [entry["index"] for entry in entries] == [0, 1, 2, 2, 2]
    assert message in entries[1]["error"]["message"]
    assert len(entries[1]["error"]["message"]) < 200
    expected = embed(service, "a text", pdf_url(PDF))
    found = np.array([entries[position]["embedding"] for position in (0, 2, 3, 4)])
    np.testing.assert_allclose(found, expected, atol=1e-5)
    alone = post(service, input=pdf_url(data))
    assert alone.status_code in (400, 413)
