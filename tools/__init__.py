"""What this project takes from others: pinned and hashed, looked up among known vulnerabilities, licences listed."""
