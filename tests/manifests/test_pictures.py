"""Pictures are read whichever of Pillow's readers were loaded before, and by whom."""

from __future__ import annotations

import zipfile

import numpy as np
import pytest
from PIL import Image

from bernini.video_io import read_image as read_for_a_model
from datagen.keyframes import is_picture
from manifests.archives import Shelf
from manifests.errors import MediaError
from manifests.media import probe
from manifests.pictures import is_picture_file
from manifests.spans import image_size, read_image


@pytest.mark.parametrize("ending", ["jpg", "png", "webp", "gif", "bmp", "tiff"])
def test_pictures_are_read_when_every_reader_is_loaded_in_another_order(tmp_path, monkeypatch, ending):
    path = tmp_path / f"picture.{ending}"
    Image.fromarray(np.full((48, 64, 3), 200, np.uint8)).save(path)
    Image.init()
    monkeypatch.setattr(Image, "ID", sorted(Image.ID, key=lambda name: name != "IM"))  # as after some imports
    assert read_image(str(path)).shape == (48, 64, 3) and image_size(str(path)) == (64, 48)
    assert abs(read_image(str(path)).astype(int) - 200).max() <= 3  # JPEG of one grey


def test_other_kinds_of_files_are_refused_by_name(tmp_path):
    path = tmp_path / "picture.eps"
    path.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\n")
    with pytest.raises(MediaError, match="cannot read the picture .*picture.eps"):
        read_image(str(path))


@pytest.mark.parametrize("name", ["a.png", "a.tif"])
def test_sixteen_bits_are_read_as_the_eight_they_show(tmp_path, name):
    values = np.arange(65_536, dtype=np.uint16).reshape(256, 256)
    Image.fromarray(values).save(tmp_path / name)
    wanted = np.rint(values / 257).astype(np.uint8)
    assert (read_image(str(tmp_path / name)) == wanted[..., None]).all()
    assert (np.asarray(read_for_a_model(tmp_path / name)) == wanted[..., None]).all()
    Image.fromarray(values[:2]).save(tmp_path / name, exif=exif_of(6))  # a quarter turn
    assert read_image(str(tmp_path / name)).shape == (256, 2, 3)


def test_a_sixteen_bit_grey_that_stands_for_nothing_is_white(tmp_path):
    Image.fromarray(np.uint16([[0, 700, 65_535]])).save(tmp_path / "a.png", transparency=700)
    assert read_image(str(tmp_path / "a.png"))[0, :, 0].tolist() == [0, 255, 255]


@pytest.mark.parametrize("kind", [np.int32, np.float32])
def test_values_without_a_known_white_are_refused(tmp_path, kind):
    path = tmp_path / "a.tif"
    Image.fromarray(np.ones((4, 4), kind)).save(path)
    for read in (read_image, read_for_a_model):
        with pytest.raises(MediaError, match="a.tif holds 32-bit values .* save it as 8 or 16 bits"):
            read(str(path))


def test_data_and_generation_read_one_picture_alike(tmp_path):
    """Transparent, in a palette, of two tones, turned: the colour that a transparent place hides is not seen."""
    rgba = np.random.default_rng(0).integers(0, 256, (8, 12, 4), np.uint8)
    rgba[:4, :, 3] = 0
    Image.fromarray(rgba).save(tmp_path / "rgba.png")
    Image.fromarray(rgba).quantize(16).save(tmp_path / "palette.png")
    Image.fromarray(rgba[..., [0, 3]], "LA").save(tmp_path / "grey.png")
    Image.fromarray(rgba[..., :3]).save(tmp_path / "turned.jpg", exif=exif_of(6))
    for path in sorted(tmp_path.iterdir()):
        assert np.array_equal(read_image(str(path)), np.asarray(read_for_a_model(path))), path
    assert (read_image(str(tmp_path / "rgba.png"))[:4] == 255).all()


def test_avif_is_a_picture_for_everyone(tmp_path):
    Image.new("RGB", (64, 48), "red").save(tmp_path / "a.avif")
    assert is_picture_file("A.AVIF") and is_picture(probe(str(tmp_path / "a.avif")).container)
    assert read_image(str(tmp_path / "a.avif")).shape == (48, 64, 3)
    with zipfile.ZipFile(tmp_path / "all.zip", "w") as file:
        file.write(tmp_path / "a.avif", "inside.avif")
    shelf = Shelf(str(tmp_path))
    assert shelf.read(shelf.find("inside")).shape == (48, 64, 3)
    Image.new("RGB", (64, 48), "red").save(tmp_path / "film.avif", save_all=True, duration=100,
                                           append_images=[Image.new("RGB", (64, 48), "blue")])
    assert not is_picture(probe(str(tmp_path / "film.avif")).container)  # a sequence of pictures is a film


def exif_of(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif
