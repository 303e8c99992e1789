"""Upkeep of what we take from others: pinned and hashed, looked up among known vulnerabilities, licences listed."""
