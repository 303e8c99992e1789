"""Linear classification of a quadrant's category from its own chunk, and from another."""

import numpy as np
from numpy.typing import NDArray

from lorbms_fast.evaluation.datasets.quadrant_objects import NONE, QuadrantObjects
from lorbms_fast.evaluation.disentangling.logistic import fit_logistic
from lorbms_fast.evaluation.disentangling.proportions import Answers, majority, per_quadrant, proportion
from lorbms_fast.evaluation.results import Result
from lorbms_fast.evaluation.split import Split
from lorbms_fast.tiles import tile_of_chunk


def chunk_to_category(
    codes: NDArray[np.floating], objects: QuadrantObjects, photographs: NDArray[np.int64], split: Split
) -> dict[str, Result]:
    """Measure the accuracy on the test half, from a quadrant's own chunk and from that of the quadrant opposite.

    Takes codes (N, chunks, chunk) of real images, where a quadrant of several chunks is read by their mean, and the
    photograph (N,) of each image.
    """
    train, test = (objects.labels[rows] != NONE for rows in (split.train, split.test))
    y_train, y_test = objects.labels[split.train][train], objects.labels[split.test][test]
    found = {}
    of_chunk = tile_of_chunk(codes.shape[1], 4).numpy()
    by_quadrant = np.stack([codes[:, of_chunk == q].mean(1) for q in range(4)], axis=1)
    for name, chunks in (("own chunk", by_quadrant), ("opposite chunk", by_quadrant[:, ::-1])):
        classifier = fit_logistic(chunks[split.train][train], y_train, len(objects.classes))
        right = classifier.predict(chunks[split.test][test]) == y_test
        found[name] = proportion(Answers(right, per_quadrant(photographs[split.test])[test]))
    return found | {"majority": majority(objects.labels, photographs, split)}
