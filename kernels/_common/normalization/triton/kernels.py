"""Triton programs that normalize by groups of samples.

A group is S samples of P positions each: Q = S * P values a channel. A tile holds BLOCK_C channels of one group by
BLOCK_Q of its positions. Strides are (sample, channel, position) and may be anything: neighbours in memory are
positions for contiguous maps and channels for channels_last ones. gamma and beta may both be None.

Statistics are safe for maps far from zero: the first value of a group's channel is taken off before anything is summed
(so a constant map has deviations of exactly zero), variances are sums of squares about a tile's own mean, and tiles are
merged as samples are by Chan, Golub and LeVeque (1983).
"""

import triton
import triton.language as tl


@triton.jit
def _offsets(c, q, P, strides, ONE_SAMPLE: tl.constexpr):
    """Of channels c (BLOCK_C,) and positions q (BLOCK_Q,) from where their group begins: (BLOCK_C, BLOCK_Q)."""
    of_position = q * strides[2] if ONE_SAMPLE else (q // P) * strides[0] + (q % P) * strides[2]
    return c[:, None] * strides[1] + of_position[None, :]


@triton.jit
def _group_and_tile(positions, BLOCK_Q: tl.constexpr):
    """This program's group, its tile of the group's positions, and how many groups there are.

    Both are numbered along the grid's first axis: the others end at 65,535 programs, which large maps have tiles of.
    """
    tiles = tl.cdiv(positions, BLOCK_Q)
    program = tl.program_id(0)
    return program // tiles, program % tiles, tl.num_programs(0) // tiles


@triton.jit
def _rectified(x, RECTIFY: tl.constexpr):
    """ReLU if asked for; NaN stays."""
    if RECTIFY:
        x = tl.where(x < 0, 0.0, x)
    return x


@triton.jit
def _normal_below(y):
    """Share of a normal distribution below y."""
    return 0.5 * (1 + tl.math.erf(y * 0.7071067811865476))


@triton.jit
def _sigmoid_of_tanh(y):
    """GELU's approximation is y times this."""
    return tl.sigmoid(1.5957691216057308 * (y + 0.044715 * y * y * y))


@triton.jit
def _activated(y, slope, ACTIVATION: tl.constexpr):
    """Activation by its name; NaN stays."""
    if ACTIVATION == "relu":
        y = tl.where(y < 0, 0.0, y)
    elif ACTIVATION == "leaky_relu":
        y = tl.where(y < 0, y * slope, y)
    elif ACTIVATION == "silu":
        y = y * tl.sigmoid(y)
    elif ACTIVATION == "gelu":
        y = y * _normal_below(y)
    elif ACTIVATION == "gelu_tanh":
        y = y * _sigmoid_of_tanh(y)
    else:
        tl.static_assert(ACTIVATION == "identity")
    return y


@triton.jit
def _through(grad, y, slope, ACTIVATION: tl.constexpr):
    """Gradient of y from that of its activation."""
    if ACTIVATION == "relu":
        grad = tl.where(y <= 0, 0.0, grad)
    elif ACTIVATION == "leaky_relu":
        grad = tl.where(y > 0, grad, grad * slope)
    elif ACTIVATION == "silu":
        s = tl.sigmoid(y)
        grad = grad * s * (1 + y * (1 - s))
    elif ACTIVATION == "gelu":
        grad = grad * (_normal_below(y) + y * 0.3989422804014327 * tl.exp(-0.5 * y * y))
    elif ACTIVATION == "gelu_tanh":
        s = _sigmoid_of_tanh(y)
        grad = grad * (s + y * s * (1 - s) * 1.5957691216057308 * (1 + 0.134145 * y * y))
    return grad


@triton.jit
def _load_channels(ptr, c, C):
    return tl.load(ptr + c, mask=c < C, other=0).to(tl.float32)


@triton.jit
def _first_values(x_ptr, x_strides, c, C, RELU_BEFORE: tl.constexpr):
    return _rectified(_load_channels(x_ptr, c * x_strides[1], C * x_strides[1]), RELU_BEFORE)


@triton.jit
def _scaled(n, gamma_ptr, beta_ptr, c, C):
    if gamma_ptr is not None:
        n = n * _load_channels(gamma_ptr, c, C)[:, None] + _load_channels(beta_ptr, c, C)[:, None]
    return n


@triton.jit
def _merge(mean_a, squares_a, count_a, mean_b, squares_b, count_b):
    """Mean, sum of squares about it, and count of two samples together."""
    count = count_a + count_b
    delta = mean_b - mean_a
    mean = mean_a + delta * (count_b / count)
    return mean, squares_a + squares_b + delta * delta * (count_a * count_b / count), count


@triton.jit
def normalize_whole(
    x_ptr, gamma_ptr, beta_ptr, y_ptr, mean_ptr, var_ptr, x_strides, y_strides, C, S, P, eps, slope,
    RELU_BEFORE: tl.constexpr, ACTIVATION: tl.constexpr, ONE_SAMPLE: tl.constexpr,
    BLOCK_C: tl.constexpr, BLOCK_Q: tl.constexpr,
):  # fmt: skip
    """Statistics and result of BLOCK_C channels of a group, all positions in one tile: x is read once.

    Grid (groups, channel blocks).
    """
    g = tl.program_id(0)
    c = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    q = tl.arange(0, BLOCK_Q)
    inside = (c < C)[:, None] & (q < S * P)[None, :]
    x_ptr += (g * S).to(tl.int64) * x_strides[0]
    y_ptr += (g * S).to(tl.int64) * y_strides[0]
    x = tl.load(x_ptr + _offsets(c, q, P, x_strides, ONE_SAMPLE), mask=inside, other=0).to(tl.float32)
    x = _rectified(x, RELU_BEFORE)
    first = _first_values(x_ptr, x_strides, c, C, RELU_BEFORE)
    mean = first + tl.sum(tl.where(inside, x - first[:, None], 0.0), 1) / (S * P)
    centred = tl.where(inside, x - mean[:, None], 0.0)
    var = tl.sum(centred * centred, 1) / (S * P)
    n = centred / tl.sqrt(var + eps)[:, None]
    y = _activated(_scaled(n, gamma_ptr, beta_ptr, c, C), slope, ACTIVATION)
    tl.store(y_ptr + _offsets(c, q, P, y_strides, ONE_SAMPLE), y.to(y_ptr.dtype.element_ty), mask=inside)
    tl.store(mean_ptr + g * C + c, mean, mask=c < C)
    tl.store(var_ptr + g * C + c, var, mask=c < C)


@triton.jit
def partial_statistics(
    x_ptr, means_ptr, squares_ptr, x_strides, C, S, P, positions_per_part,
    RELU_BEFORE: tl.constexpr, ONE_SAMPLE: tl.constexpr, BLOCK_C: tl.constexpr, BLOCK_Q: tl.constexpr,
):  # fmt: skip
    """Mean less the first value, and sum of squares about the mean, of one part of a group's positions.

    Grid (groups, channel blocks, parts); results (parts, groups, C).
    """
    g = tl.program_id(0)
    c = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    part = tl.program_id(2)
    x_ptr += (g * S).to(tl.int64) * x_strides[0]
    first = _first_values(x_ptr, x_strides, c, C, RELU_BEFORE)
    mean = tl.zeros((BLOCK_C,), tl.float32)
    squares = tl.zeros((BLOCK_C,), tl.float32)
    count = 0.0
    begin = part * positions_per_part
    for start in range(begin, tl.minimum(begin + positions_per_part, S * P), BLOCK_Q):
        q = start + tl.arange(0, BLOCK_Q)
        inside = (c < C)[:, None] & (q < S * P)[None, :]
        x = tl.load(x_ptr + _offsets(c, q, P, x_strides, ONE_SAMPLE), mask=inside, other=0).to(tl.float32)
        x = tl.where(inside, _rectified(x, RELU_BEFORE) - first[:, None], 0.0)
        tile_count = tl.minimum(S * P - start, BLOCK_Q).to(tl.float32)
        tile_mean = tl.sum(x, 1) / tile_count
        centred = tl.where(inside, x - tile_mean[:, None], 0.0)
        mean, squares, count = _merge(mean, squares, count, tile_mean, tl.sum(centred * centred, 1), tile_count)
    row = (part * tl.num_programs(0) + g) * C
    tl.store(means_ptr + row + c, mean, mask=c < C)
    tl.store(squares_ptr + row + c, squares, mask=c < C)


@triton.jit
def normalize_by_parts(
    x_ptr, gamma_ptr, beta_ptr, means_ptr, squares_ptr, y_ptr, mean_ptr, var_ptr, x_strides, y_strides, C, S, P, parts,
    positions_per_part, eps, slope,
    RELU_BEFORE: tl.constexpr, ACTIVATION: tl.constexpr, ONE_SAMPLE: tl.constexpr, BLOCK_C: tl.constexpr,
    BLOCK_Q: tl.constexpr,
):  # fmt: skip
    """Result of one tile from the parts' statistics. Grid (groups and their tiles of positions, channel blocks)."""
    g, tile, groups = _group_and_tile(S * P, BLOCK_Q)
    c = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    x_ptr += (g * S).to(tl.int64) * x_strides[0]
    y_ptr += (g * S).to(tl.int64) * y_strides[0]
    mean = tl.zeros((BLOCK_C,), tl.float32)
    squares = tl.zeros((BLOCK_C,), tl.float32)
    count = 0.0
    for part in range(parts):
        row = (part * groups + g) * C
        part_count = tl.minimum(S * P - part * positions_per_part, positions_per_part).to(tl.float32)
        mean, squares, count = _merge(
            mean, squares, count, _load_channels(means_ptr + row, c, C), _load_channels(squares_ptr + row, c, C),
            part_count,
        )  # fmt: skip
    mean += _first_values(x_ptr, x_strides, c, C, RELU_BEFORE)
    var = squares / count
    if tile == 0:
        tl.store(mean_ptr + g * C + c, mean, mask=c < C)
        tl.store(var_ptr + g * C + c, var, mask=c < C)

    q = tile * BLOCK_Q + tl.arange(0, BLOCK_Q)
    inside = (c < C)[:, None] & (q < S * P)[None, :]
    x = tl.load(x_ptr + _offsets(c, q, P, x_strides, ONE_SAMPLE), mask=inside, other=0).to(tl.float32)
    n = (_rectified(x, RELU_BEFORE) - mean[:, None]) / tl.sqrt(var + eps)[:, None]
    y = _activated(_scaled(n, gamma_ptr, beta_ptr, c, C), slope, ACTIVATION)
    tl.store(y_ptr + _offsets(c, q, P, y_strides, ONE_SAMPLE), y.to(y_ptr.dtype.element_ty), mask=inside)


@triton.jit
def _recomputed(
    grad_ptr, x_ptr, gamma_ptr, beta_ptr, mean, rstd, grad_strides, x_strides, c, q, inside, C, P, slope,
    RELU_BEFORE: tl.constexpr, ACTIVATION: tl.constexpr, ONE_SAMPLE: tl.constexpr,
):  # fmt: skip
    """A tile's x, its normalized values n, and the gradient g of what scale and shift made of n."""
    x = tl.load(x_ptr + _offsets(c, q, P, x_strides, ONE_SAMPLE), mask=inside, other=0).to(tl.float32)
    grad = tl.load(grad_ptr + _offsets(c, q, P, grad_strides, ONE_SAMPLE), mask=inside, other=0).to(tl.float32)
    n = (_rectified(x, RELU_BEFORE) - mean[:, None]) * rstd[:, None]
    return x, n, _through(grad, _scaled(n, gamma_ptr, beta_ptr, c, C), slope, ACTIVATION)


@triton.jit
def _gradient_of_input(x, n, grad, sum_grad, sum_grad_n, gamma_ptr, rstd, c, C, count, RELU_BEFORE: tl.constexpr):
    """`dx = gamma rstd (g - mean(g) - n mean(g n))`, and nothing where a ReLU before was shut."""
    scale = rstd
    if gamma_ptr is not None:
        scale *= _load_channels(gamma_ptr, c, C)
    dx = scale[:, None] * (grad - (sum_grad / count)[:, None] - n * (sum_grad_n / count)[:, None])
    if RELU_BEFORE:
        dx = tl.where(x > 0, dx, 0.0)
    return dx


@triton.jit
def backward_whole(
    grad_ptr, x_ptr, gamma_ptr, beta_ptr, mean_ptr, var_ptr, dx_ptr, sum_grad_ptr, sum_grad_n_ptr, grad_strides,
    x_strides, dx_strides, C, S, P, eps, slope,
    RELU_BEFORE: tl.constexpr, ACTIVATION: tl.constexpr, ONE_SAMPLE: tl.constexpr, BLOCK_C: tl.constexpr,
    BLOCK_Q: tl.constexpr,
):  # fmt: skip
    """Gradient of x, and each channel's sums of g and of g n, all positions of a group in one tile.

    Grid (groups, channel blocks).
    """
    g = tl.program_id(0)
    c = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    q = tl.arange(0, BLOCK_Q)
    inside = (c < C)[:, None] & (q < S * P)[None, :]
    grad_ptr += (g * S).to(tl.int64) * grad_strides[0]
    x_ptr += (g * S).to(tl.int64) * x_strides[0]
    dx_ptr += (g * S).to(tl.int64) * dx_strides[0]
    mean = _load_channels(mean_ptr + g * C, c, C)
    rstd = 1 / tl.sqrt(_load_channels(var_ptr + g * C, c, C) + eps)
    x, n, grad = _recomputed(
        grad_ptr, x_ptr, gamma_ptr, beta_ptr, mean, rstd, grad_strides, x_strides, c, q, inside, C, P, slope,
        RELU_BEFORE, ACTIVATION, ONE_SAMPLE,
    )  # fmt: skip
    sum_grad = tl.sum(grad, 1)
    sum_grad_n = tl.sum(grad * n, 1)
    dx = _gradient_of_input(x, n, grad, sum_grad, sum_grad_n, gamma_ptr, rstd, c, C, S * P, RELU_BEFORE)
    tl.store(dx_ptr + _offsets(c, q, P, dx_strides, ONE_SAMPLE), dx.to(dx_ptr.dtype.element_ty), mask=inside)
    tl.store(sum_grad_ptr + g * C + c, sum_grad, mask=c < C)
    tl.store(sum_grad_n_ptr + g * C + c, sum_grad_n, mask=c < C)


@triton.jit
def partial_gradient_sums(
    grad_ptr, x_ptr, gamma_ptr, beta_ptr, mean_ptr, var_ptr, sums_grad_ptr, sums_grad_n_ptr, grad_strides, x_strides, C,
    S, P, positions_per_part, eps, slope,
    RELU_BEFORE: tl.constexpr, ACTIVATION: tl.constexpr, ONE_SAMPLE: tl.constexpr, BLOCK_C: tl.constexpr,
    BLOCK_Q: tl.constexpr,
):  # fmt: skip
    """Sums of g and of g n over one part of a group's positions. Grid and results as of `partial_statistics`."""
    g = tl.program_id(0)
    c = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    part = tl.program_id(2)
    grad_ptr += (g * S).to(tl.int64) * grad_strides[0]
    x_ptr += (g * S).to(tl.int64) * x_strides[0]
    mean = _load_channels(mean_ptr + g * C, c, C)
    rstd = 1 / tl.sqrt(_load_channels(var_ptr + g * C, c, C) + eps)
    sum_grad = tl.zeros((BLOCK_C,), tl.float32)
    sum_grad_n = tl.zeros((BLOCK_C,), tl.float32)
    begin = part * positions_per_part
    for start in range(begin, tl.minimum(begin + positions_per_part, S * P), BLOCK_Q):
        q = start + tl.arange(0, BLOCK_Q)
        inside = (c < C)[:, None] & (q < S * P)[None, :]
        _, n, grad = _recomputed(
            grad_ptr, x_ptr, gamma_ptr, beta_ptr, mean, rstd, grad_strides, x_strides, c, q, inside, C, P, slope,
            RELU_BEFORE, ACTIVATION, ONE_SAMPLE,
        )  # fmt: skip
        sum_grad += tl.sum(grad, 1)
        sum_grad_n += tl.sum(grad * n, 1)
    row = (part * tl.num_programs(0) + g) * C
    tl.store(sums_grad_ptr + row + c, sum_grad, mask=c < C)
    tl.store(sums_grad_n_ptr + row + c, sum_grad_n, mask=c < C)


@triton.jit
def backward_by_parts(
    grad_ptr, x_ptr, gamma_ptr, beta_ptr, mean_ptr, var_ptr, sums_grad_ptr, sums_grad_n_ptr, dx_ptr, sum_grad_ptr,
    sum_grad_n_ptr, grad_strides, x_strides, dx_strides, C, S, P, parts, eps, slope,
    RELU_BEFORE: tl.constexpr, ACTIVATION: tl.constexpr, ONE_SAMPLE: tl.constexpr, BLOCK_C: tl.constexpr,
    BLOCK_Q: tl.constexpr,
):  # fmt: skip
    """Gradient of one tile of x from the parts' sums. Grid as of `normalize_by_parts`."""
    g, tile, groups = _group_and_tile(S * P, BLOCK_Q)
    c = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    grad_ptr += (g * S).to(tl.int64) * grad_strides[0]
    x_ptr += (g * S).to(tl.int64) * x_strides[0]
    dx_ptr += (g * S).to(tl.int64) * dx_strides[0]
    sum_grad = tl.zeros((BLOCK_C,), tl.float32)
    sum_grad_n = tl.zeros((BLOCK_C,), tl.float32)
    for part in range(parts):
        row = (part * groups + g) * C
        sum_grad += _load_channels(sums_grad_ptr + row, c, C)
        sum_grad_n += _load_channels(sums_grad_n_ptr + row, c, C)
    if tile == 0:
        tl.store(sum_grad_ptr + g * C + c, sum_grad, mask=c < C)
        tl.store(sum_grad_n_ptr + g * C + c, sum_grad_n, mask=c < C)

    q = tile * BLOCK_Q + tl.arange(0, BLOCK_Q)
    inside = (c < C)[:, None] & (q < S * P)[None, :]
    mean = _load_channels(mean_ptr + g * C, c, C)
    rstd = 1 / tl.sqrt(_load_channels(var_ptr + g * C, c, C) + eps)
    x, n, grad = _recomputed(
        grad_ptr, x_ptr, gamma_ptr, beta_ptr, mean, rstd, grad_strides, x_strides, c, q, inside, C, P, slope,
        RELU_BEFORE, ACTIVATION, ONE_SAMPLE,
    )  # fmt: skip
    dx = _gradient_of_input(x, n, grad, sum_grad, sum_grad_n, gamma_ptr, rstd, c, C, S * P, RELU_BEFORE)
    tl.store(dx_ptr + _offsets(c, q, P, dx_strides, ONE_SAMPLE), dx.to(dx_ptr.dtype.element_ty), mask=inside)
