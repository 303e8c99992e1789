"""Classifiers that see all images of a mix at once, stacked on channels, and name the origin of every tile.

One logit a tile, positive where it came from the tile's candidate, negative where from the reference.
"""

from lorbms_fast import reference


class ThreeImageClassifier(reference.Classifier):
    """AlexNet on 9 channels: the mixed image and both that it was made of."""

    images = 3


class SixImageClassifier(reference.Classifier):
    """AlexNet on 18 channels: I_mix, I_ref and the four I_q (Appendix D.3)."""

    images = 6
