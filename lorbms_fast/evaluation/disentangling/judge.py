"""A classifier of real objects, asked what it sees in the quadrants of images."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lorbms_fast.dataloader.resize import area_resize
from lorbms_fast.dataloader.store import ImageStore
from lorbms_fast.errors import UserError
from lorbms_fast.evaluation.crops import row_batches
from lorbms_fast.evaluation.datasets.quadrant_objects import NONE, QuadrantObjects
from lorbms_fast.evaluation.disentangling.logistic import Logistic, fit_logistic
from lorbms_fast.evaluation.disentangling.swaps import BATCH
from lorbms_fast.progress import tqdm
from lorbms_fast.similarity.features.extractor import Extractor


@dataclass(frozen=True)
class Judge:
    """Features of quadrants and a linear classifier on them."""

    extractor: Extractor
    classifier: Logistic

    def sees(self, images: NDArray[np.uint8]) -> NDArray[np.int64]:
        """Name the category in each quadrant of images (B, S, S, 3): (B, 4)."""
        features = describe_quadrants(self.extractor, images)
        return self.classifier.predict(features.reshape(4 * len(images), -1)).reshape(-1, 4)

    def sees_in_store(self, store: ImageStore, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Name the category in each quadrant of a store's images: (len(rows), 4)."""
        batches = tqdm(row_batches(rows, BATCH), desc="judging real quadrants", unit="batches")
        return np.concatenate([self.sees(np.asarray(store.images[batch])) for batch in batches])


def train_judge(store: ImageStore, objects: QuadrantObjects, extractor: Extractor, rows: NDArray[np.int64]) -> Judge:
    """Learn categories from quadrants of real images, at the networks' side; UserError below two categories."""
    labels = objects.labels[rows]
    known = labels != NONE
    if len(np.unique(labels[known])) < 2:
        raise UserError(f"half of {store.path} shows objects of fewer than two categories: prepare more images")
    batches = tqdm(row_batches(rows, BATCH), desc="learning real quadrants", unit="batches")
    features = np.concatenate([describe_quadrants(extractor, np.asarray(store.images[batch])) for batch in batches])
    return Judge(extractor, fit_logistic(features[known], labels[known], len(objects.classes)))


def describe_quadrants(extractor: Extractor, images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Compute features (B, 4, D) of images (B, S, S, 3), enlarged to what the extractor wants."""
    return extractor.extract(np.stack([area_resize(np.ascontiguousarray(image), extractor.side) for image in images]))
