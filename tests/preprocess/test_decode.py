"""Which pixels an image is decoded to, and how one is refused."""

import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from preprocess.decode import decode_image
from preprocess.items import ImageError
from preprocess.settings import ImageLimits
from tests.preprocess.image_files import (
    COLOUR,
    GREY,
    GREY_ALPHA,
    PALETTE,
    PNG_SIGNATURE,
    draw_scene,
    encode,
    encode_16_bit,
    encode_chunk,
    encode_png,
)

LIMITS = ImageLimits()
WHITE = [255, 255, 255]
JPEG_ERROR = 12
"""Maximum error of a pixel at quality 95 with subsampled colours."""
SCENE = draw_scene(60, 40)


def decode_pixels(data: bytes) -> np.ndarray:
    image = decode_image(data, LIMITS)
    assert image.mode == "RGB"
    return np.asarray(image).astype(int)


def refuse(data: bytes, limits: ImageLimits = LIMITS) -> ImageError:
    with pytest.raises(ImageError) as caught:
        decode_image(data, limits)
    assert len(str(caught.value)) < 200
    return caught.value


def test_lossless_formats_keep_every_pixel():
    expected = np.asarray(SCENE)
    assert np.array_equal(decode_pixels(encode(SCENE, "PNG")), expected)
    assert np.array_equal(decode_pixels(encode(SCENE, "WEBP", lossless=True)), expected)
    palette = SCENE.quantize(32)
    assert np.array_equal(decode_pixels(encode(palette, "GIF")), np.asarray(palette.convert("RGB")))


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": 0}])
def test_jpeg_comes_close_to_its_original(options):
    decoded = decode_pixels(encode(SCENE, "JPEG", quality=95, **options))
    assert np.abs(decoded - np.asarray(SCENE)).max() <= JPEG_ERROR


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("image_format", ["PNG", "JPEG", "WEBP"])
def test_exif_orientation_gives_the_upright_image(image_format, orientation):
    stored_by = {
        1: lambda image: image,
        2: lambda image: image.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
        3: lambda image: image.rotate(180),
        4: lambda image: image.transpose(Image.Transpose.FLIP_TOP_BOTTOM),
        5: lambda image: image.transpose(Image.Transpose.TRANSPOSE),
        6: lambda image: image.rotate(90, expand=True),
        7: lambda image: image.transpose(Image.Transpose.TRANSVERSE),
        8: lambda image: image.rotate(270, expand=True),
    }
    exif = Image.Exif()
    exif[0x010F] = "a maker before the orientation"
    exif[0x0112] = orientation
    stored = stored_by[orientation](SCENE)
    lossless = {"quality": 95, "subsampling": 0} if image_format == "JPEG" else {"lossless": True}
    decoded = decode_pixels(encode(stored, image_format, exif=exif, **lossless))
    assert decoded.shape == (40, 60, 3)
    assert np.abs(decoded - np.asarray(SCENE)).max() <= (JPEG_ERROR if image_format == "JPEG" else 0)


@pytest.mark.parametrize("exif", [b"junk", b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0MM\0*\0\0\0\x08\xff\xff\0", b""])
def test_broken_exif_leaves_the_image_as_it_is(exif):
    data = encode_png((1, 1), 8, GREY, [b"\x40"], before=[(b"eXIf", exif)])
    assert decode_pixels(data).tolist() == [[[64, 64, 64]]]


def test_exif_after_the_pixels_of_a_png_counts():
    exif = Image.Exif()
    exif[0x0112] = 3
    data = encode_png((2, 1), 8, GREY, [b"\x10\x20"], after=[(b"eXIf", exif.tobytes()[6:])])
    assert decode_pixels(data)[0, :, 0].tolist() == [0x20, 0x10]


def test_alpha_lies_over_white():
    rgba = SCENE.convert("RGBA")
    rgba.putalpha(Image.linear_gradient("L").resize(SCENE.size))
    alpha = np.asarray(rgba)[..., 3:] / 255
    expected = np.asarray(SCENE) * alpha + 255 * (1 - alpha)
    assert np.abs(decode_pixels(encode(rgba, "PNG")) - expected).max() <= 1
    assert np.abs(decode_pixels(encode(rgba, "WEBP", lossless=True, exact=True)) - expected).max() <= 1


def test_grey_with_alpha_lies_over_white():
    data = encode_png((3, 1), 8, GREY_ALPHA, [bytes([10, 255, 10, 0, 0, 128])])
    assert decode_pixels(data)[0, :, 0].tolist() == [10, 255, 127]
    data = encode_png((2, 1), 16, GREY_ALPHA, encode_16_bit(np.array([[0x8000, 0xFFFF, 0x8000, 0]])))
    assert decode_pixels(data)[0, :, 0].tolist() == [0x80, 255]


@pytest.mark.parametrize(("alphas", "first"), [(b"\x00", 255), (b"\xff\x00\x80", 10), (b"\x80", 132)])
def test_palette_transparency_lies_over_white(alphas, first):
    palette = bytes([10, 10, 10, 20, 20, 20, 30, 30, 30])
    data = encode_png((3, 1), 8, PALETTE, [b"\x00\x01\x02"], before=[(b"PLTE", palette), (b"tRNS", alphas)])
    second, third = (255, 142) if len(alphas) == 3 else (20, 30)
    assert decode_pixels(data)[0, :, 0] == pytest.approx([first, second, third], abs=1)


@pytest.mark.parametrize(
    ("bits", "line", "key", "expected"),
    [
        (1, 0b01000000, 1, [0, 255]),
        (1, 0b01000000, 0, [255, 255]),
        (2, 0b01100000, 1, [255, 170]),
        (2, 0b01100000, 2, [85, 255]),
        (4, 0x3C, 3, [255, 204]),
        (4, 0x3C, 0xC, [51, 255]),
    ],
)
def test_transparent_grey_of_few_bits_is_white(bits, line, key, expected):
    data = encode_png((2, 1), bits, GREY, [bytes([line])], before=[(b"tRNS", struct.pack(">H", key))])
    assert decode_pixels(data)[0, :, 0].tolist() == expected


def test_transparent_grey_and_colour_of_8_bits_are_white():
    data = encode_png((2, 1), 8, GREY, [b"\x07\x08"], before=[(b"tRNS", b"\x00\x07")])
    assert decode_pixels(data)[0, :, 0].tolist() == [255, 8]
    data = encode_png((2, 1), 8, COLOUR, [bytes([1, 2, 3, 1, 2, 4])], before=[(b"tRNS", bytes([0, 1, 0, 2, 0, 3]))])
    assert decode_pixels(data)[0].tolist() == [WHITE, [1, 2, 4]]


def test_transparent_grey_and_colour_of_16_bits_are_white():
    grey = encode_16_bit(np.array([[0x1234, 0x1235]]))
    data = encode_png((2, 1), 16, GREY, grey, before=[(b"tRNS", b"\x12\x34")])
    assert decode_pixels(data)[0, :, 0].tolist() == [255, 0x12]
    colour = encode_16_bit(np.array([[0x1000, 0x2000, 0x3000, 0x1000, 0x2000, 0x4000]]))
    data = encode_png((2, 1), 16, COLOUR, colour, before=[(b"tRNS", b"\x10\x00\x20\x00\x30\x00")])
    assert decode_pixels(data)[0].tolist() == [WHITE, [0x10, 0x20, 0x40]]


def test_grey_of_16_bits_is_scaled_not_clipped():
    ramp = np.arange(256, dtype=np.uint16)[None] * 257
    grey = encode_png((256, 1), 16, GREY, encode_16_bit(ramp))
    colour = encode_png((256, 1), 16, COLOUR, encode_16_bit(np.repeat(ramp, 3, axis=1)))
    assert decode_pixels(grey)[0, :, 0].tolist() == list(range(256))
    assert np.array_equal(decode_pixels(grey), decode_pixels(colour))


def test_black_and_white_of_1_bit():
    assert decode_pixels(encode(Image.new("1", (3, 3), 1), "PNG"))[1, 1].tolist() == WHITE
    assert decode_pixels(encode(Image.new("1", (3, 3), 0), "PNG"))[1, 1].tolist() == [0, 0, 0]


@pytest.mark.parametrize("marker", ["kept", "removed"])
def test_cmyk_jpeg_equals_its_rgb_original(marker):
    data = encode(SCENE.convert("CMYK"), "JPEG", quality=95)
    assert b"Adobe" in data[:200]
    if marker == "removed":
        start = data.index(b"\xff\xee")
        data = data[:start] + data[start + 2 + struct.unpack_from(">H", data, start + 2)[0] :]
    assert np.abs(decode_pixels(data) - np.asarray(SCENE)).max() <= JPEG_ERROR


@pytest.mark.parametrize("image_format", ["GIF", "WEBP", "PNG"])
def test_first_frame_of_an_animation_counts(image_format):
    frames = [Image.new("RGB", (20, 20), colour) for colour in ("red", "green", "blue")]
    data = encode(frames[0], image_format, save_all=True, append_images=frames[1:])
    assert decode_pixels(data)[10, 10] == pytest.approx([255, 0, 0], abs=4)


def test_transparent_gif_lies_over_white():
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 40, 50, 60])
    image.putpixel((1, 0), 1)
    assert decode_pixels(encode(image, "GIF", transparency=1))[0].tolist() == [[10, 20, 30], WHITE]


@pytest.mark.parametrize("image_format", ["PNG", "JPEG", "WEBP", "GIF"])
@pytest.mark.parametrize("kept", [0.02, 0.5, 0.95])
def test_truncated_image_is_invalid(image_format, kept):
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
    data = encode(Image.fromarray(noise), image_format)
    assert refuse(data[: max(12, int(len(data) * kept))]).code in ("image_invalid", "image_unsupported")
    assert refuse(data[: int(len(data) * 0.7)]).code == "image_invalid"


@pytest.mark.parametrize("chunk", [b"IHDR", b"IDAT", b"IEND", b"tEXt"])
def test_wrong_checksum_is_invalid(chunk):
    data = bytearray(encode_png((8, 8), 8, GREY, [bytes(8)] * 8, after=[(b"tEXt", b"key\0value")]))
    (length,) = struct.unpack_from(">I", data, data.index(chunk) - 4)
    data[data.index(chunk) + 4 + length] ^= 1
    error = refuse(bytes(data))
    assert error.code == "image_invalid"
    assert "checksum" in error.message


@pytest.mark.parametrize("chunk", [b"zTXt", b"iTXt", b"iCCP"])
def test_compressed_text_bomb_is_refused(chunk):
    bomb = zlib.compress(bytes(50_000_000))
    payload = {b"zTXt": b"k\0\0", b"iTXt": b"k\0\x01\0\0\0", b"iCCP": b"k\0\0"}[chunk] + bomb
    assert refuse(encode_png((1, 1), 8, GREY, [b"\0"], before=[(chunk, payload)])).code == "image_invalid"


def test_trailing_bytes_of_a_polyglot_are_ignored():
    data = encode(SCENE, "PNG") + b"PK\x03\x04<html><script>%PDF-1.7"
    assert np.array_equal(decode_pixels(data), np.asarray(SCENE))


@pytest.mark.parametrize(
    "data",
    [
        b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        b"<!doctype html><p>hello",
        b"%PDF-1.7\n%\xe2\xe3",
        b"RIFF\x24\0\0\0WAVEfmt ",
        b"\x00",
        encode(SCENE, "TIFF"),
        encode(SCENE, "BMP"),
        encode(SCENE, "PPM"),
        encode(SCENE, "JPEG2000"),
        encode(SCENE, "AVIF"),
        encode(SCENE, "ICO"),
        encode(SCENE, "EPS"),
    ],
)
def test_other_formats_are_unsupported(data):
    assert refuse(data).code == "image_unsupported"


def test_empty_image_is_invalid():
    assert refuse(b"").code == "image_invalid"


@pytest.mark.parametrize("size", [(20000, 1), (1, 20000), (8193, 8193), (0x7FFFFFFF, 0x7FFFFFFF)])
def test_too_many_pixels_are_refused_by_the_header_alone(size):
    header = encode_chunk(b"IHDR", struct.pack(">IIBBBBB", *size, 8, GREY, 0, 0, 0))
    assert refuse(PNG_SIGNATURE + header).code == "image_too_large"


def test_too_many_pixels_are_refused_in_every_format():
    narrow = ImageLimits(max_long_side=60, max_short_side=39)
    for image_format in ("PNG", "JPEG", "WEBP", "GIF"):
        assert refuse(encode(SCENE, image_format), narrow).code == "image_too_large"
        decode_image(encode(SCENE, image_format), ImageLimits(max_long_side=60, max_short_side=40))


@pytest.mark.parametrize("chunk", [b"VP8X", b"VP8L", b"VP8 "])
def test_webp_canvas_is_checked_before_its_decoder_allocates_it(chunk):
    payload = {
        b"VP8X": b"\0\0\0\0" + (0xFFFF).to_bytes(3, "little") * 2,
        b"VP8L": b"\x2f" + (16383 | 16383 << 14).to_bytes(4, "little") + bytes(5),
        b"VP8 ": b"\x10\0\0\x9d\x01\x2a" + struct.pack("<HH", 16383, 16383),
    }[chunk]
    body = b"WEBP" + chunk + struct.pack("<I", len(payload)) + payload
    assert refuse(b"RIFF" + struct.pack("<I", len(body)) + body).code == "image_too_large"


@pytest.mark.parametrize("size", [(9000, 9000), (60000, 60000)])
def test_gif_frame_beyond_its_canvas_is_checked(size):
    data = bytearray(encode(Image.new("L", (4, 4)), "GIF"))
    frame = data.index(b",\0\0\0\0")
    data[frame + 5 : frame + 9] = struct.pack("<HH", *size)
    assert refuse(bytes(data)).code == "image_too_large"


@pytest.mark.parametrize("size", [(0, 0), (0, 5), (5, 0)])
def test_image_without_pixels_is_invalid(size):
    assert refuse(encode_png(size, 8, GREY, [])).code == "image_invalid"


def test_too_many_bytes_are_too_large():
    data = encode(SCENE, "PNG")
    assert refuse(data, ImageLimits(max_bytes=len(data) - 1)).code == "image_too_large"
    decode_image(data, ImageLimits(max_bytes=len(data)))


def test_mpo_jpeg_is_decoded_as_its_first_jpeg():
    data = encode(SCENE, "MPO", save_all=True, append_images=[Image.new("RGB", SCENE.size)], quality=95)
    assert np.abs(decode_pixels(data) - np.asarray(SCENE)).max() <= JPEG_ERROR
