import numpy as np
import pytest
from PIL import Image

from sbjax.data import image_files

RNG = np.random.default_rng(0)
COLOUR = RNG.integers(0, 256, (6, 9, 3), np.uint8)
GREY = COLOUR[..., 0]
ALPHA = RNG.integers(0, 256, (6, 9), np.uint8)


def read(path, *, grey=False):
    return image_files.read(path, grey=grey, image_size=None)


def on_white(colour, alpha):
    """The definition of "over": alpha x + (1 - alpha) white."""
    share = alpha[..., None] / 255
    return share * colour + (1 - share) * 255


@pytest.mark.parametrize("ending", ["png", "bmp", "tif", "ppm", "webp", "pbm", "pgm"])
def test_plain_files_are_read_as_they_are(tmp_path, ending):
    path = tmp_path / f"image.{ending}"
    if ending == "pbm":
        Image.fromarray(GREY > 127).save(path)
        expected = np.where(GREY > 127, 255, 0)
    else:
        expected = COLOUR if ending in ("png", "bmp", "tif", "ppm", "webp") else GREY
        Image.fromarray(expected).save(path, **({"lossless": True} if ending == "webp" else {}))
    look = image_files.look(path)
    assert look == ((6, 9), expected.ndim == 2, "")
    pixels, changes = read(path, grey=look.grey)
    np.testing.assert_array_equal(pixels, expected if expected.ndim == 3 else expected[..., None])
    assert changes == ()


def test_grey_goes_into_all_channels_of_a_set_with_colour(tmp_path):
    Image.fromarray(GREY).save(tmp_path / "a.png")
    pixels, changes = read(tmp_path / "a.png")
    np.testing.assert_array_equal(pixels, np.repeat(GREY[..., None], 3, -1))
    assert changes == (image_files.GREY,)


def test_palettes_become_colour(tmp_path):
    few = Image.fromarray(COLOUR).convert("P", palette=Image.Palette.ADAPTIVE, colors=8)
    few.save(tmp_path / "a.png")
    assert image_files.look(tmp_path / "a.png").grey is False
    pixels, changes = read(tmp_path / "a.png")
    palette = np.array(few.getpalette()).reshape(-1, 3)
    np.testing.assert_array_equal(pixels, palette[np.asarray(few)])
    assert changes == ("with a palette, turned into RGB",)
    few.save(tmp_path / "b.png", transparency=3)
    pixels, changes = read(tmp_path / "b.png")
    np.testing.assert_array_equal(pixels, np.where(np.asarray(few)[..., None] == 3, 255, palette[np.asarray(few)]))
    assert image_files.ALPHA in changes


def test_transparency_is_laid_on_white(tmp_path):
    Image.fromarray(np.dstack([COLOUR, ALPHA])).save(tmp_path / "colour.png")
    pixels, changes = read(tmp_path / "colour.png")
    assert np.abs(pixels - on_white(COLOUR, ALPHA)).max() <= 1
    assert changes == (image_files.ALPHA,)
    Image.fromarray(np.dstack([GREY, ALPHA])).save(tmp_path / "grey.png")
    assert image_files.look(tmp_path / "grey.png").grey
    pixels, changes = read(tmp_path / "grey.png", grey=True)
    assert np.abs(pixels - on_white(GREY[..., None], ALPHA)).max() <= 1
    assert changes == (image_files.ALPHA,)
    Image.fromarray(GREY).save(tmp_path / "key.png", transparency=int(GREY[0, 0]))
    pixels, changes = read(tmp_path / "key.png", grey=True)
    np.testing.assert_array_equal(pixels[..., 0], np.where(GREY[0, 0] == GREY, 255, GREY))


def test_cmyk_becomes_colour(tmp_path):
    Image.fromarray(np.full((8, 8, 4), [0, 255, 255, 0], np.uint8), "CMYK").save(tmp_path / "red.tif")
    pixels, changes = read(tmp_path / "red.tif")
    assert (pixels == [255, 0, 0]).all()
    assert changes == ("CMYK, turned into RGB",)


@pytest.mark.parametrize("ending", ["png", "tif", "webp"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_orientation_of_exif_is_applied(tmp_path, ending, orientation):
    # By the standard: where row 0 and column 0 of the stored picture are to be seen.
    upright = COLOUR.swapaxes(0, 1) if orientation >= 5 else COLOUR
    vertical = orientation in (3, 4, 7, 8)
    horizontal = orientation in (2, 3, 6, 7)
    upright = upright[:: -1 if vertical else 1, :: -1 if horizontal else 1]
    exif = Image.Exif()
    exif[274] = orientation
    path = tmp_path / f"a.{ending}"
    Image.fromarray(COLOUR).save(path, exif=exif, **({"lossless": True} if ending == "webp" else {}))
    assert image_files.look(path).size == upright.shape[:2]
    pixels, changes = read(path)
    np.testing.assert_array_equal(pixels, upright)
    assert changes == ((image_files.UPRIGHT,) if orientation > 1 else ())


def test_of_several_frames_the_first_is_taken(tmp_path):
    other = Image.fromarray(255 - GREY)
    for ending in ("gif", "tif", "png"):
        path = tmp_path / f"a.{ending}"
        Image.fromarray(GREY).save(path, save_all=True, append_images=[other])
        pixels, changes = read(path, grey=True)
        np.testing.assert_array_equal(pixels[..., 0], GREY)
        assert image_files.FRAMES in changes


def write_deep(path):
    """16 bits a channel; Pillow itself writes grey only."""
    values = RNG.integers(0, 65536, (6, 9), np.uint16)
    if path.suffix == ".ppm":
        path.write_bytes(b"P6 9 6 65535\n" + np.repeat(values[..., None], 3, -1).astype(">u2").tobytes())
    elif path.name.startswith("colour"):
        write_deep_png(path, values)
    elif path.name.startswith("float"):
        Image.fromarray(values.astype(np.float32)).save(path)
    else:
        Image.fromarray(values).save(path)


def write_deep_png(path, values):
    import struct
    import zlib

    rows = np.repeat(values[..., None], 3, -1).astype(">u2").tobytes()
    width = len(rows) // len(values)
    raw = b"".join(b"\0" + rows[i : i + width] for i in range(0, len(rows), width))

    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    head = struct.pack(">IIBBBBB", 9, 6, 16, 2, 0, 0, 0)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(raw)) + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize("name", ["grey.png", "grey.tif", "grey.pgm", "colour.png", "colour.ppm", "float.tif"])
def test_more_than_eight_bits_are_refused_also_where_pillow_cuts_them_off(tmp_path, name):
    path = tmp_path / name
    write_deep(path)
    assert image_files.look(path).deep
    with pytest.raises(ValueError, match=rf"images with more than 8 bits a channel: 1 \({name} \(.*\)\); scale them"):
        image_files.read_all([path], [name], image_size=None, what="set")


def test_a_size_that_shows_behind_the_pixels_only_is_refused(tmp_path):
    path = tmp_path / "late.png"
    exif = Image.Exif()
    exif[274] = 6
    Image.fromarray(COLOUR).save(path, exif=exif)
    content = path.read_bytes()
    at = content.index(b"eXIf") - 4
    chunk = content[at : at + 12 + int.from_bytes(content[at : at + 4])]
    without, end = content.replace(chunk, b""), content.index(b"IEND") - 4 - len(chunk)
    path.write_bytes(without[:end] + chunk + without[end:])
    Image.fromarray(COLOUR).save(tmp_path / "plain.png")
    paths = [tmp_path / "late.png", tmp_path / "plain.png"]
    with pytest.raises(ValueError, match=r"late\.png: upright it is 9 x 6 pixels, others 6 x 9; set image_size"):
        image_files.read_all(paths, ["late.png", "plain.png"], image_size=None, what="set")
    pixels, note = image_files.read_all(paths, ["late.png", "plain.png"], image_size=4, what="set")
    assert pixels.shape == (2, 4, 4, 3)
    assert note == "changed: turned upright by EXIF: 1 (late.png)"
