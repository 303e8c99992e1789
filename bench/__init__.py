"""Benchmarks of lorbms-fast: `make bench` runs them and writes bench/RESULTS.md."""
