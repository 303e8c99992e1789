"""The phases in order: each module's `run` writes what it finds and is a process of its own."""
