"""Triton kernels of the dense block; __init__.py says how they work together.

Maps lie in memory as (image, position, channel), a position being row * W + column. Sums, statistics and products
accumulate in float32. `STACK` counts all maps that the block has activated, C of its input and `MAPS` new ones;
`mean` and `rstd` are (image, STACK). A packed weight is (tap, channel of the stack, new map).
"""

import triton
import triton.language as tl


@triton.jit
def prepare(
    x, x_strides, stack, mean, rstd, weights, biases, packed, bias, positions, C, eps, activating,
    W: tl.constexpr, TAPS: tl.constexpr, L: tl.constexpr, G: tl.constexpr, STACK: tl.constexpr, NORM: tl.constexpr,
    CHANNELS_LAST: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_C: tl.constexpr, BLOCK_G: tl.constexpr, BLOCK_R: tl.constexpr,
):  # fmt: skip
    """Two things the first convolution waits for, in one launch.

    The first `activating` programs activate the block's input, the others pack weights and biases.
    """
    program = tl.program_id(0)
    if program < activating:
        _activate(x, x_strides, stack, mean, rstd, program, positions, C, eps, W, STACK, NORM, BLOCK_M, BLOCK_C)
    else:
        _pack(
            weights, biases, packed, bias, program - activating, C, TAPS, L, G, STACK, CHANNELS_LAST, BLOCK_R, BLOCK_G
        )  # fmt: skip


@triton.jit
def activate(
    x, x_strides, stack, mean, rstd, positions, C, eps,
    W: tl.constexpr, STACK: tl.constexpr, NORM: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """Activate C maps: program (image, block of channels)."""
    _activate(
        x, x_strides, stack, mean, rstd, tl.program_id(0), positions, C, eps, W, STACK, NORM, BLOCK_M, BLOCK_C
    )  # fmt: skip


@triton.jit
def _activate(
    x, x_strides, stack, mean, rstd, program, positions, C, eps,
    W: tl.constexpr, STACK: tl.constexpr, NORM: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    blocks = tl.cdiv(C, BLOCK_C)
    image = (program // blocks).to(tl.int64)
    c = (program % blocks) * BLOCK_C + tl.arange(0, BLOCK_C)
    maps = x + image * x_strides[0] + c[None, :] * x_strides[1]
    stack += image * positions * STACK
    average = tl.zeros((BLOCK_C,), tl.float32)
    r = average + 1
    if NORM:
        squares = tl.zeros((BLOCK_C,), tl.float32)
        for start in range(0, positions, BLOCK_M):
            p = start + tl.arange(0, BLOCK_M)
            inside = (p < positions)[:, None] & (c < C)[None, :]
            at = (p // W) * x_strides[2] + (p % W) * x_strides[3]
            values = tl.load(maps + at[:, None], mask=inside, other=0.0).to(tl.float32)
            average, squares = _joined(average, squares, start, values, inside, tl.minimum(BLOCK_M, positions - start))
        r = 1 / tl.sqrt(squares / positions + eps)
        tl.store(mean + image * STACK + c, average, mask=c < C)
        tl.store(rstd + image * STACK + c, r, mask=c < C)
    for start in range(0, positions, BLOCK_M):
        p = start + tl.arange(0, BLOCK_M)
        inside = (p < positions)[:, None] & (c < C)[None, :]
        at = (p // W) * x_strides[2] + (p % W) * x_strides[3]
        values = tl.load(maps + at[:, None], mask=inside, other=0.0).to(tl.float32)
        a = tl.maximum((values - average[None, :]) * r[None, :], 0.0)
        tl.store(stack + p[:, None] * STACK + c[None, :], a.to(stack.dtype.element_ty), mask=inside)


@triton.jit
def _joined(average, squares, seen, values, inside, n):
    """Mean and sum of squared deviations of `seen` values and n further ones (Chan et al., 1983)."""
    own = tl.sum(values, 0) / n
    deviations = tl.where(inside, values - own[None, :], 0.0)
    apart = own - average
    total = (seen + n).to(tl.float32)
    squares += tl.sum(deviations * deviations, 0) + apart * apart * (seen * (n / total))
    return average + apart * (n / total), squares


@triton.jit
def _pack(
    weights, biases, packed, bias, program, C,
    TAPS: tl.constexpr, L: tl.constexpr, G: tl.constexpr, STACK: tl.constexpr, CHANNELS_LAST: tl.constexpr,
    BLOCK_R: tl.constexpr, BLOCK_G: tl.constexpr,
):  # fmt: skip
    """Lay a layer's weight, (map, r), where `_convolve` reads it; what no layer reads is 0."""
    blocks = tl.cdiv(STACK * TAPS, BLOCK_R)
    r = (program % blocks) * BLOCK_R + tl.arange(0, BLOCK_R)
    o = tl.arange(0, BLOCK_G)
    for layer in tl.static_range(L):
        if program // blocks == layer:
            length = (C + layer * G) * TAPS
            inside = (r < length)[:, None] & (o < G)[None, :]
            values = tl.load(weights[layer] + o[None, :] * length + r[:, None], mask=inside, other=0.0)
            to = packed + _row(r, C + layer * G, TAPS, STACK, CHANNELS_LAST)[:, None] * (L * G) + layer * G + o[None, :]
            tl.store(to, values.to(packed.dtype.element_ty), mask=(r < STACK * TAPS)[:, None] & (o < G)[None, :])
            if program % blocks == 0:
                tl.store(bias + layer * G + o, tl.load(biases[layer] + o, mask=o < G).to(tl.float32), mask=o < G)


@triton.jit
def _row(r, width, TAPS: tl.constexpr, STACK: tl.constexpr, CHANNELS_LAST: tl.constexpr):
    """Row (tap, channel) of a packed weight that holds number r of each map of a weight that reads `width` channels.

    Numbers beyond the last are the channels that the weight does not read.
    """
    if CHANNELS_LAST:
        beyond = r - width * TAPS
        c = tl.where(beyond < 0, r % width, width + beyond // TAPS)
        tap = tl.where(beyond < 0, r // width, beyond % TAPS)
    else:
        c, tap = r // TAPS, r % TAPS
    return tap * STACK + c


@triton.jit
def _convolve(
    sums, x, w, image, p, inside, channels, out, outs,
    H: tl.constexpr, W: tl.constexpr, KERNEL: tl.constexpr, X_WIDTH: tl.constexpr,
    W_TAP: tl.constexpr, W_IN: tl.constexpr, W_OUT: tl.constexpr, FLIP: tl.constexpr,
    PRECISION: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    """Add to `sums` (positions p, maps out) what the first `channels` channels of x contribute through w.

    `FLIP` turns the kernel around, which with `W_IN` and `W_OUT` exchanged gives the transposed convolution.
    """
    row, column = p // W, p % W
    blocks = tl.cdiv(channels, BLOCK_K)
    for i in range(0, KERNEL * KERNEL * blocks):
        tap = i // blocks
        c = (i % blocks) * BLOCK_K + tl.arange(0, BLOCK_K)
        h, v = row + tap // KERNEL - KERNEL // 2, column + tap % KERNEL - KERNEL // 2
        there = inside & (h >= 0) & (h < H) & (v >= 0) & (v < W)
        at = (image * (H * W) + h * W + v) * X_WIDTH
        read = tl.load(x + at[:, None] + c[None, :], mask=there[:, None] & (c < channels)[None, :], other=0.0)
        of_tap = w + (KERNEL * KERNEL - 1 - tap if FLIP else tap) * W_TAP
        kernel = tl.load(
            of_tap + c[:, None] * W_IN + out[None, :] * W_OUT, mask=(c < channels)[:, None] & (out < outs)[None, :],
            other=0.0,
        )  # fmt: skip
        sums = tl.dot(read, kernel, sums, input_precision=PRECISION)
    return sums


@triton.jit
def convolve(
    x, w, bias, add, y, images, channels, outs,
    H: tl.constexpr, W: tl.constexpr, KERNEL: tl.constexpr, X_WIDTH: tl.constexpr, ADD_WIDTH: tl.constexpr,
    Y_WIDTH: tl.constexpr, W_TAP: tl.constexpr, W_IN: tl.constexpr, W_OUT: tl.constexpr, FLIP: tl.constexpr,
    PRECISION: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    """`y = bias + add + w * x` over all images: program (block of positions, block of maps). bias, add may be None."""
    q = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    out = tl.program_id(1) * BLOCK_N + tl.arange(0, BLOCK_N)
    inside = q < images * (H * W)
    image, p = (q // (H * W)).to(tl.int64), q % (H * W)
    kept = inside[:, None] & (out < outs)[None, :]
    sums = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    sums = _convolve(
        sums, x, w, image, p, inside, channels, out, outs,
        H, W, KERNEL, X_WIDTH, W_TAP, W_IN, W_OUT, FLIP, PRECISION, BLOCK_K,
    )  # fmt: skip
    if bias is not None:
        sums += tl.load(bias + out, mask=out < outs, other=0.0)[None, :]
    q = q.to(tl.int64)
    if add is not None:
        sums += tl.load(add + q[:, None] * ADD_WIDTH + out[None, :], mask=kept, other=0.0).to(tl.float32)
    tl.store(y + q[:, None] * Y_WIDTH + out[None, :], sums.to(y.dtype.element_ty), mask=kept)


@triton.jit
def solve(
    y, stack, w, mean, rstd, first, last, eps,
    H: tl.constexpr, W: tl.constexpr, KERNEL: tl.constexpr, C: tl.constexpr, G: tl.constexpr, MAPS: tl.constexpr,
    NORM: tl.constexpr, SPLIT: tl.constexpr, PRECISION: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_G: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    """Forward substitution in layers first .. last - 1 of one image: program (image,), or (image, tile) if `SPLIT`.

    y comes with what the block's input contributes and leaves complete. A layer reads what earlier ones stored, so a
    barrier parts them; a `SPLIT` launch computes one layer, and leaves a norm to `activate`.
    """
    STACK: tl.constexpr = C + MAPS
    image = tl.program_id(0).to(tl.int64)
    y += image * (H * W * MAPS)
    stack += image * (H * W * STACK)
    o = tl.arange(0, BLOCK_G)
    from_tile = tl.program_id(1) if SPLIT else 0
    to_tile = from_tile + 1 if SPLIT else tl.cdiv(H * W, BLOCK_M)
    for layer in range(first, last):
        average = tl.zeros((BLOCK_G,), tl.float32)
        squares = tl.zeros((BLOCK_G,), tl.float32)
        for tile in range(from_tile, to_tile):
            p = tile * BLOCK_M + tl.arange(0, BLOCK_M)
            kept = (p < H * W)[:, None] & (o < G)[None, :]
            at_y = y + p[:, None] * MAPS + layer * G + o[None, :]
            sums = tl.load(at_y, mask=kept, other=0.0).to(tl.float32)
            sums = _convolve(
                sums, stack + C, w + C * MAPS + layer * G, 0, p, p < H * W, layer * G, o, G,
                H, W, KERNEL, STACK, STACK * MAPS, MAPS, 1, False, PRECISION, BLOCK_K,
            )  # fmt: skip
            maps = sums.to(y.dtype.element_ty)
            tl.store(at_y, maps, mask=kept)
            values = maps.to(tl.float32)
            if NORM:
                n = tl.minimum(BLOCK_M, H * W - tile * BLOCK_M)
                average, squares = _joined(average, squares, tile * BLOCK_M, values, kept, n)
            else:
                a = tl.maximum(values, 0.0).to(stack.dtype.element_ty)
                tl.store(stack + p[:, None] * STACK + C + layer * G + o[None, :], a, mask=kept)
        if NORM and not SPLIT:
            tl.debug_barrier()
            r = 1 / tl.sqrt(squares / (H * W) + eps)
            tl.store(mean + image * STACK + C + layer * G + o, average, mask=o < G)
            tl.store(rstd + image * STACK + C + layer * G + o, r, mask=o < G)
            for tile in range(from_tile, to_tile):
                p = tile * BLOCK_M + tl.arange(0, BLOCK_M)
                kept = (p < H * W)[:, None] & (o < G)[None, :]
                values = tl.load(y + p[:, None] * MAPS + layer * G + o[None, :], mask=kept, other=0.0).to(tl.float32)
                a = tl.maximum((values - average[None, :]) * r[None, :], 0.0).to(stack.dtype.element_ty)
                tl.store(stack + p[:, None] * STACK + C + layer * G + o[None, :], a, mask=kept)
        tl.debug_barrier()


@triton.jit
def solve_transposed(
    grad_y, grad_stack, g, y, w, mean, rstd, first, last,
    H: tl.constexpr, W: tl.constexpr, KERNEL: tl.constexpr, C: tl.constexpr, G: tl.constexpr, MAPS: tl.constexpr,
    NORM: tl.constexpr, SPLIT: tl.constexpr, PRECISION: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_G: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    """Back substitution for g, the gradient of the new maps, in layers last - 1 .. first; programs as in `solve`.

    `grad_y` and `grad_stack` are what comes from outside to the new maps and to the activated stack; either may be
    None. A `SPLIT` launch leaves in g what arrives at the layer's activation, and a norm to `activate_backward`.
    """
    STACK: tl.constexpr = C + MAPS
    image = tl.program_id(0).to(tl.int64)
    new = image * (H * W * MAPS)
    g += new
    y += new
    o = tl.arange(0, BLOCK_G)
    from_tile = tl.program_id(1) if SPLIT else 0
    to_tile = from_tile + 1 if SPLIT else tl.cdiv(H * W, BLOCK_M)
    for step in range(first, last):
        layer = last - 1 - (step - first)
        sum_d = tl.zeros((BLOCK_G,), tl.float32)
        sum_dz = tl.zeros((BLOCK_G,), tl.float32)
        average = tl.zeros((BLOCK_G,), tl.float32)
        r = average + 1
        if NORM and not SPLIT:
            average = tl.load(mean + image * STACK + C + layer * G + o, mask=o < G, other=0.0)
            r = tl.load(rstd + image * STACK + C + layer * G + o, mask=o < G, other=0.0)
        for tile in range(from_tile, to_tile):
            p = tile * BLOCK_M + tl.arange(0, BLOCK_M)
            kept = (p < H * W)[:, None] & (o < G)[None, :]
            at = p[:, None] * MAPS + layer * G + o[None, :]
            sums = tl.zeros((BLOCK_M, BLOCK_G), tl.float32)
            if grad_stack is not None:
                of_image = grad_stack + image * (H * W * STACK) + C + layer * G
                sums += tl.load(of_image + p[:, None] * STACK + o[None, :], mask=kept, other=0.0).to(tl.float32)
            sums = _convolve(
                sums, g + (layer + 1) * G, w + (C + layer * G) * MAPS + (layer + 1) * G, 0, p, p < H * W,
                MAPS - (layer + 1) * G, o, G, H, W, KERNEL, MAPS, STACK * MAPS, 1, MAPS, True, PRECISION, BLOCK_K,
            )  # fmt: skip
            if not (NORM and SPLIT):
                z = (tl.load(y + at, mask=kept, other=0.0).to(tl.float32) - average[None, :]) * r[None, :]
                sums = tl.where(kept & (z > 0), sums, 0.0)
                if NORM:
                    sum_d += tl.sum(sums, 0)
                    sum_dz += tl.sum(sums * z, 0)
                elif grad_y is not None:
                    sums += tl.load(grad_y + new + at, mask=kept, other=0.0).to(tl.float32)
            tl.store(g + at, sums.to(g.dtype.element_ty), mask=kept)
        if NORM and not SPLIT:
            tl.debug_barrier()
            for tile in range(from_tile, to_tile):
                p = tile * BLOCK_M + tl.arange(0, BLOCK_M)
                kept = (p < H * W)[:, None] & (o < G)[None, :]
                at = p[:, None] * MAPS + layer * G + o[None, :]
                z = (tl.load(y + at, mask=kept, other=0.0).to(tl.float32) - average[None, :]) * r[None, :]
                d = tl.load(g + at, mask=kept, other=0.0).to(tl.float32)
                d = r[None, :] * (d - (sum_d / (H * W))[None, :] - z * (sum_dz / (H * W))[None, :])
                if grad_y is not None:
                    d += tl.load(grad_y + new + at, mask=kept, other=0.0).to(tl.float32)
                tl.store(g + at, d.to(g.dtype.element_ty), mask=kept)
        tl.debug_barrier()


@triton.jit
def activate_backward(
    grad, x, x_strides, mean, rstd, add, grad_x, grad_x_strides, positions, C,
    W: tl.constexpr, WIDTH: tl.constexpr, ADD_WIDTH: tl.constexpr, STACK: tl.constexpr, NORM: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """`grad_x = add + activation'(x) grad` for C maps: program (image, block of channels). add may be None.

    grad and grad_x may be the same memory.
    """
    blocks = tl.cdiv(C, BLOCK_C)
    image = (tl.program_id(0) // blocks).to(tl.int64)
    c = (tl.program_id(0) % blocks) * BLOCK_C + tl.arange(0, BLOCK_C)
    x += image * x_strides[0]
    grad_x += image * grad_x_strides[0]
    grad += image * positions * WIDTH
    average = tl.zeros((BLOCK_C,), tl.float32)
    r = average + 1
    sum_d = tl.zeros((BLOCK_C,), tl.float32)
    sum_dz = tl.zeros((BLOCK_C,), tl.float32)
    if NORM:
        average = tl.load(mean + image * STACK + c, mask=c < C, other=0.0)
        r = tl.load(rstd + image * STACK + c, mask=c < C, other=0.0)
        for start in range(0, positions, BLOCK_M):
            p = start + tl.arange(0, BLOCK_M)
            kept = (p < positions)[:, None] & (c < C)[None, :]
            at = ((p // W) * x_strides[2] + (p % W) * x_strides[3])[:, None] + c[None, :] * x_strides[1]
            z = (tl.load(x + at, mask=kept, other=0.0).to(tl.float32) - average[None, :]) * r[None, :]
            d = tl.load(grad + p[:, None] * WIDTH + c[None, :], mask=kept, other=0.0).to(tl.float32)
            d = tl.where(kept & (z > 0), d, 0.0)
            sum_d += tl.sum(d, 0)
            sum_dz += tl.sum(d * z, 0)
    for start in range(0, positions, BLOCK_M):
        p = start + tl.arange(0, BLOCK_M)
        kept = (p < positions)[:, None] & (c < C)[None, :]
        at = ((p // W) * x_strides[2] + (p % W) * x_strides[3])[:, None] + c[None, :] * x_strides[1]
        z = (tl.load(x + at, mask=kept, other=0.0).to(tl.float32) - average[None, :]) * r[None, :]
        d = tl.load(grad + p[:, None] * WIDTH + c[None, :], mask=kept, other=0.0).to(tl.float32)
        d = tl.where(z > 0, d, 0.0)
        if NORM:
            d = r[None, :] * (d - (sum_d / positions)[None, :] - z * (sum_dz / positions)[None, :])
        if add is not None:
            q = image * positions + p
            d += tl.load(add + q[:, None] * ADD_WIDTH + c[None, :], mask=kept, other=0.0).to(tl.float32)
        to = ((p // W) * grad_x_strides[2] + (p % W) * grad_x_strides[3])[:, None] + c[None, :] * grad_x_strides[1]
        tl.store(grad_x + to, d.to(grad_x.dtype.element_ty), mask=kept)


@triton.jit
def weight_gradient(
    g, stack, partial, images, part,
    H: tl.constexpr, W: tl.constexpr, KERNEL: tl.constexpr, C: tl.constexpr, G: tl.constexpr, MAPS: tl.constexpr,
    PRECISION: tl.constexpr, BLOCK_C: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    """Correlate g with the stack over one part of all positions: program (block of weights, tap, part).

    `partial` is (parts, taps + 1, STACK, MAPS) float32. What lies behind the last tap is the gradient of the biases: of
    weights that read a channel of ones. Blocks wholly above the diagonal, where no layer reads, are left out.
    """
    STACK: tl.constexpr = C + MAPS
    TAPS: tl.constexpr = KERNEL * KERNEL
    columns = tl.cdiv(MAPS, BLOCK_N)
    c = (tl.program_id(0) // columns) * BLOCK_C + tl.arange(0, BLOCK_C)
    out = (tl.program_id(0) % columns) * BLOCK_N + tl.arange(0, BLOCK_N)
    tap = tl.program_id(1)
    last_layer = (tl.minimum((tl.program_id(0) % columns + 1) * BLOCK_N, MAPS) - 1) // G
    lowest = (tl.program_id(0) // columns) * BLOCK_C
    if (lowest < C + last_layer * G) and (tap < TAPS or lowest == 0):
        sums = tl.zeros((BLOCK_C, BLOCK_N), tl.float32)
        end = tl.minimum((tl.program_id(2) + 1) * part, images * (H * W))
        for start in range(tl.program_id(2) * part, end, BLOCK_K):
            q = start + tl.arange(0, BLOCK_K)
            h = (q % (H * W)) // W + tap // KERNEL - KERNEL // 2
            v = q % W + tap % KERNEL - KERNEL // 2
            there = (q < end) & (h >= 0) & (h < H) & (v >= 0) & (v < W)
            at = (q // (H * W)).to(tl.int64) * (H * W) + h * W + v
            read = tl.load(
                stack + at[:, None] * STACK + c[None, :], mask=there[:, None] & (c < STACK)[None, :], other=0
            )
            read = tl.where(tap == TAPS, tl.full(read.shape, 1, read.dtype), read)
            sent = tl.load(
                g + q.to(tl.int64)[:, None] * MAPS + out[None, :], mask=(q < end)[:, None] & (out < MAPS)[None, :],
                other=0,
            )  # fmt: skip
            sums = tl.dot(tl.trans(read), sent, sums, input_precision=PRECISION)
        at = ((tl.program_id(2) * (TAPS + 1) + tap).to(tl.int64) * STACK + c) * MAPS
        kept = (c < STACK)[:, None] & (out < MAPS)[None, :]
        tl.store(partial + at[:, None] + out[None, :], sums, mask=kept)


@triton.jit
def unpack(
    partial, grad_weights, grad_biases, parts, C,
    TAPS: tl.constexpr, L: tl.constexpr, G: tl.constexpr, STACK: tl.constexpr, CHANNELS_LAST: tl.constexpr,
    BLOCK_R: tl.constexpr, BLOCK_G: tl.constexpr,
):  # fmt: skip
    """Sum the parts of `weight_gradient` and lay them out as L weights and biases: the inverse of packing."""
    blocks = tl.cdiv((STACK - G) * TAPS, BLOCK_R)
    program = tl.program_id(0)
    r = (program % blocks) * BLOCK_R + tl.arange(0, BLOCK_R)
    o = tl.arange(0, BLOCK_G)
    for layer in tl.static_range(L):
        if program // blocks == layer:
            length = (C + layer * G) * TAPS
            inside = (r < length)[:, None] & (o < G)[None, :]
            row = _row(r, C + layer * G, TAPS, STACK, CHANNELS_LAST)
            at = partial + row[:, None] * (L * G) + layer * G + o[None, :]
            sums = tl.zeros((BLOCK_R, BLOCK_G), tl.float32)
            for _ in range(parts):
                sums += tl.load(at, mask=inside, other=0.0)
                at += (TAPS + 1) * STACK * L * G
            to = grad_weights[layer]
            tl.store(to + o[None, :] * length + r[:, None], sums.to(to.dtype.element_ty), mask=inside)
            if program % blocks == 0:
                at_bias = partial + TAPS * STACK * L * G + layer * G + o
                sum_b = tl.zeros((BLOCK_G,), tl.float32)
                for _ in range(parts):
                    sum_b += tl.load(at_bias, mask=o < G, other=0.0)
                    at_bias += (TAPS + 1) * STACK * L * G
                to_b = grad_biases[layer]
                tl.store(to_b + o, sum_b.to(to_b.dtype.element_ty), mask=o < G)
