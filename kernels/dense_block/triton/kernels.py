"""Triton kernels of the dense block; __init__.py says how they work together.

Maps lie in memory as (image, position, channel), a position being row * W + column. Sums, statistics and products
accumulate in float32. `STACK` counts all maps that a layer may read, C of the block's input and `MAPS` new ones. With
a norm, maps are read from a stack of their activations, (image, position, STACK), and `mean` and `rstd` are (image,
STACK); without one, they are rectified as they are read. Packed weights are the layers' one after the other, layer l's
being (new map, tap, channel) with `C + l * G` channels.
"""

import triton
import triton.language as tl


@triton.jit
def _rectified(x):
    """ReLU, by way of float32 as the interpreter does not compare bfloat16; NaN stays."""
    wide = x.to(tl.float32)
    return tl.where(wide < 0, 0.0, wide).to(x.dtype)


@triton.jit
def _clear(counters, count):
    """Set counters to 0, each by one program of the grid's first axis."""
    for i in range(tl.program_id(0), count, tl.num_programs(0)):
        tl.store(counters + i, 0)


@triton.jit
def _last(counter, programs):
    """Count this program in: is it the last of so many? Then it sees what the others have stored, and no one waits."""
    tl.debug_barrier()
    return tl.atomic_add(counter, 1, sem="acq_rel") == programs - 1


@triton.jit
def activate(
    x, x_strides, stack, mean, rstd, counters, count, positions, C, eps,
    W: tl.constexpr, STACK: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """Normalize and rectify C maps: program (image, block of channels). The counters are for launches that follow."""
    _clear(counters, count)
    blocks = tl.cdiv(C, BLOCK_C)
    image = (tl.program_id(0) // blocks).to(tl.int64)
    c = (tl.program_id(0) % blocks) * BLOCK_C + tl.arange(0, BLOCK_C)
    _activate(x, x_strides, stack, mean, rstd, image, c, positions, C, eps, W, STACK, BLOCK_M, BLOCK_C)


@triton.jit
def _activate(
    x, x_strides, stack, mean, rstd, image, c, positions, C, eps,
    W: tl.constexpr, STACK: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """Statistics of channels c of one image, which go to mean and rstd, then their activation, into the stack."""
    maps = x + image * x_strides[0] + c[None, :] * x_strides[1]
    stack += image * positions * STACK
    average = tl.zeros((BLOCK_C,), tl.float32)
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
        a = _rectified((values - average[None, :]) * r[None, :])
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
def _kernel_of(m, C, G: tl.constexpr, TAPS: tl.constexpr):
    """Where new map m's kernel begins in packed weights, and how many channels it has."""
    layer = m // G
    channels = C + layer * G
    return (layer * C + layer * (layer - 1) // 2 * G) * (G * TAPS) + (m % G) * (TAPS * channels), channels


@triton.jit
def _tap_and_channel(k, channels, TAPS: tl.constexpr, WHOLE: tl.constexpr):
    """Of number k on the axis that products add up over: all taps of 16 channels, then those of the next 16.

    And whether the channel is one of so many: where they come by sixteens (`WHOLE`), of sixteen at once. The compiler
    must see that 16 numbers belong together, which k // 16 alone tells it, or it loads one by one and none ahead.
    """
    sixteen = k // 16 // TAPS * 16
    c = sixteen + k % 16
    return k // 16 % TAPS, c, (sixteen if WHOLE else c) < channels


@triton.jit
def _shifted(position, tap, H: tl.constexpr, W: tl.constexpr, KERNEL: tl.constexpr):
    """(positions, taps): is what a tap reads at a position inside the image? (taps,): how many positions behind it."""
    down, right = tap // KERNEL - KERNEL // 2, tap % KERNEL - KERNEL // 2
    h, v = (position // W)[:, None] + down[None, :], (position % W)[:, None] + right[None, :]
    return (h >= 0) & (h < H) & (v >= 0) & (v < W), down * W + right


@triton.jit
def _convolve(
    sums, x, w, image, p, inside, reads, first, out, kept, C,
    H: tl.constexpr, W: tl.constexpr, KERNEL: tl.constexpr, X_WIDTH: tl.constexpr, G: tl.constexpr,
    TRANSPOSED: tl.constexpr, RELU: tl.constexpr, PRECISION: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    """Add to `sums` (positions p, BLOCK_N) what the first `reads` channels of x contribute through packed weights w.

    x's channels are those from `first` on that the weights read, and `out` is new maps; `TRANSPOSED` turns it around:
    x's channels are the gradients of new maps from `first` on, and `out` is what they read.
    """
    TAPS: tl.constexpr = KERNEL * KERNEL
    x += (image * (H * W) + p)[:, None] * X_WIDTH
    if not TRANSPOSED:
        of_out, width = _kernel_of(out, C, G, TAPS)
    for start in range(0, tl.cdiv(reads, 16) * (TAPS * 16), BLOCK_K):
        tap, c, one = _tap_and_channel(start + tl.arange(0, BLOCK_K), reads, TAPS, C % 16 == 0 and G % 16 == 0)
        there, behind = _shifted(p, tap, H, W, KERNEL)
        mask = there & inside[:, None] & one[None, :]
        read = tl.load(x + (behind * X_WIDTH + c)[None, :], mask=mask, other=0.0)
        if RELU:
            read = _rectified(read)
        if TRANSPOSED:
            of_in, width_in = _kernel_of(first + c, C, G, TAPS)
            of_tap = (of_in + (TAPS - 1 - tap) * width_in)[:, None] + out[None, :]
        else:
            of_tap = of_out[None, :] + tap[:, None] * width[None, :] + (first + c)[:, None]
        kernel = tl.load(w + of_tap, mask=one[:, None] & kept[None, :], other=0.0)
        sums = tl.dot(read.to(kernel.dtype), kernel, sums, input_precision=PRECISION)
    return sums


@triton.jit
def convolve(
    x, b, y, stack, w, mean, rstd, arrived, eps,
    H: tl.constexpr, W: tl.constexpr, KERNEL: tl.constexpr, C: tl.constexpr, G: tl.constexpr, MAPS: tl.constexpr,
    NORM: tl.constexpr, SPLIT: tl.constexpr, PRECISION: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr,
    TILE_M: tl.constexpr, TILE_G: tl.constexpr, TILE_K: tl.constexpr,
):  # fmt: skip
    """Contribution of the block's input to all new maps, `y = b + w * x`: program (image and tile, new maps).

    With a norm, x's activation is read from the stack, and the last program of an image goes on to `_solve`; or, where
    the other layers are launches of their own (`SPLIT`), to the first layer's activation.
    """
    tiles: tl.constexpr = (H * W + BLOCK_M - 1) // BLOCK_M
    image = (tl.program_id(0) // tiles).to(tl.int64)
    p = (tl.program_id(0) % tiles) * BLOCK_M + tl.arange(0, BLOCK_M)
    out = tl.program_id(1) * BLOCK_N + tl.arange(0, BLOCK_N)
    sums = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    sums = _convolve(
        sums, stack if NORM else x, w, image, p, p < H * W, C, 0, out, out < MAPS, C,
        H, W, KERNEL, C + MAPS if NORM else C, G, False, not NORM, PRECISION, BLOCK_K,
    )  # fmt: skip
    sums += tl.load(b + out, mask=out < MAPS, other=0.0).to(tl.float32)[None, :]
    kept = (p < H * W)[:, None] & (out < MAPS)[None, :]
    at = y + image * (H * W * MAPS) + p[:, None] * MAPS + out[None, :]
    tl.store(at, sums.to(y.dtype.element_ty), mask=kept)
    if NORM and _last(arrived + image, tiles * tl.num_programs(1)):
        if SPLIT:
            _activate_layer(y, stack, mean, rstd, image, 0, eps, H, W, C, G, MAPS, TILE_M, TILE_G)
        else:
            _solve(
                y, stack, w, mean, rstd, image, 0, MAPS // G, 0, eps,
                H, W, KERNEL, C, G, MAPS, True, False, PRECISION, TILE_M, TILE_G, TILE_K,
            )  # fmt: skip


@triton.jit(do_not_specialize=("first", "last"))
def solve(
    y, stack, w, mean, rstd, arrived, first, last, eps,
    H: tl.constexpr, W: tl.constexpr, KERNEL: tl.constexpr, C: tl.constexpr, G: tl.constexpr, MAPS: tl.constexpr,
    NORM: tl.constexpr, SPLIT: tl.constexpr, PRECISION: tl.constexpr,
    TILE_M: tl.constexpr, TILE_G: tl.constexpr, TILE_K: tl.constexpr,
):  # fmt: skip
    """`_solve`: program (image,); or (image, tile) if `SPLIT`, of which an image's last goes on to the activation."""
    image = tl.program_id(0).to(tl.int64)
    _solve(
        y, stack, w, mean, rstd, image, first, last, tl.program_id(1), eps,
        H, W, KERNEL, C, G, MAPS, NORM, SPLIT, PRECISION, TILE_M, TILE_G, TILE_K,
    )  # fmt: skip
    if NORM and SPLIT and _last(arrived + image, tl.num_programs(1)):
        _activate_layer(y, stack, mean, rstd, image, first, eps, H, W, C, G, MAPS, TILE_M, TILE_G)


@triton.jit
def _activate_layer(
    y, stack, mean, rstd, image, layer, eps,
    H: tl.constexpr, W: tl.constexpr, C: tl.constexpr, G: tl.constexpr, MAPS: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """`_activate` for one layer's maps of an image, which are complete; a program alone takes large blocks."""
    at = C + layer * G
    LARGE: tl.constexpr = 4 * BLOCK_M if H * W >= 4 * BLOCK_M else BLOCK_M
    _activate(
        y + layer * G, (H * W * MAPS, 1, W * MAPS, MAPS), stack + at, mean + at, rstd + at, image,
        tl.arange(0, BLOCK_C), H * W, G, eps, W, C + MAPS, LARGE, BLOCK_C,
    )  # fmt: skip


@triton.jit
def _solve(
    y, stack, w, mean, rstd, image, first, last, own_tile, eps,
    H: tl.constexpr, W: tl.constexpr, KERNEL: tl.constexpr, C: tl.constexpr, G: tl.constexpr, MAPS: tl.constexpr,
    NORM: tl.constexpr, SPLIT: tl.constexpr, PRECISION: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_G: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    """Forward substitution in layers first .. last - 1 of one image, or of one of its tiles if `SPLIT`.

    y comes with what the block's input contributes and leaves complete. A layer reads what earlier ones stored, so a
    barrier parts them; `SPLIT` is for one layer, and leaves a norm undone. Without a norm, layers read y itself, and
    there is no stack.
    """
    STACK: tl.constexpr = C + MAPS
    y += image * (H * W * MAPS)
    if NORM:
        stack += image * (H * W * STACK)
    o = tl.arange(0, BLOCK_G)
    from_tile = own_tile if SPLIT else 0
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
                sums, stack + C if NORM else y, w, 0, p, p < H * W, layer * G, C, layer * G + o, o < G, C,
                H, W, KERNEL, STACK if NORM else MAPS, G, False, not NORM, PRECISION, BLOCK_K,
            )  # fmt: skip
            maps = sums.to(y.dtype.element_ty)
            tl.store(at_y, maps, mask=kept)
            if NORM and not SPLIT:
                n = tl.minimum(BLOCK_M, H * W - tile * BLOCK_M)
                average, squares = _joined(average, squares, tile * BLOCK_M, maps.to(tl.float32), kept, n)
        if NORM and not SPLIT:
            tl.debug_barrier()
            r = 1 / tl.sqrt(squares / (H * W) + eps)
            tl.store(mean + image * STACK + C + layer * G + o, average, mask=o < G)
            tl.store(rstd + image * STACK + C + layer * G + o, r, mask=o < G)
            for tile in range(from_tile, to_tile):
                p = tile * BLOCK_M + tl.arange(0, BLOCK_M)
                kept = (p < H * W)[:, None] & (o < G)[None, :]
                values = tl.load(y + p[:, None] * MAPS + layer * G + o[None, :], mask=kept, other=0.0).to(tl.float32)
                a = _rectified((values - average[None, :]) * r[None, :]).to(stack.dtype.element_ty)
                tl.store(stack + p[:, None] * STACK + C + layer * G + o[None, :], a, mask=kept)
        tl.debug_barrier()


@triton.jit(do_not_specialize=("clear", "own", "first", "last"))
def solve_transposed(
    grad_y, grad_stack, g, y, w, mean, rstd, arrived, clear, own, first, last,
    H: tl.constexpr, W: tl.constexpr, KERNEL: tl.constexpr, C: tl.constexpr, G: tl.constexpr, MAPS: tl.constexpr,
    NORM: tl.constexpr, SPLIT: tl.constexpr, PRECISION: tl.constexpr,
    TILE_M: tl.constexpr, TILE_G: tl.constexpr, TILE_K: tl.constexpr,
):  # fmt: skip
    """Back substitution for g, the gradient of the new maps, in layers last - 1 .. first; programs as in `solve`.

    `grad_y` and `grad_stack` are what comes from outside to the new maps and to the activated stack; either may be
    None. `arrived` counts for launches that follow, which find it cleared, and from `own` on for this one.
    """
    _clear(arrived, clear)
    STACK: tl.constexpr = C + MAPS
    image = tl.program_id(0).to(tl.int64)
    new = image * (H * W * MAPS)
    o = tl.arange(0, TILE_G)
    from_tile = tl.program_id(1) if SPLIT else 0
    to_tile = from_tile + 1 if SPLIT else tl.cdiv(H * W, TILE_M)
    for step in range(first, last):
        layer = last - 1 - (step - first)
        sum_d = tl.zeros((TILE_G,), tl.float32)
        sum_dz = tl.zeros((TILE_G,), tl.float32)
        average = tl.zeros((TILE_G,), tl.float32)
        r = average + 1
        if NORM and not SPLIT:
            average = tl.load(mean + image * STACK + C + layer * G + o, mask=o < G, other=0.0)
            r = tl.load(rstd + image * STACK + C + layer * G + o, mask=o < G, other=0.0)
        for tile in range(from_tile, to_tile):
            p = tile * TILE_M + tl.arange(0, TILE_M)
            kept = (p < H * W)[:, None] & (o < G)[None, :]
            at = p[:, None] * MAPS + layer * G + o[None, :]
            sums = tl.zeros((TILE_M, TILE_G), tl.float32)
            if grad_stack is not None:
                of_image = grad_stack + image * (H * W * STACK) + C + layer * G
                sums += tl.load(of_image + p[:, None] * STACK + o[None, :], mask=kept, other=0.0).to(tl.float32)
            sums = _convolve(
                sums, g + new + (layer + 1) * G, w, 0, p, p < H * W, MAPS - (layer + 1) * G, (layer + 1) * G,
                C + layer * G + o, o < G, C, H, W, KERNEL, MAPS, G, True, False, PRECISION, TILE_K,
            )  # fmt: skip
            if not (NORM and SPLIT):
                z = (tl.load(y + new + at, mask=kept, other=0.0).to(tl.float32) - average[None, :]) * r[None, :]
                sums = tl.where(kept & (z > 0), sums, 0.0)
                if NORM:
                    sum_d += tl.sum(sums, 0)
                    sum_dz += tl.sum(sums * z, 0)
                elif grad_y is not None:
                    sums += tl.load(grad_y + new + at, mask=kept, other=0.0).to(tl.float32)
            tl.store(g + new + at, sums.to(g.dtype.element_ty), mask=kept)
        if NORM and not SPLIT:
            tl.debug_barrier()
            for tile in range(from_tile, to_tile):
                p = tile * TILE_M + tl.arange(0, TILE_M)
                kept = (p < H * W)[:, None] & (o < G)[None, :]
                at = p[:, None] * MAPS + layer * G + o[None, :]
                z = (tl.load(y + new + at, mask=kept, other=0.0).to(tl.float32) - average[None, :]) * r[None, :]
                d = tl.load(g + new + at, mask=kept, other=0.0).to(tl.float32)
                d = r[None, :] * (d - (sum_d / (H * W))[None, :] - z * (sum_dz / (H * W))[None, :])
                if grad_y is not None:
                    d += tl.load(grad_y + new + at, mask=kept, other=0.0).to(tl.float32)
                tl.store(g + new + at, d.to(g.dtype.element_ty), mask=kept)
        tl.debug_barrier()
    if NORM and SPLIT and _last(arrived + own + image, tl.num_programs(1)):
        at = first * G
        LARGE: tl.constexpr = 2 * TILE_M if H * W >= 2 * TILE_M else TILE_M
        _activate_backward(
            g + at, y + at, (H * W * MAPS, 1, W * MAPS, MAPS), mean + C + at, rstd + C + at,
            None if grad_y is None else grad_y + at, g + at, (H * W * MAPS, 1, W * MAPS, MAPS),
            image, o, H * W, G, W, MAPS, MAPS, STACK, LARGE, TILE_G,
        )  # fmt: skip


@triton.jit
def _activate_backward(
    grad, x, x_strides, mean, rstd, add, grad_x, grad_x_strides, image, c, positions, C,
    W: tl.constexpr, WIDTH: tl.constexpr, ADD_WIDTH: tl.constexpr, STACK: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """`grad_x = add + activate'(x) grad` for channels c of one image. add may be None.

    grad and grad_x may be the same memory.
    """
    x += image * x_strides[0]
    grad_x += image * grad_x_strides[0]
    grad += image * positions * WIDTH
    sum_d = tl.zeros((BLOCK_C,), tl.float32)
    sum_dz = tl.zeros((BLOCK_C,), tl.float32)
    average = tl.load(mean + image * STACK + c, mask=c < C, other=0.0)
    r = tl.load(rstd + image * STACK + c, mask=c < C, other=0.0)
    for start in range(0, positions, BLOCK_M):
        p = start + tl.arange(0, BLOCK_M)
        kept = (p < positions)[:, None] & (c < C)[None, :]
        d, z = _at_norm(grad, x, x_strides, average, r, p, c, kept, W, WIDTH)
        sum_d += tl.sum(d, 0)
        sum_dz += tl.sum(d * z, 0)
    for start in range(0, positions, BLOCK_M):
        p = start + tl.arange(0, BLOCK_M)
        kept = (p < positions)[:, None] & (c < C)[None, :]
        d, z = _at_norm(grad, x, x_strides, average, r, p, c, kept, W, WIDTH)
        d = r[None, :] * (d - (sum_d / positions)[None, :] - z * (sum_dz / positions)[None, :])
        if add is not None:
            q = image * positions + p
            d += tl.load(add + q[:, None] * ADD_WIDTH + c[None, :], mask=kept, other=0.0).to(tl.float32)
        to = ((p // W) * grad_x_strides[2] + (p % W) * grad_x_strides[3])[:, None] + c[None, :] * grad_x_strides[1]
        tl.store(grad_x + to, d.to(grad_x.dtype.element_ty), mask=kept)


@triton.jit
def _at_norm(grad, x, x_strides, average, r, p, c, kept, W: tl.constexpr, WIDTH: tl.constexpr):
    """What arrives at the norm of one image's positions p and channels c through the rectifier; normalized maps."""
    at = ((p // W) * x_strides[2] + (p % W) * x_strides[3])[:, None] + c[None, :] * x_strides[1]
    z = (tl.load(x + at, mask=kept, other=0.0).to(tl.float32) - average[None, :]) * r[None, :]
    d = tl.load(grad + p[:, None] * WIDTH + c[None, :], mask=kept, other=0.0).to(tl.float32)
    return tl.where(kept & (z > 0), d, 0.0), z


@triton.jit
def gradients(
    g, x, x_strides, y, stack, mean, rstd, w, grad_stack, grad_a0, grad_x, grad_x_strides,
    w_parts, b_parts, grad_w, grad_b, arrived, images, parts, part, weights, of_x, of_parameters,
    H: tl.constexpr, W: tl.constexpr, KERNEL: tl.constexpr, C: tl.constexpr, G: tl.constexpr, MAPS: tl.constexpr,
    PRECISION: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_X: tl.constexpr, BLOCK_K: tl.constexpr,
    BLOCK_C: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_Q: tl.constexpr,
):  # fmt: skip
    """Both gradients that wait for the complete g, as either alone would leave multiprocessors idle.

    The first `of_x` programs make that of x; from there on every `of_parameters` programs make those of the parameters
    over one of `parts` parts of all positions, (parts, weights) and (parts, MAPS), of which the last programs make the
    sums. `arrived` counts both: first (image, block of x's channels), then the parts' (block of weights).
    """
    program = tl.program_id(0)
    if program < of_x:
        _data_gradient(
            g, x, x_strides, stack, mean, rstd, w, grad_stack, grad_a0, grad_x, grad_x_strides, arrived, program,
            H, W, KERNEL, C, G, MAPS, PRECISION, BLOCK_M, BLOCK_X, BLOCK_K,
        )  # fmt: skip
    else:
        columns: tl.constexpr = (C + BLOCK_X - 1) // BLOCK_X
        of_part, number = (program - of_x) % of_parameters, (program - of_x) // of_parameters
        _weight_gradient(
            g, x, y, stack, w_parts, b_parts, grad_w, grad_b, arrived + images * columns, images, parts, part, weights,
            of_part, number,
            H, W, KERNEL, C, G, MAPS, PRECISION, BLOCK_C, BLOCK_N, BLOCK_Q,
        )  # fmt: skip


@triton.jit
def _data_gradient(
    g, x, x_strides, stack, mean, rstd, w, grad_stack, grad_a0, grad_x, grad_x_strides, arrived, program,
    H: tl.constexpr, W: tl.constexpr, KERNEL: tl.constexpr, C: tl.constexpr, G: tl.constexpr, MAPS: tl.constexpr,
    PRECISION: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_C: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    """g through the transposed convolution, then back through x's activation: program (image and tile, channels).

    With a stack, grad_a0 holds the activation's gradient until an image's last program takes it through the norm.
    """
    columns: tl.constexpr = (C + BLOCK_C - 1) // BLOCK_C
    tiles: tl.constexpr = (H * W + BLOCK_M - 1) // BLOCK_M
    image, column = (program // columns // tiles).to(tl.int64), program % columns
    p = (program // columns % tiles) * BLOCK_M + tl.arange(0, BLOCK_M)
    c = column * BLOCK_C + tl.arange(0, BLOCK_C)
    kept = (p < H * W)[:, None] & (c < C)[None, :]
    sums = tl.zeros((BLOCK_M, BLOCK_C), tl.float32)
    sums = _convolve(
        sums, g, w, image, p, p < H * W, MAPS, 0, c, c < C, C, H, W, KERNEL, MAPS, G, True, False, PRECISION, BLOCK_K
    )  # fmt: skip
    q = image * (H * W) + p
    to = q[:, None] * C + c[None, :]
    if stack is None:
        sums = tl.where(tl.load(x + to, mask=kept, other=0.0).to(tl.float32) > 0, sums, 0.0)
        tl.store(grad_x + to, sums.to(grad_x.dtype.element_ty), mask=kept)
    else:
        if grad_stack is not None:
            at = grad_stack + q[:, None] * (C + MAPS) + c[None, :]
            sums += tl.load(at, mask=kept, other=0.0).to(tl.float32)
        tl.store(grad_a0 + to, sums.to(grad_a0.dtype.element_ty), mask=kept)
        if _last(arrived + image * columns + column, tiles):
            _activate_backward(
                grad_a0, x, x_strides, mean, rstd, None, grad_x, grad_x_strides, image, c, H * W, C,
                W, C, 0, C + MAPS, BLOCK_M, BLOCK_C,
            )  # fmt: skip


@triton.jit
def _weight_gradient(
    g, x, y, stack, w_parts, b_parts, grad_w, grad_b, arrived, images, parts, part, weights, program, number,
    H: tl.constexpr, W: tl.constexpr, KERNEL: tl.constexpr, C: tl.constexpr, G: tl.constexpr, MAPS: tl.constexpr,
    PRECISION: tl.constexpr, BLOCK_C: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_Q: tl.constexpr,
):  # fmt: skip
    """Correlate g with what layers read over part `number` of all positions: program (taps and channels, new maps).

    What they read is the stack; or, without one, x and y, rectified. Blocks wholly above the diagonal, where no layer
    reads, are left out. Behind the weights come the biases: program (new maps).
    """
    STACK: tl.constexpr = C + MAPS
    TAPS: tl.constexpr = KERNEL * KERNEL
    columns: tl.constexpr = (MAPS + BLOCK_N - 1) // BLOCK_N
    rows: tl.constexpr = ((STACK + 15) // 16 * 16 * TAPS + BLOCK_C - 1) // BLOCK_C
    row, column = program // columns, program % columns
    out = column * BLOCK_N + tl.arange(0, BLOCK_N)
    end = tl.minimum((number + 1) * part, images * (H * W))
    last_layer = (tl.minimum((column + 1) * BLOCK_N, MAPS) - 1) // G
    if row == rows:
        ones = tl.zeros((BLOCK_N,), tl.float32)
        for start in range(number * part, end, BLOCK_Q):
            ones += tl.sum(_sent(g, start + tl.arange(0, BLOCK_Q), end, out, MAPS).to(tl.float32), 0)
        _store_total(ones, b_parts, grad_b, out, out < MAPS, MAPS, number, parts, arrived + program)
    elif row * BLOCK_C // (TAPS * 16) * 16 < C + last_layer * G:
        k = row * BLOCK_C + tl.arange(0, BLOCK_C)
        tap, c, one = _tap_and_channel(k, STACK, TAPS, STACK % 16 == 0)
        sums = tl.zeros((BLOCK_C, BLOCK_N), tl.float32)
        for start in range(number * part, end, BLOCK_Q):
            q = start + tl.arange(0, BLOCK_Q)
            there, behind = _shifted(q % (H * W), tap, H, W, KERNEL)
            there &= (q < end)[:, None]
            wide = q.to(tl.int64)[:, None]
            if stack is not None:
                at = stack + wide * STACK + (behind * STACK + c)[None, :]
                read = tl.load(at, mask=there & one[None, :], other=0.0)
            else:
                of_x = tl.load(x + wide * C + (behind * C + c)[None, :], mask=there & (c < C)[None, :], other=0.0)
                new = (c >= C) & one
                of_y = tl.load(y + wide * MAPS + (behind * MAPS + c - C)[None, :], mask=there & new[None, :], other=0.0)
                read = _rectified(tl.where(new[None, :], of_y, of_x.to(of_y.dtype)))
            sums = tl.dot(tl.trans(read), _sent(g, q, end, out, MAPS), sums, input_precision=PRECISION)
        kernel_at, channels = _kernel_of(out, C, G, TAPS)
        at_w = kernel_at[None, :] + tap[:, None] * channels[None, :] + c[:, None]
        layers_read = (c[:, None] < channels[None, :]) & (out < MAPS)[None, :]
        _store_total(sums, w_parts, grad_w, at_w, layers_read, weights, number, parts, arrived + program)


@triton.jit
def _sent(g, q, end, out, MAPS: tl.constexpr):
    """Gradients of new maps `out` at positions q before `end`."""
    mask = (q < end)[:, None] & (out < MAPS)[None, :]
    return tl.load(g + q.to(tl.int64)[:, None] * MAPS + out[None, :], mask=mask, other=0.0)


@triton.jit
def _store_total(sums, partial, total, at, kept, size, number, parts, arrived):
    """Store the total of sums that come in parts, which the last program adds up in their order; or of the only one."""
    if partial is not None:
        tl.store(partial + number.to(tl.int64) * size + at, sums, mask=kept)
        if _last(arrived, parts):
            added = tl.zeros_like(sums)
            for _ in range(parts):
                added += tl.load(partial + at, mask=kept, other=0.0)
                partial += size
            tl.store(total + at, added.to(total.dtype.element_ty), mask=kept)
    else:
        tl.store(total + at, sums.to(total.dtype.element_ty), mask=kept)
