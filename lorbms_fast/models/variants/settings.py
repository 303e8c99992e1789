"""Settings of variants, as functions of those of a run without them."""

from dataclasses import replace

from lorbms_fast.config import TrainConfig

HU_CHUNKS = 8


def author(config: TrainConfig) -> TrainConfig:
    """Set a quarter for each lambda_j, one rank for all quadrants, a fresh batch for each update, u's own schedule."""
    return replace(
        config,
        loss=replace(config.loss, lambdas=(0.25, 0.25, 0.25, 0.25)),
        mixing=replace(config.mixing, candidates="shared-rank"),
        optim=replace(config.optim, sn_power_iterations=(9, 2), sn_gradient="through", batches="fresh"),
    )


def hinge(config: TrainConfig) -> TrainConfig:
    """Set hinge losses for discriminator and generator (Zhang et al., 2019)."""
    return replace(config, loss=replace(config.loss, gan="hinge"))


def attention(config: TrainConfig) -> TrainConfig:
    """Name the decoder and the discriminator of the two variants that have self-attention in one."""
    model = replace(config.model, decoder="attention-decoder", discriminator="attention-discriminator")
    return replace(config, model=model)


def batch_tiles(config: TrainConfig) -> TrainConfig:
    """Take candidates from inside the batch; a threshold meant for the neighbours' features is dropped."""
    return replace(config, mixing=replace(config.mixing, candidates="batch", tau=None))


def nine_tiles(config: TrainConfig) -> TrainConfig:
    """Set nine tiles of 32 px and halves of the batch mixed with each other."""
    return replace(
        config, model=replace(config.model, image_size=96, tiles=9), mixing=replace(config.mixing, candidates="halves")
    )


def size_96(config: TrainConfig) -> TrainConfig:
    """Set images of 96 px: a code of 3 x 3 chunks, the middle ones shared out among the four quadrants."""
    return replace(config, model=replace(config.model, image_size=96))


def size_128(config: TrainConfig) -> TrainConfig:
    """Set images of 128 px: a code of 4 x 4 chunks, four a quadrant."""
    return replace(config, model=replace(config.model, image_size=128))


def hu(config: TrainConfig) -> TrainConfig:
    """Set eight chunks, halves of the batch, weights 10, 1, 1, and one learning rate."""
    return replace(
        config,
        model=replace(config.model, tiles=HU_CHUNKS, chunk=-(-config.model.chunk // 3)),
        loss=replace(config.loss, rec=10.0, adv=1.0, cls=1.0),
        mixing=replace(config.mixing, candidates="halves"),
        optim=replace(config.optim, discriminator_lr=config.optim.generator_lr),
    )
