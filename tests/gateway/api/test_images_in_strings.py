"""Data URLs: what is a image, what is text, and what is refused."""

import base64

import pytest

from gateway.api.images import InlineImage, decode_data_url, find_image, is_data_url
from gateway.errors import InvalidItemError, TooLargeError

IMAGE = bytes(range(200))
PAYLOAD = base64.b64encode(IMAGE).decode()
URL = f"data:image/png;base64,{PAYLOAD}"
LIMIT = 1000


@pytest.mark.parametrize(
    "url",
    [
        URL,
        f"  {URL}\n",
        f"DATA:IMAGE/PNG;BASE64,{PAYLOAD}",
        f"data:image/jpeg;charset=utf-8;base64,{PAYLOAD}",
        f"data:image/webp;base64,{PAYLOAD}",
        f"data:image/gif;base64,{PAYLOAD}",
    ],
)
def test_well_formed_urls_are_decoded(url: str) -> None:
    assert is_data_url(url)
    assert decode_data_url(url, 0, LIMIT) == IMAGE


@pytest.mark.parametrize(
    "url",
    [
        "data:image/png",
        "data:image/png;base64",
        f"data:image/png;base64{PAYLOAD}",
        f"data:image/png,{PAYLOAD}",
        "data:image/png;base64,",
        "data:image/png;base64,====",
        f"data:image/png;base64,{PAYLOAD[:-1]}",
        f"data:image/png;base64,{PAYLOAD}=",
        "data:image/png;base64,_-_-",
        "data:image/png;base64,AA AA",
        f"data:image/png;base64,{URL}",
        f"data:image/svg+xml;base64,{PAYLOAD}",
        f"data:image/tiff;base64,{PAYLOAD}",
        f"data:text/html;base64,{PAYLOAD}",
        "data:image/png;base64,éé==",
    ],
)
def test_malformed_urls_are_refused_by_index_without_echo(url: str) -> None:
    with pytest.raises(InvalidItemError) as caught:
        decode_data_url(url, 7, LIMIT)
    assert caught.value.param == "input[7]"
    assert PAYLOAD[:20] not in caught.value.message


def test_limit_is_exact_and_checked_before_decoding() -> None:
    at_limit = "data:image/png;base64," + base64.b64encode(bytes(LIMIT)).decode()
    above = "data:image/png;base64," + base64.b64encode(bytes(LIMIT + 1)).decode()
    assert len(decode_data_url(at_limit, 0, LIMIT)) == LIMIT
    with pytest.raises(TooLargeError):
        decode_data_url(above, 0, LIMIT)
    with pytest.raises(TooLargeError):  # the alphabet is wrong too, but is not looked at
        decode_data_url("data:image/png;base64," + "!" * 2000, 0, LIMIT)


@pytest.mark.parametrize(
    ("text", "rest"),
    [
        (f"a cat {URL}", "a cat"),
        (f"{URL} a cat", "a cat"),
        (f"a {URL} cat", "a cat"),
        (f'<img src="{URL}"/>', ""),
        (f"<img src='{URL}'>", ""),
        (f'<IMG alt="x" src = "{URL}" width="3" />', ""),
        (f'a <img src="{URL}"/> cat', "a cat"),
        (f'a <img src="{URL}" cat', 'a <img src=" " cat'),
    ],
)
def test_image_within_text_is_found_with_its_tag(text: str, rest: str) -> None:
    found = find_image(text, 0)
    assert found is not None
    assert (found.url, found.text) == (URL, rest)


@pytest.mark.parametrize(
    "text", ["", "write data:image/png;base64, and then", "data:text/plain;base64,AAAA", "<img src=''/>"]
)
def test_text_without_a_data_url_has_no_image(text: str) -> None:
    assert find_image(text, 0) is None


def test_two_images_in_one_text_are_refused() -> None:
    with pytest.raises(InvalidItemError, match="more than one image"):
        find_image(f"{URL} and {URL}", 0)


def test_an_image_is_found_anywhere_in_a_long_text() -> None:
    before = "İstanbul, 人生 64, " * 10_000 + "DATA:image/x"
    url = URL.replace("image", "IMAGE")
    assert find_image(f"{before} {url} after", 0) == InlineImage(url, f"{before} after")


@pytest.mark.timeout(5)
def test_a_text_that_begins_an_image_too_often_is_refused() -> None:
    with pytest.raises(InvalidItemError, match='has "data:image/" more than 1000 times'):
        find_image("data:image/" * 5_000_000 + "64,", 0)


@pytest.mark.timeout(5)
@pytest.mark.parametrize("piece", ["<img src=", "<img " + "src = ", "data:image/", "data:image/a;b;c;d", "src='"])
def test_search_time_grows_with_length_only(piece: str) -> None:
    assert find_image(piece * (1_000_000 // len(piece)), 0) is None
