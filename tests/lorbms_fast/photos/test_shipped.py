import pytest
from PIL import Image

from lorbms_fast.photos import shipped
from lorbms_fast.photos.shipped import CATEGORIES, DATA


def test_every_file_has_a_credit_and_every_credit_a_file():
    lying_there = {
        path.relative_to(DATA).as_posix()
        for folder in ("objects", "backgrounds", "scenes")
        for path in (DATA / folder).iterdir()
    }
    assert [photo.file for photo in shipped.photos()] == sorted(lying_there)


def test_every_credit_names_author_licence_and_source_and_the_licence_text_is_there():
    for photo in shipped.photos():
        assert all((photo.author, photo.licence, photo.source)), photo.file
        assert len((DATA / photo.licence_file).read_text(encoding="utf-8")) > 200, photo.file


@pytest.mark.parametrize("licence", ["GPL-2", "GPL-3", "LGPL-3", "GFDL-1.3"])
def test_the_full_texts_of_the_gnu_licences_are_there(licence: str):
    assert any(photo.licence.startswith(licence.split("-")[0]) for photo in shipped.photos())
    assert (DATA / "licences" / f"{licence}.txt").stat().st_size > 5000


def test_every_photograph_can_be_read():
    for photo in shipped.photos():
        with Image.open(photo.path) as image:
            image.load()
            assert image.mode == ("RGBA" if photo.file.startswith("objects/") else "RGB"), photo.file


def test_objects_have_a_category_and_something_opaque_and_something_transparent():
    assert {photo.category for photo in shipped.objects()} == set(CATEGORIES)
    for photo in shipped.objects():
        with Image.open(photo.path) as image:
            lowest, highest = image.getchannel("A").getextrema()
        assert lowest == 0 < 200 < highest, photo.file


def test_every_category_has_an_object_to_train_on_and_one_to_test_on():
    for category in CATEGORIES:
        assert sum(photo.category == category for photo in shipped.objects()) >= 2


def test_backgrounds_are_places_only():
    shown = {photo.category for photo in shipped.backgrounds()}
    assert {None, "scene-nature", "sea"} <= shown
    assert not shown & {"animal", "tool", "fish"}
