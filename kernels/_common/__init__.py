"""Shared parts of the operations: choosing a form, registration, casting, sums, autotuning, loops in C++.

Nothing of it is meant for other people's models. `dispatch` and `operation` are what the engine, and measurements of
this distribution, learn of forms and choose them by.
"""
