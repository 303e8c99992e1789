"""Every setting of a run, once: one tree of dataclasses, and presets by name.

The command line, TOML files and the `config.json` of a run all read and write this tree. pydantic checks every value
where it is declared, whichever way it came.
"""

import dataclasses
import json
import tomllib
from dataclasses import field
from itertools import accumulate
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from lorbms_fast.errors import UserError, one_line
from lorbms_fast.variants import VARIANTS

LONGEST = 16 << 10
"""Max. bytes of a settings file, ten times what all settings take: nonsense may take the square of its length."""
SAID = {
    "unexpected_keyword_argument": "there is no such setting",
    "dataclass_type": "should be a table of settings",
    "tuple_type": "should be a list",
    "missing": "is missing",
}
"""What is said of a setting in place of pydantic's words, which are those of Python."""
SHOWN = 80
"""Max. characters of a wrong value in a message."""

INSTANCE_NORM_EPS = 1e-9
"""Number that the author's instance norms add to the variance."""

Precision = Literal["float32", "tf32", "bfloat16", "float16"]


def _formerly(old: str, new: str) -> BeforeValidator:
    """Read a value as what it is called now: runs before version 0.2 may say it the old way."""
    return BeforeValidator(lambda value: new if value == old else value)


def _no_truth_value(value: object) -> object:
    """Refuse true and false, which Python takes for 1 and 0."""
    if isinstance(value, bool):
        raise ValueError("should be a number")
    return value


Kernels = Literal["auto", "triton", "torch"]
Impl = Annotated[Literal["reference", "fast"], _formerly("torch", "fast")]
"""Form of networks and iteration."""
BatchNorm = Annotated[Literal["per-process", "synchronized"], _formerly("synchronised", "synchronized")]
OnDivergence = Annotated[Literal["stop", "rollback"], _formerly("skip", "rollback")]
Whole = Annotated[int, BeforeValidator(_no_truth_value)]
Real = Annotated[float, BeforeValidator(_no_truth_value)]
Natural = Annotated[Whole, Field(ge=0)]
Count = Annotated[Whole, Field(ge=1, le=10**12)]
Size = Annotated[Whole, Field(ge=1, le=65_536)]
Even = Annotated[Whole, Field(ge=2, le=65_536, multiple_of=2)]
Layers = Annotated[Whole, Field(ge=1, le=1000)]
Weight = Annotated[Real, Field(ge=0, allow_inf_nan=False)]
Rate = Annotated[Real, Field(gt=0, allow_inf_nan=False)]
Epochs = Annotated[Rate, Field(le=1e6)]
Decay = Annotated[Real, Field(ge=0, lt=1)]


def _known_variant(name: str) -> str:
    if name not in VARIANTS:
        raise ValueError(f"choose one of {', '.join(VARIANTS)}")
    return name


Part = Annotated[str, AfterValidator(_known_variant)]
"""The name of the variant whose network is used."""

STRICT = ConfigDict(extra="forbid", use_attribute_docstrings=True)
"""Settings are those that are declared, and their docstrings the help of their options."""


@dataclass(frozen=True, config=STRICT)
class ModelConfig:
    """The four networks and their sizes; the defaults are the thesis's (Tables 3.1 to 3.6)."""

    encoder: Part = "thesis"
    """Variant whose encoder is used; `lorbms-fast info --variant NAME` shows it."""
    decoder: Part = "thesis"
    """Variant whose decoder is used."""
    discriminator: Part = "thesis"
    """Variant whose discriminator is used."""
    classifier: Part = "thesis"
    """Variant whose classifier is used."""

    image_size: Annotated[Whole, Field(ge=32, le=4096, multiple_of=32)] = 64
    """Side of the square images in pixels, a multiple of 32."""
    stem: Size = 48
    """Maps of the encoder's first convolution."""
    growth: Size = 16
    """Maps that each layer of a dense block appends."""
    layers: tuple[Layers, Layers, Layers, Layers, Layers] = (4, 5, 7, 10, 12)
    """Layers of the encoder's dense blocks; the decoder has them in reverse order."""
    chunk: Size = 192
    """Numbers that describe one quadrant."""
    tiles: Size = 4
    """Parts of an image that are replaced each on its own: its four quadrants, or a grid of 9 or 16."""
    discriminator_width: Size = 42
    """Maps of the discriminator's first convolution; each further one doubles them."""
    classifier_widths: tuple[Even, Even, Even, Even, Even] = (96, 256, 384, 384, 256)
    """Maps of the classifier's five convolutions, even numbers: three of them work in two halves, as AlexNet's."""
    classifier_hidden: Size = 4096
    """Units of the classifier's two hidden fully connected layers."""
    initial_values: Literal["thesis", "he"] = "thesis"
    """Spread of the first weights of encoder and decoder: the thesis's, or He's (2015) in all but the transitions up,
    which learns sooner where the rate is high."""

    @property
    def chunks(self) -> int:
        """Chunks of a code: one for every 32 x 32 pixels."""
        return (self.image_size // 32) ** 2

    @property
    def encoder_widths(self) -> tuple[int, ...]:
        """Maps after each dense block of the encoder: 112, 192, 304, 464, 656."""
        return tuple(accumulate((layers * self.growth for layers in self.layers), initial=self.stem))[1:]

    @property
    def decoder_widths(self) -> tuple[int, ...]:
        """Maps each transition up makes: 656, 464, 304, 192, 112."""
        return tuple(reversed(self.encoder_widths))

    @property
    def classifier_positions(self) -> int:
        """Positions of the maps that the classifier's first fully connected layer reads: 5 x 5."""
        side = (self.image_size - 8) // 2 + 1
        for _ in range(2):
            side = (side - 3) // 2 + 1
        return (side - 1) ** 2


@dataclass(frozen=True, config=STRICT)
class LossConfig:
    """Weights of the losses (thesis, Section 3.4)."""

    rec: Weight = 0.904
    """Weight of L_rec in L_G."""
    adv: Weight = 0.052
    """Weight of L_adv in L_G."""
    cls: Weight = 0.044
    """Weight of L_cls in L_G."""
    lambdas: tuple[Weight, Weight, Weight, Weight] = (1.0, 1.0, 1.0, 1.0)
    """Weights lambda_j of the four candidates in L_cls; the author's program has 0.25 each. Classifiers that see all
    images at once have one answer, which none of them weighs."""
    gan: Literal["cross-entropy", "hinge"] = "cross-entropy"
    """Adversarial losses: sigmoid cross entropies (thesis), or hinge losses as SAGAN has them."""


@dataclass(frozen=True, config=STRICT)
class MixingConfig:
    """Drawing of candidates, and choice of the quadrants they replace (Algorithm 1)."""

    tau: Weight | None = None
    """Threshold on squared L2 distances; by default the one stored with the neighbours."""
    candidates: Literal["independent", "shared-rank", "batch", "halves"] = "independent"
    """Draw each quadrant's candidate from its ten neighbours on its own (thesis), or one rank of the nearest nine for
    all four (the author's program); take the nearest of the batch by their codes; or mix each image of the batch's
    first half with its counterpart in the second, by a random mask."""


@dataclass(frozen=True, config=STRICT)
class OptimConfig:
    """Adam for the three optimizers, and the conventions in which thesis and author's program differ."""

    generator_lr: Rate = 2e-4
    """Learning rate of encoder and decoder."""
    discriminator_lr: Rate = 4e-4
    """Learning rate of the discriminator."""
    classifier_lr: Rate = 2e-4
    """Initial learning rate of the classifier."""
    classifier_decay: Rate = 0.9
    """Factor on the classifier's learning rate, once every `classifier_decay_every` iterations."""
    classifier_decay_every: Count = 20_000
    """Iterations between two decays of the classifier's learning rate."""
    betas: tuple[Decay, Decay] = (0.5, 0.999)
    """Adam's decay rates."""
    sn_power_iterations: tuple[Count, Count] = (1, 1)
    """Steps of the power iteration after each training iteration in (decoder, discriminator); the author's program
    comes to (9, 2)."""
    sn_gradient: Literal["constant", "through"] = "constant"
    """Gradient of spectral norm: u' and v are constants in the backward (Miyato et al.), or differentiated (the
    author's program)."""
    batches: Literal["one", "fresh"] = "one"
    """One batch for an iteration's four updates (thesis), or a fresh one for each (the author's program)."""


@dataclass(frozen=True, config=STRICT)
class EvaluationConfig:
    """Mixed scenes against real images at the end of every epoch (Figure 3.10); by default none are made."""

    inception: str | None = None
    """Inception weights of 2015 by path, for FID and IS."""
    features: str | None = None
    """Instead of Inception: efficientnet-lite0, descriptor, deepcluster, timm:MODEL or torchvision:MODEL."""
    weights: str | None = None
    """Weights of these features, where they need some."""
    stores: tuple[str, ...] = ()
    """Image stores with neighbours to measure on, by path (the thesis: tr_v6 and te_v2); by default the run's own."""
    epochs: Count = 1
    """Epochs between two measurements."""


@dataclass(frozen=True, config=STRICT)
class TrainConfig:
    """A training run."""

    model: ModelConfig = field(default_factory=ModelConfig)
    """Sizes of the networks."""
    loss: LossConfig = field(default_factory=LossConfig)
    """Weights of the losses."""
    mixing: MixingConfig = field(default_factory=MixingConfig)
    """Drawing and mixing of candidates."""
    optim: OptimConfig = field(default_factory=OptimConfig)
    """Optimizers."""
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    """Measurements at the end of an epoch."""
    batch_size: Count = 12
    """Reference images an iteration."""
    epochs: Epochs = 50
    """Passes over the store; a fraction ends inside a pass. Given alone, instead of iterations that were set before."""
    iterations: Count | None = None
    """Length in iterations, instead of epochs."""
    seed: Natural = 0
    """Seed of the initial values, of the order of the images and of the candidates drawn."""
    impl: Impl = "fast"
    """Form of the networks that compute: fast, or the plain reference. Same losses, same checkpoints."""
    precision: Literal["auto", "float32", "tf32", "bfloat16", "float16"] = "auto"
    """Arithmetic of convolutions and matrix products; statistics, losses and optimizers stay float32. auto is bfloat16
    on a GPU, float16 before Ampere, and float32 on a CPU; tf32 is float32 with products of TensorFloat-32; float16
    scales its losses."""
    graphs: Literal["auto", "on", "off"] = "auto"
    """Whole iterations as CUDA graphs, from images that are resident: auto does so on a GPU. on insists; a CPU, which
    has no graphs, then runs the same code without."""
    kernels: Kernels = "auto"
    """Forms of operations on a GPU: auto takes, of our Triton kernels and the fused torch form, the fastest that first
    use found right; triton stops where no kernel is right; torch runs no Triton at all."""
    compile: tuple[Literal["dsc", "cls"], ...] = ()
    """Networks that torch.compile takes over: the discriminator `dsc`, the classifier `cls`. By default none: on a CPU
    it gains nothing, on a GPU nobody has measured it; encoder and decoder are kernels of ours either way."""
    batch_norm: BatchNorm = "per-process"
    """Batch norm of the classifier where several processes train: by each process's own batch (as the thesis's, whose
    batch is one process's), or by all their batches together."""
    device: str = "auto"
    """`cpu`, `cuda`, `cuda:1`; auto takes a GPU when there is one."""
    images: Literal["auto", "mapped", "resident", "streamed"] = "auto"
    """Reading of images: from the store's mapped files, from the device's memory, or streamed, decoded from the
    photographs at every step (any image size); auto is resident on a GPU that has room, else mapped."""
    on_divergence: OnDivergence = "stop"
    """Answer to a loss or a gradient that is not finite: stop, or go back to the last checkpoint and on with half the
    learning rates, three times at most. Images and state are kept in RUN/divergence."""
    log_every: Annotated[Count, Field(le=10**6)] = 20
    """Iterations between two entries of the log."""
    sheet_every: Count = 1000
    """Iterations between two sample sheets."""
    checkpoint_every: Count = 1000
    """Iterations between two checkpoints."""
    keep_checkpoints: Count = 3
    """Number of newest checkpoints that stay on disk, beside the one with the lowest L_rec_hat before it."""


PRESETS = {
    "thesis": TrainConfig(),
    "demo": TrainConfig(
        model=ModelConfig(
            stem=12,
            growth=16,
            layers=(1, 1, 2, 2, 2),
            chunk=96,
            discriminator_width=16,
            classifier_widths=(32, 64, 96, 96, 64),
            classifier_hidden=256,
            initial_values="he",  # else some hundred photographs stay one grey at this rate (docs/learning.md)
        ),
        # With so few photographs L_adv makes stripes, and more L_cls brings more of the candidates across; Adam's
        # momentum of 0.9 spares the demo hundreds of iterations of one grey for all (docs/learning.md).
        loss=LossConfig(adv=0.0, cls=0.132),
        optim=OptimConfig(generator_lr=1e-3, discriminator_lr=4e-4, classifier_lr=5e-4, betas=(0.9, 0.999)),
        batch_size=6,
        iterations=900,
        log_every=5,
        sheet_every=100,
        checkpoint_every=100,
        keep_checkpoints=9,
    ),
}


def preset_named(name: str, changes: Path | None = None, loss: LossConfig | None = None) -> TrainConfig:
    """Find a preset, changed by a file of settings as `read_config` does; UserError where there is none.

    `loss` takes the place of the preset's own weights before the file does.
    """
    if name not in PRESETS:
        raise UserError(f"there is no preset '{name}': choose one of {', '.join(PRESETS)}")
    preset = PRESETS[name] if loss is None else dataclasses.replace(PRESETS[name], loss=loss)
    return preset if changes is None else read_config(changes, preset)


def to_json(config: TrainConfig) -> str:
    """Write a config as JSON."""
    return json.dumps(dataclasses.asdict(config), indent=2)


def read_config(path: Path, base: TrainConfig) -> TrainConfig:
    """Read a TOML or JSON file of settings; what it does not name stays as in `base`, but iterations beside epochs.

    Raises UserError if it is missing or malformed, or names a field that does not exist or a value it cannot have.
    """
    language = "JSON" if path.suffix == ".json" else "TOML"
    try:
        if (size := path.stat().st_size) > LONGEST:
            raise ValueError(f"it has {size:,} bytes, more than any settings")
        text = path.read_text(encoding="utf-8-sig")  # editors of Windows mark their files
        settings = json.loads(text) if language == "JSON" else tomllib.loads(text)
        if not isinstance(settings, dict):
            raise ValueError("it holds no table of settings")
        if "epochs" in settings:
            settings = {"iterations": None} | settings
        return TypeAdapter(TrainConfig).validate_python(merged(dataclasses.asdict(base), settings))
    except OSError as error:
        raise UserError(f"cannot read the settings {path}: {error.strerror}") from error
    except ValidationError as error:
        raise UserError(f"{path}: {describe(error)}") from error
    except ValueError as error:
        raise UserError(f"{path} is not well-formed {language}: {error}") from error
    except RecursionError as error:
        raise UserError(f"{path} is not well-formed {language}: it is nested too deeply") from error


def describe(error: ValidationError, as_options: bool = False, within: str = "") -> str:
    """Say on one line which settings, or options, cannot be, and why; `within` is put before their names."""
    said = []
    for one in error.errors():
        name = within + ".".join(str(part) for part in one["loc"] if not (as_options and isinstance(part, int)))
        name = f"--{name.replace('_', '-')}" if as_options else name
        value = "" if one["type"] == "missing" else f"{' ' if as_options else ' = '}{_shown(one['input'])}"
        said.append(f"{name}{value}: {SAID.get(one['type'], one['msg'].removeprefix('Value error, '))}")
    return "; ".join(said)


def _shown(value: object) -> str:
    try:
        return one_line(str(value), SHOWN)
    except RecursionError:
        return "something nested too deeply"


def merged(base: dict[str, Any], settings: dict[str, Any]) -> dict[str, Any]:
    """Put settings in place of a base's, table by table; what they do not name stays the base's.

    So files of before a setting came have its default, which is what was done then.
    """
    both = base | settings
    for name in base.keys() & settings.keys():
        if isinstance(base[name], dict) and isinstance(settings[name], dict):
            both[name] = merged(base[name], settings[name])
    return both
