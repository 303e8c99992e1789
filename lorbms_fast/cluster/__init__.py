"""Preparing and neighbours on many machines: Ray does the work, fsspec reaches the places, Faiss searches."""
