"""A judge's verdicts on transferred and kept objects."""

import numpy as np
from numpy.typing import NDArray

from lorbms_fast.dataloader.pixels import to_uint8_nhwc
from lorbms_fast.evaluation.datasets.quadrant_objects import NONE, QuadrantObjects
from lorbms_fast.evaluation.disentangling.judge import Judge
from lorbms_fast.evaluation.disentangling.proportions import Answers, per_quadrant
from lorbms_fast.evaluation.disentangling.swaps import Swapped, Swaps


def verdicts(swaps: Swaps, made: Swapped, objects: QuadrantObjects, judge: Judge) -> dict[str, Answers]:
    """Compare the judge's answers to each question with what they should be, over the quadrants it is asked of.

    - "transferred": the swapped quadrant shows I_obj's object.
    - "kept": the other quadrants show I_ref's objects.
    - "replaced": the swapped quadrant still shows I_ref's object, of another category than I_obj's; should be rare.
    - "reconstructed": Dec(Enc(I_ref)) shows I_ref's objects.
    """
    swapped = swaps.mask
    of_ref, of_obj = objects.labels[swaps.ref], objects.labels[swaps.obj]
    wanted = np.where(swapped, of_obj, of_ref)
    couples = per_quadrant(swaps.couple)
    found: dict[str, Answers] = {}

    def note(name: str, right: NDArray[np.bool_], asked: NDArray[np.bool_]) -> None:
        found[name] = Answers(right[asked], couples[asked])

    for name, images in (("I_mix", made.I_mix), ("pasted", made.I_paste)):
        seen = judge.sees(to_uint8_nhwc(images))
        note(f"{name}: transferred", seen == wanted, swapped & (wanted != NONE))
        note(f"{name}: kept", seen == wanted, ~swapped & (wanted != NONE))
        gone = swapped & (of_ref != NONE) & (of_obj != NONE) & (of_ref != of_obj)
        note(f"{name}: replaced", seen == of_ref, gone)
    note("I_hat: reconstructed", judge.sees(to_uint8_nhwc(made.I_hat)) == of_ref, of_ref != NONE)
    return found
