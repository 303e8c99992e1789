"""Object transfer: chunks of one photo in the scene of another (thesis, Figure 4.3), at once or little by little."""

import torch
from torch import Tensor

from lorbms_fast.kernels.lorbms.chunk_mixing.reference import mix_chunks
from lorbms_fast.tiles import replaced_chunks
from lorbms_fast.types import Networks


@torch.inference_mode()
def transfer(networks: Networks, I_obj: Tensor, I_ref: Tensor, mask: Tensor) -> Tensor:
    """`I_mix = Dec(f_mix)`, `f_mix[i] = m_i ? Enc(I_obj)[i] : Enc(I_ref)[i]`.

    Args:
        networks: only encoder and decoder are used.
        I_obj: (N, 3, S, S) in [-1, 1], where chunks are taken from.
        I_ref: (N, 3, S, S) in [-1, 1], where they go.
        mask: (N, 4) bool, True where the quadrant's chunk is taken; or (N, tiles).

    Returns:
        (N, 3, S, S).
    """
    f_obj, f_ref = networks.enc(torch.cat([I_obj, I_ref])).chunk(2)
    I_mix: Tensor = networks.dec(mix_chunks(f_ref, f_obj, replaced_chunks(mask, f_ref.shape[1])))
    return I_mix


@torch.inference_mode()
def interpolation(networks: Networks, f_ref: Tensor, f_mix: Tensor, amounts: Tensor) -> Tensor:
    """Decode codes on the way from scenes to their mixtures: `Dec((1 - a_k) f_ref + a_k f_mix)`.

    Chunks that f_mix has from f_ref stay as they are, the others go little by little.

    Args:
        networks: only the decoder is used.
        f_ref: codes of the scenes, (N, chunks, chunk).
        f_mix: their mixed codes, (N, chunks, chunk).
        amounts: (K,) in [0, 1]; 0 gives `Dec(f_ref)`, the reconstruction, and 1 `Dec(f_mix)`, both exactly.

    Returns:
        (K, N, 3, S, S).
    """
    codes = torch.lerp(f_ref, f_mix, amounts[:, None, None, None])
    images: Tensor = networks.dec(codes.flatten(0, 1))
    return images.unflatten(0, codes.shape[:2])
