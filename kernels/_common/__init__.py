"""Shared parts of the operations: choosing a form, registration, casting, sums, autotuning, loops in C++."""
