"""Every system that can be trained by name: the thesis's, those of its Appendix D, and their parent.

A variant is a module `lorbms_fast.models.variants.<name>` and its line here. The module's `settings` turns settings of
the thesis's system into the variant's; its classes `Encoder`, `Decoder`, `Discriminator`, `Classifier`, as many as it
has, are networks that `ModelConfig` can name, also one by one and together with those of other variants.
"""

# variant -> what is different. No torch here: settings are checked against these names.
VARIANTS = {
    "thesis": "the system of the thesis",
    "author": "conventions of the author's program: lambda_j 0.25, one rank, a fresh batch an update, u's schedule",
    "hinge": "hinge losses for discriminator and generator",
    "coordconv-discriminator": "the discriminator is told coordinates",
    "attention-discriminator": "self-attention in the discriminator",
    "coordconv-attention-discriminator": "coordinates and self-attention in the discriminator",
    "attention-decoder": "self-attention in the decoder",
    "attention": "self-attention in decoder and discriminator",
    "global-local-discriminator": "the discriminator judges each quadrant together with the whole image",
    "broadcast-decoder": "spatial broadcast decoder",
    "transposed-decoder": "transposed convolutions instead of resize convolutions in the decoder",
    "rf46-encoder": "an encoder whose receptive field is the discriminator's",
    "squeezenet-classifier": "SqueezeNet instead of AlexNet as classifier, watched for collapse",
    "six-image-classifier": "the classifier sees mixed image, reference and all four candidates at once",
    "nine-tiles": "nine tiles of 96 px images, random mask, the batch mixed half with half",
    "batch-tiles": "candidates are the nearest quadrants inside the batch",
    "size-96": "images of 96 px",
    "size-128": "images of 128 px",
    "hu": "the parent: the mixing autoencoder of Hu et al.",
}
