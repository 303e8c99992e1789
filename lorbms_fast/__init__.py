"""lorbms-fast: Learning Object Representations by Mixing Scenes, trained as fast as the hardware allows.

What a user runs is in :mod:`lorbms_fast.cli`; layers for other people's models are in :mod:`lorbms_fast.kernels`;
image stores and batches are in :mod:`lorbms_fast.dataloader`.
"""

from importlib.metadata import version

__version__ = version("lorbms-fast")
