"""An image editor behind a server: what is sent, what comes back, and every way in which it can fail."""

from __future__ import annotations

import io
import time

import numpy as np
import pytest
from PIL import Image

from datagen.backends import EditRequest, open_backend
from datagen.samples_photos import photograph
from manifests.errors import BackendError, ConfigError
from tests.datagen.image_server import ImageServer

REQUEST = EditRequest(instruction="swap red and blue", kind="recolour", seed=7)


@pytest.fixture
def photo():
    return photograph("coffee")[:181, :250]


def editor(server, **options):
    return open_backend("image-editor", "openai", url=server.url, model="m", backoff_s=0.01, **options)


def test_a_picture_goes_out_as_png_and_comes_back_edited_at_its_own_size(photo, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    mask = np.zeros(photo.shape[:2], bool)
    mask[40:90, 50:120] = True
    with ImageServer() as server:
        out = editor(server).edit(photo, EditRequest(**{**vars(REQUEST), "mask": mask}))
    (sent,) = server.requests
    assert out.shape == photo.shape
    # Sides go to multiples of 16 and back, so that fine detail differs; colours are exactly swapped.
    assert np.abs(out.astype(int).mean(axis=(0, 1)) - photo[..., ::-1].mean(axis=(0, 1))).max() < 0.5
    assert sent["path"] == "/v1/images/edits" and sent["key"] == "Bearer sk-secret"
    assert (sent["prompt"], sent["model"], sent["size"], sent["seed"]) == ("swap red and blue", "m", "256x176", "7")
    alpha = np.asarray(Image.open(io.BytesIO(sent["mask"])))[..., 3]
    assert alpha.shape == (176, 256) and alpha[60, 80] == 0 and alpha[5, 5] == 255  # transparent may change


@pytest.mark.parametrize("fault", ["status:503", "status:429", "drop", "cut"])
def test_what_passes_is_asked_again(fault, photo):
    with ImageServer(fault) as server:
        assert editor(server).edit(photo, REQUEST).shape == photo.shape
    assert len(server.requests) == 2


@pytest.mark.parametrize("fault, words", [
    ("status:400", "HTTP 400"), ("body:not json", "no picture.*begins 'not json'"), ("body:[]", "no picture"),
    ('body:{"data": []}', "no picture"), ('body:{"data": [{"b64_json": "!!!"}]}', "no picture"),
    ('body:{"data": [{"b64_json": "aGVsbG8="}]}', "no picture"),
    ('body:{"data": [{"url": "http://elsewhere/x.png"}]}', "no picture"), ("bomb", "4000x4000"),
])
def test_what_cannot_be_used_is_the_issue_of_its_row_and_is_not_asked_again(fault, words, photo):
    with ImageServer(fault) as server:
        with pytest.raises(BackendError, match=words):
            editor(server).edit(photo, REQUEST)
    assert len(server.requests) == 1


def test_a_server_that_sends_a_byte_at_a_time_is_cut_off(photo):
    with ImageServer("drip") as server:
        start = time.monotonic()
        with pytest.raises(BackendError, match="no answer within 0.4 s"):
            editor(server, timeout_s=0.4, retries=0).edit(photo, REQUEST)
        assert time.monotonic() - start < 2.5  # of 5 s that it would have gone on


def test_an_answer_may_not_be_larger_than_the_limit(photo):
    with ImageServer("body:" + "x" * 5000) as server:
        with pytest.raises(BackendError, match="more than 4000 bytes"):
            editor(server, max_bytes=4000).edit(photo, REQUEST)


def test_a_refused_key_stops_the_run_without_showing_it(photo, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    with ImageServer("status:401") as server:
        with pytest.raises(ConfigError, match="refuses the key .OPENAI_API_KEY is set.") as caught:
            editor(server).edit(photo, REQUEST)
    assert "sk-secret" not in str(caught.value)


def test_a_key_that_a_server_echoes_is_not_shown(photo, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    with ImageServer('body:{"error": "bad key sk-secret"}') as server, pytest.raises(BackendError, match=r"bad key \*\*\*") as caught:
        editor(server).edit(photo, REQUEST)
    assert "sk-secret" not in str(caught.value)


def test_an_answer_of_another_shape_is_refused_and_not_stretched(photo):
    with ImageServer("square") as server, pytest.raises(BackendError, match="a picture of 64x64 for one of 250x181"):
        editor(server).edit(photo, REQUEST)


def test_keys_in_the_address_and_addresses_of_nothing_are_refused():
    for url, words in (("http://me:pw@host/v1", "environment only"), ("ftp://host", "not the address")):
        with pytest.raises(ConfigError, match=words):
            open_backend("image-editor", "openai", url=url, model="m")


def test_a_server_that_is_not_there_is_said_so(photo):
    with ImageServer() as server:
        gone = editor(server, retries=1)
    with pytest.raises(BackendError, match="made no edit: .*refused"):
        gone.edit(photo, REQUEST)
