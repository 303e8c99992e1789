"""Readers of strangers' files, asked with damaged ones: they read them or say on one line what is wrong."""

import os

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fuzz.damage import damaged, twisted
from tests.fuzz.reader import ask
from tests.fuzz.readers import NAMES, reader

MORE = os.environ.get("FUZZ_EXAMPLES")
EXAMPLES = int(MORE or 60)
"""A reader and kind of damage. `make fuzz` asks many more, others at every call."""


def bounded(examples: int) -> settings:
    """The same examples at every call but those of `make fuzz`, however long they take."""
    return settings(
        max_examples=examples,
        deadline=None,
        derandomize=MORE is None,
        database=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )


@pytest.mark.parametrize("name", NAMES)
def test_what_is_in_order_is_read_and_what_was_trouble_is_told(name):
    right, *others = reader(name).seeds()
    assert ask(reader(name), right) is None
    for data in others:
        ask(reader(name), data)


@pytest.mark.parametrize("name", NAMES)
def test_damaged_bytes(name):
    asked = reader(name)
    seeds = asked.seeds()

    @bounded(EXAMPLES)
    @given(st.data())
    def property_(data):
        def choose(n: int) -> int:
            return data.draw(st.integers(0, n - 1))

        ask(asked, damaged(seeds[choose(len(seeds))], choose))

    property_()


@pytest.mark.parametrize("name", [name for name in NAMES if reader(name).documents()])
def test_twisted_documents(name):
    asked = reader(name)
    documents = asked.documents()

    @bounded(3 * EXAMPLES)
    @given(st.data())
    def property_(data):
        def choose(n: int) -> int:
            return data.draw(st.integers(0, n - 1))

        ask(asked, asked.written(twisted(documents[choose(len(documents))], choose)))

    property_()
