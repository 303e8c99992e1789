"""Files that a stranger could hand over, and what our readers make of them when they are damaged on purpose.

`fuzz.readers` has a module for each reader: valid files made by code, and how the reader is asked. tests/fuzz damages
them with hypothesis, `python -m fuzz` (`make fuzz`) with atheris, which looks for input that reaches new code.
"""
