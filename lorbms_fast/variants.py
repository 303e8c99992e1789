"""Every system that can be trained by name: the thesis's, those of its Appendix D, and their parent.

A variant is a line here and an entry of `lorbms_fast.models.variants`, which says what it is made of. Its networks can
be named by `ModelConfig`, also one by one and together with those of other variants.
"""

# variant -> what is different. No torch here: settings are checked against these names.
VARIANTS = {
    "thesis": "the system of the thesis",
    "author": "conventions of the author's program: lambda_j 0.25, one rank, a fresh batch an update, u's schedule",
    "hinge": "hinge losses for discriminator and generator",
    "coordconv-discriminator": "coordinates before every convolution of the discriminator, and self-attention (D.4)",
    "attention-discriminator": "self-attention in the discriminator (D.6)",
    "attention-decoder": "self-attention in the decoder (D.6)",
    "attention": "self-attention in decoder and discriminator (D.6)",
    "global-local-discriminator": "the discriminator judges a random patch together with the whole image (D.7)",
    "broadcast-decoder": "spatial broadcast decoder (D.5)",
    "transposed-decoder": "transposed convolutions instead of resize convolutions in the decoder",
    "rf46-encoder": "an encoder whose receptive field is the discriminator's (Section 3.6)",
    "squeezenet-classifier": "SqueezeNet instead of AlexNet as classifier (D.8)",
    "six-image-classifier": "the classifier sees mixed image, reference and all four candidates at once (D.3)",
    "nine-tiles": "nine tiles, each encoded on its own, random mask, the batch mixed half with half (D.1)",
    "batch-tiles": "candidates are the nearest quadrants inside the batch, by their codes (D.2)",
    "size-96": "images of 96 px",
    "size-128": "images of 128 px",
    "hu": "the parent: the mixing autoencoder of Hu et al.",
}
