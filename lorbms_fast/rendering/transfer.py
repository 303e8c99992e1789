"""Object transfer: chunks of one photo in the scene of another (thesis, Figure 4.3), at once or little by little."""

import torch
from torch import Tensor

from lorbms_fast.kernels.lorbms.chunk_mixing.reference import mix_chunks
from lorbms_fast.tiles import replaced_chunks
from lorbms_fast.types import Networks


@torch.inference_mode()
def transfer(networks: Networks, I_obj: Tensor, I_ref: Tensor, mask: Tensor) -> Tensor:
    """Transfer chunks: `I_mix = Dec(f_mix)`, `f_mix[i] = m_i ? Enc(I_obj)[i] : Enc(I_ref)[i]`.

    Images are (N, 3, S, S) in [-1, 1]; the mask (N, tiles) bool is True where the tile's chunks are taken from I_obj.
    """
    f_obj, f_ref = networks.enc(torch.cat([I_obj, I_ref])).chunk(2)
    return networks.dec(mix_chunks(f_ref, f_obj, replaced_chunks(mask, f_ref.shape[1])))


@torch.inference_mode()
def interpolation(networks: Networks, f_ref: Tensor, f_mix: Tensor, amounts: Tensor) -> Tensor:
    """Decode codes (N, chunks, chunk) between scenes and mixtures: `Dec((1 - a_k) f_ref + a_k f_mix)`, (K, N, 3, S, S).

    `amounts` (K,) are in [0, 1]: 0 gives `Dec(f_ref)`, the reconstruction, and 1 `Dec(f_mix)`, both exactly.
    """
    codes = torch.lerp(f_ref, f_mix, amounts[:, None, None, None])
    images: Tensor = networks.dec(codes.flatten(0, 1))
    return images.unflatten(0, codes.shape[:2])
