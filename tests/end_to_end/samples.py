"""The models that the end-to-end tests serve, and the images that they send."""

import base64

from tests.service import PROJECT

MINILM = "sentence-transformers/all-MiniLM-L6-v2"
TINY = "reference/tiny-checkpoint"
RERANKER = "tiny/reranker"
TINY_CHECKPOINT = PROJECT / "tests" / "data" / "tiny-checkpoint"


def read_image(index: int) -> bytes:
    """Return an image of the golden inputs, as a PNG file; 0 and 4 become a single tile."""
    return (TINY_CHECKPOINT / "images" / f"{index}.png").read_bytes()


def image_url(index: int) -> str:
    """Return an image of the golden inputs as a data URL."""
    return "data:image/png;base64," + base64.b64encode(read_image(index)).decode()


IMAGE_URL = image_url(0)
