"""Pages of PDF files to RGB pixels, by PDFium."""

from __future__ import annotations

from dataclasses import dataclass

import pypdfium2
import pypdfium2.raw as pdfium
from PIL import Image

from preprocess.items import ImageError

PAGE_LONG_SIDE = 2048
"""Pixels of a rendered page's longer side, whatever size the page claims to have: somewhat more than its tiles show."""


@dataclass(frozen=True)
class RenderedPage:
    """A page of a PDF.

    Attributes:
        image: Of mode RGB, on white.
        pages: Number of pages of the PDF.
    """

    image: Image.Image
    pages: int


def render_page(data: bytes, page: int) -> RenderedPage:
    """Render one page, annotations included, without scripts and form fields.

    Fonts that the file does not embed are replaced by PDFium's own, never by the machine's: where files cannot be
    opened, as in a decoding worker, a page looks the same on every machine.

    Args:
        data: The file.
        page: Number of the page, from 1.

    Raises:
        ImageError: `pdf_invalid`: the PDF is damaged or encrypted, or does not have this page.
    """
    try:
        with pypdfium2.PdfDocument(data) as document:
            pages = len(document)
            if not 1 <= page <= pages:
                raise ImageError("pdf_invalid", f"the PDF has no page {page}")
            return RenderedPage(_render(document[page - 1]), pages)
    except pypdfium2.PdfiumError as error:
        if error.err_code == pdfium.FPDF_ERR_PASSWORD:
            raise ImageError("pdf_invalid", "the PDF is encrypted with a password") from None
        raise ImageError("pdf_invalid", "the PDF is damaged") from None
    except MemoryError:
        raise ImageError("pdf_invalid", "rendering the PDF takes too much memory") from None


def _render(page: pypdfium2.PdfPage) -> Image.Image:
    long_side = max(page.get_size())
    if not 0 < long_side < float("inf"):
        raise ImageError("pdf_invalid", "the PDF has a page without a size")
    bitmap = page.render(scale=PAGE_LONG_SIDE / long_side, rev_byteorder=True, may_draw_forms=False)
    image: Image.Image = bitmap.to_pil()
    return image if image.mode == "RGB" else image.convert("RGB")
