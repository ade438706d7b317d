"""Pictures as clients send them."""

import base64

from tests.end_to_end.conftest import TINY_CHECKPOINT


def picture_url(index: int) -> str:
    """Return a golden picture as a data URL; 0 and 4 are of one tile."""
    picture = (TINY_CHECKPOINT / "images" / f"{index}.png").read_bytes()
    return "data:image/png;base64," + base64.b64encode(picture).decode()


PICTURE_URL = picture_url(0)
