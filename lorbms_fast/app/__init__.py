"""A run's local web page: transfers by hand, neighbours, curves and sheets."""
