"""Pictures are read whichever of Pillow's readers were loaded before, and by whom."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from manifests.errors import MediaError
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
