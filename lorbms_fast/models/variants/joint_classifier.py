"""Classifiers that see all images of a mix at once and name the origin of every tile."""

from lorbms_fast import reference


class JointClassifier(reference.Classifier):
    """The thesis's AlexNet on mixed image, reference and candidates, stacked on channels.

    One logit a tile, positive where it came from the tile's candidate, negative where from the reference.
    """


class ThreeImageClassifier(JointClassifier):
    """AlexNet on 9 channels: the mixed image and both that it was made of."""

    images = 3


class SixImageClassifier(JointClassifier):
    """AlexNet on 18 channels: I_mix, I_ref and the four I_q (Appendix D.3)."""

    images = 6
