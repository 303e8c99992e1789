"""What a few samples show of a run's networks: how well they reconstruct, and whether they tell images apart."""

from typing import NamedTuple

from lorbms_fast.engine.collapse import classifier_state, discriminator_state
from lorbms_fast.engine.iteration import IterationImpl
from lorbms_fast.psnr import blur_levels, psnr
from lorbms_fast.types import Batch, Networks, Scenes

States = dict[str, dict[str, float]]
"""What `collapse` measures of the classifier and of the discriminator, by these names."""


def states_of(networks: Networks, impl: IterationImpl, batch: Batch, scenes: Scenes) -> States:
    """Measure classifier and discriminator on a batch and its scenes."""
    return {
        "classifier": classifier_state(networks, impl, scenes.I_mix, batch),
        "discriminator": discriminator_state(networks, batch.I_ref, scenes.I_mix),
    }


def reconstruction_levels(batch: Batch, scenes: Scenes) -> dict[str, float]:
    """Compute the PSNR of reconstructions, then those of blurs, by name, the last one color for all images."""
    I = batch.I_ref
    for_all = {"one color for all": psnr(I.mean((0, 2, 3), keepdim=True).expand_as(I), I).item()}
    return {"PSNR of I_hat": psnr(scenes.I_hat.float(), I).item()} | blur_levels(I) | for_all


class Shown(NamedTuple):
    """What samples show."""

    states: States
    levels: dict[str, float]
    """As `reconstruction_levels` gives them."""

    def numbers(self) -> dict[str, float]:
        """All of it, by the names of TensorBoard."""
        of_states = {f"{who}/{name}": value for who, state in self.states.items() for name, value in state.items()}
        return of_states | {f"samples/{name}": value for name, value in self.levels.items()}

    def learned(self) -> str:
        """Say what they show: PSNR beside that of blurs, the classifier beside a constant answer."""
        (made, reached), *blurs = self.levels.items()
        beside = ", ".join(f"{name} {level:.1f}" for name, level in blurs)
        gain = f"{self.states['classifier']['gain']:+.2f} nats a logit against the best constant answer"
        return f"{made} {reached:.1f} dB ({beside}); classifier {gain}"

    def warning(self, betas: tuple[float, float], before: "Shown | None", ended: bool) -> str | None:
        """Say what helps, if pictures of one color would be nearer than reconstructions.

        They are in any run's beginning: it is said of one that has `ended`, or got no nearer since what was shown
        `before` and is nearer to one color for all.
        """
        names = "PSNR of I_hat", "one color", "one color for all"
        reached, one_color, for_all = (self.levels[name] for name in names)
        stays = before is not None and reached <= before.levels["PSNR of I_hat"] and 2 * reached < one_color + for_all
        if not reached < one_color or not (ended or stays):
            return None
        worse = f"worse than one color each ({one_color:.1f} dB)"
        other_betas = "" if betas == (0.9, 0.999) else "--optim.betas 0.9 0.999 or "
        anew = f"begin anew with {other_betas}a lower --optim.generator-lr"
        if ended:
            return (
                f"warning: it ends with reconstructions of {reached:.1f} dB, {worse}: "
                f"go on with more --iterations, or {anew}"
            )
        return f"warning: reconstructions of {reached:.1f} dB are {worse}, and no better than before: {anew}"
