"""Visual similarity detection (thesis, Algorithm 2): which images have quadrants that look alike."""
