"""Object transfer: chunks of one photo in the scene of another (thesis, Figure 4.3), at once or little by little."""

import torch
from torch import Tensor

from lorbms_fast.kernels.chunk_mixing.definition import mix_chunks
from lorbms_fast.models import Networks


@torch.inference_mode()
def transfer(networks: Networks, I_obj: Tensor, I_ref: Tensor, mask: Tensor) -> Tensor:
    """`I_mix = Dec(f_mix)`, `f_mix[i] = m_i ? Enc(I_obj)[i] : Enc(I_ref)[i]`.

    Args:
        networks: only encoder and decoder are used.
        I_obj: (N, 3, S, S) in [-1, 1], where chunks are taken from.
        I_ref: (N, 3, S, S) in [-1, 1], where they go.
        mask: (N, 4) bool, True where the chunk is taken.

    Returns:
        (N, 3, S, S).
    """
    f_obj, f_ref = networks.enc(torch.cat([I_obj, I_ref])).chunk(2)
    I_mix: Tensor = networks.dec(mix_chunks(f_ref, f_obj, mask))
    return I_mix


def interpolate_chunks(f_ref: Tensor, f_obj: Tensor, mask: Tensor, amounts: Tensor) -> Tensor:
    """`f[k, i] = (1 - a_k m_i) f_ref[i] + a_k m_i f_obj[i]`: one code after the other on the way to the transfer's.

    Args:
        f_ref: code of the scene, (chunks, size).
        f_obj: code of the object's image, (chunks, size).
        mask: (chunks,) bool, True for the chunks that change.
        amounts: (K,) in [0, 1]; 0 gives f_ref, 1 gives `mix_chunks(f_ref, f_obj, mask)`, both exactly.

    Returns:
        (K, chunks, size).
    """
    return torch.lerp(f_ref, f_obj, amounts[:, None, None] * mask[:, None])


@torch.inference_mode()
def interpolation(networks: Networks, I_obj: Tensor, I_ref: Tensor, mask: Tensor, amounts: Tensor) -> Tensor:
    """The scenes that `interpolate_chunks` gives: from the scene's reconstruction to the transfer.

    Args:
        networks: only encoder and decoder are used.
        I_obj: (3, S, S) in [-1, 1].
        I_ref: (3, S, S) in [-1, 1].
        mask: (4,) bool.
        amounts: (K,) in [0, 1].

    Returns:
        (K, 3, S, S).
    """
    f_obj, f_ref = networks.enc(torch.stack([I_obj, I_ref]))
    images: Tensor = networks.dec(interpolate_chunks(f_ref, f_obj, mask, amounts))
    return images
