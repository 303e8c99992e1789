"""Packages of lorbms_fast lie in layers: none imports a higher one, so no two import each other."""

import ast

from tools.import_graph import graph, imported, order, pairs, upwards


def test_every_package_has_its_layer():
    missing, gone = graph().keys() - order().keys(), order().keys() - graph().keys()
    assert not missing, f"put {missing} into a line of the block `layers` in docs/architecture.md"
    assert not gone, f"take {gone} out of the block `layers` in docs/architecture.md"


def test_no_two_packages_import_each_other():
    assert not pairs(graph()), "run  python -m tools.import_graph"


def test_nothing_imports_upwards():
    found = graph()
    steps = upwards(found, order())
    assert not steps, {step: found[step[0]][step[1]] for step in steps}


def test_imports_are_seen_wherever_they_stand():
    program = """
import lorbms_fast.a.b
from lorbms_fast import c, d
from lorbms_fast.e.f import g
import lorbms_fast
def function():
    from lorbms_fast.h import i
"""
    assert [name for _, name in imported(ast.parse(program))] == ["a", "c", "d", "e", "h"]
