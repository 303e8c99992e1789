"""Measuring one way to compute against another: time in pairs, counted work, peak memory."""
