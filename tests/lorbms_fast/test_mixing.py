"""Algorithm 1 against the sentence that defines it."""

import json
from importlib.resources import files

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lorbms_fast.errors import UserError
from lorbms_fast.mixing import QUADRANTS, author_mixing_mask, mixing_mask, parse_mask

distance = st.sampled_from([0.0, 1.0, 2.0, 3.0, 4.0, 5.0])
rows = st.lists(st.tuples(distance, distance, distance, distance), min_size=1, max_size=8)


def replaced(d: tuple[float, ...], tau: float) -> list[bool]:
    """The rule for one sample, in Python's own words."""
    keep = [(i == d.index(max(d)) or d[i] > tau) and i != d.index(min(d)) for i in range(4)]
    return [not kept for kept in keep]


@given(rows, distance)
def test_author_rule(samples, tau):
    expected = [replaced(d, tau) for d in samples]
    assert author_mixing_mask(torch.tensor(samples), tau).tolist() == expected


@given(rows, distance)
def test_default_rule_differs_only_where_everything_would_be_replaced(samples, tau):
    expected = [[*m[:3], False] if all(m) else m for m in (replaced(d, tau) for d in samples)]
    assert mixing_mask(torch.tensor(samples), tau).tolist() == expected


@given(rows, distance)
def test_at_least_one_quadrant_is_replaced_and_one_stays(samples, tau):
    count = mixing_mask(torch.tensor(samples), tau).sum(1)
    assert ((count >= 1) & (count <= 3)).all()


def test_parse_mask():
    assert parse_mask("0010").tolist() == [False, False, True, False]


@pytest.mark.parametrize("text", ["0021", "001", "00100", "", "abcd", "0 10"])
def test_bad_masks_are_named(text):
    with pytest.raises(UserError, match=f"'{text}'"):
        parse_mask(text)


def test_the_page_names_quadrants_as_everything_else_does():
    page = (files("lorbms_fast.app") / "static/transfer.js").read_text()
    assert f"const QUADRANTS = {json.dumps(QUADRANTS.split(', '))};" in page


def test_masks_are_explained_by_what_their_digits_stand_for():
    with pytest.raises(UserError, match=r"'02': write 4 digits 0 or 1, for q1 top left, .* q4 bottom right, "):
        parse_mask("02")
    with pytest.raises(UserError, match="'02': write 9 digits 0 or 1, one a tile, row by row"):
        parse_mask("02", 9)
