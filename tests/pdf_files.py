"""PDF files made for tests."""

from collections.abc import Sequence


def make_pdf(pages: Sequence[str], width: int = 200, height: int = 300) -> bytes:
    """Return a PDF with one page for each content stream (ISO 32000-1, 7.8.2); `/F1` is Helvetica, not embedded."""
    kids = " ".join(f"{4 + 2 * number} 0 R" for number in range(len(pages)))
    objects = [
        "<</Type/Catalog/Pages 2 0 R>>",
        f"<</Type/Pages/Kids[{kids}]/Count {len(pages)}/MediaBox[0 0 {width} {height}]>>",
        "<</Type/Font/Subtype/Type1/BaseFont/Helvetica>>",
    ]
    for number, content in enumerate(pages):
        contents = 5 + 2 * number
        objects.append(f"<</Type/Page/Parent 2 0 R/Resources<</Font<</F1 3 0 R>>>>/Contents {contents} 0 R>>")
        objects.append(f"<</Length {len(content)}>>stream\n{content}\nendstream")
    file = b"%PDF-1.4\n"
    offsets = []
    for number, body in enumerate(objects, 1):
        offsets.append(len(file))
        file += f"{number} 0 obj{body}endobj\n".encode()
    size = len(objects) + 1
    table = f"xref\n0 {size}\n0000000000 65535 f \n" + "".join(f"{offset:010d} 00000 n \n" for offset in offsets)
    trailer = f"trailer<</Size {size}/Root 1 0 R>>\nstartxref\n{len(file)}\n%%EOF"
    return file + (table + trailer).encode()


def fill(red: float, green: float, blue: float) -> str:
    """Return the content of a page of one colour."""
    return f"{red} {green} {blue} rg 0 0 14400 14400 re f"


def write_text(text: str) -> str:
    """Return the content of a page with a line of text."""
    return f"BT /F1 24 Tf 20 200 Td ({text}) Tj ET"
