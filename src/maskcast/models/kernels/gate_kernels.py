"""The kernels of ``gates``: each program handles some pixels of a picture, and some channels of all four gates.

Nothing is added atomically: equal inputs give equal bits. ``gates_x`` is the gates' input half, ``gates_h`` their
hidden half.

Shapes: B pictures, C channels of the state, G = 4 C channels of the gates i, f, g, o, H height, W width, P = H W.
"""

import triton
import triton.language as tl


@triton.jit
def _tanh(x):
    return 2.0 * tl.sigmoid(2.0 * x) - 1.0


@triton.jit
def _gate(gates_x, gates_h, moments, weight, bias, k, c_mask, mask, GROUP: tl.constexpr):
    """Returns the normalised sum of both halves at channels ``k``, without and with the norm's weight and bias."""
    x = tl.load(gates_x + k[None], mask=mask, other=0.0).to(tl.float32)
    x += tl.load(gates_h + k[None], mask=mask, other=0.0).to(tl.float32)
    mean = tl.load(moments + k // GROUP * 2, mask=c_mask, other=0.0)
    inverse = tl.load(moments + k // GROUP * 2 + 1, mask=c_mask, other=0.0)
    normalised = (x - mean[None]) * inverse[None]
    w, b = tl.load(weight + k, mask=c_mask, other=0.0), tl.load(bias + k, mask=c_mask, other=0.0)
    return normalised, normalised * w[None] + b[None]


@triton.jit
def _gate_gradients(
    gates_x, gates_h, moments, weight, bias, cell, grad_hidden, grad_cell, c, c_mask, mask, C, GROUP: tl.constexpr
):
    """Returns the normalised gates, the gradients of the inputs of their activations, and that of the old cell."""
    ni, i = _gate(gates_x, gates_h, moments, weight, bias, c, c_mask, mask, GROUP)
    nf, f = _gate(gates_x, gates_h, moments, weight, bias, C + c, c_mask, mask, GROUP)
    ng, g = _gate(gates_x, gates_h, moments, weight, bias, 2 * C + c, c_mask, mask, GROUP)
    no, o = _gate(gates_x, gates_h, moments, weight, bias, 3 * C + c, c_mask, mask, GROUP)
    i, f, g, o = tl.sigmoid(i), tl.sigmoid(f), _tanh(g), tl.sigmoid(o)
    old = tl.load(cell, mask=mask, other=0.0)
    out = _tanh(f * old + i * g)
    dh = tl.load(grad_hidden, mask=mask, other=0.0).to(tl.float32)
    dc = tl.load(grad_cell, mask=mask, other=0.0) + dh * o * (1.0 - out * out)
    di, df = dc * g * i * (1.0 - i), dc * old * f * (1.0 - f)
    dg, do = dc * i * (1.0 - g * g), dh * out * o * (1.0 - o)
    return ni, nf, ng, no, di, df, dg, do, dc * f


@triton.jit
def sums_kernel(
    gates_x,
    gates_h,
    partials,
    pixels,
    stride_b,
    stride_p,
    G: tl.constexpr,
    BLOCK_P: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """Stores sums over some pixels of a picture: of the gates (both halves added), and of their squares."""
    b, chunk = tl.program_id(0).to(tl.int64), tl.program_id(1)
    k = tl.program_id(2) * BLOCK_C + tl.arange(0, BLOCK_C)
    c_mask = k < G
    total, squares = tl.zeros((BLOCK_C,), tl.float32), tl.zeros((BLOCK_C,), tl.float32)
    for block in range(chunk, tl.cdiv(pixels, BLOCK_P), tl.num_programs(1)):
        p = block * BLOCK_P + tl.arange(0, BLOCK_P)
        mask = (p < pixels)[:, None] & c_mask[None]
        x = tl.load(gates_x + b * stride_b + p[:, None] * stride_p + k[None], mask=mask, other=0.0).to(tl.float32)
        x += tl.load(gates_h + (b * pixels + p[:, None]) * G + k[None], mask=mask, other=0.0).to(tl.float32)
        total += tl.sum(x, 0)
        squares += tl.sum(x * x, 0)
    out = partials + (b * tl.num_programs(1) + chunk) * 2 * G + k
    tl.store(out, total, mask=c_mask)
    tl.store(out + G, squares, mask=c_mask)


@triton.jit
def merge_kernel(
    partials,
    weight,
    merged,
    chunks,
    count,
    eps,
    G: tl.constexpr,
    GROUP: tl.constexpr,
    BLOCK_CHUNKS: tl.constexpr,
    BLOCK_C: tl.constexpr,
    MOMENTS: tl.constexpr,
):
    """Stores mean and 1 / standard deviation of a group of a picture, or the means of its two weighted sums."""
    b, group = tl.program_id(0).to(tl.int64), tl.program_id(1)
    c, chunk = tl.arange(0, BLOCK_C), tl.arange(0, BLOCK_CHUNKS)
    mask = (chunk < chunks)[:, None] & (c < GROUP)[None]
    pointers = partials + (b * chunks + chunk)[:, None] * 2 * G + (group * GROUP + c)[None]
    first = tl.sum(tl.load(pointers, mask=mask, other=0.0), 0)
    second = tl.sum(tl.load(pointers + G, mask=mask, other=0.0), 0)
    if not MOMENTS:
        w = tl.load(weight + group * GROUP + c, mask=c < GROUP, other=0.0)
        first, second = first * w, second * w
    first_mean, second_mean = tl.sum(first, 0) / count, tl.sum(second, 0) / count
    if MOMENTS:
        # E[x^2] - E[x]^2 in float32 is wrong by about 1e-7 (mean / std)^2 of the variance: for a mean of 100 std
        # by 0.1 %, less than the gates are rounded in bfloat16. For a constant group eps is far above the error.
        second_mean = 1.0 / tl.sqrt(tl.maximum(second_mean - first_mean * first_mean, 0.0) + eps)
    out = merged + (b * tl.num_programs(1) + group) * 2
    tl.store(out, first_mean)
    tl.store(out + 1, second_mean)


@triton.jit
def state_kernel(
    gates_x,
    gates_h,
    moments,
    weight,
    bias,
    cell,
    hidden,
    new_cell,
    pixels,
    stride_b,
    stride_p,
    C: tl.constexpr,
    GROUP: tl.constexpr,
    BLOCK_P: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """Writes the new state of some pixels of a picture."""
    b, p = tl.program_id(0).to(tl.int64), tl.program_id(1) * BLOCK_P + tl.arange(0, BLOCK_P)
    c = tl.program_id(2) * BLOCK_C + tl.arange(0, BLOCK_C)
    c_mask = c < C
    mask = (p < pixels)[:, None] & c_mask[None]
    gates_x += b * stride_b + p[:, None] * stride_p
    gates_h += (b * pixels + p[:, None]) * 4 * C
    moments += b * (4 * C // GROUP) * 2
    _, i = _gate(gates_x, gates_h, moments, weight, bias, c, c_mask, mask, GROUP)
    _, f = _gate(gates_x, gates_h, moments, weight, bias, C + c, c_mask, mask, GROUP)
    _, g = _gate(gates_x, gates_h, moments, weight, bias, 2 * C + c, c_mask, mask, GROUP)
    _, o = _gate(gates_x, gates_h, moments, weight, bias, 3 * C + c, c_mask, mask, GROUP)
    offsets = (b * pixels + p[:, None]) * C + c[None]
    new = tl.sigmoid(f) * tl.load(cell + offsets, mask=mask, other=0.0) + tl.sigmoid(i) * _tanh(g)
    tl.store(new_cell + offsets, new, mask=mask)
    tl.store(hidden + offsets, (tl.sigmoid(o) * _tanh(new)).to(hidden.dtype.element_ty), mask=mask)


@triton.jit
def slope_sums_kernel(
    gates_x,
    gates_h,
    moments,
    weight,
    bias,
    cell,
    grad_hidden,
    grad_cell,
    partials,
    pixels,
    stride_b,
    stride_p,
    C: tl.constexpr,
    GROUP: tl.constexpr,
    BLOCK_P: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """Stores sums over some pixels of a picture: of the gates' gradients, and of gradient * normalised gate."""
    b, chunk = tl.program_id(0).to(tl.int64), tl.program_id(1)
    c = tl.program_id(2) * BLOCK_C + tl.arange(0, BLOCK_C)
    c_mask = c < C
    si = tl.zeros((BLOCK_C,), tl.float32)
    sf, sg, so = si, si, si
    ti, tf, tg, to = si, sf, sg, so
    for block in range(chunk, tl.cdiv(pixels, BLOCK_P), tl.num_programs(1)):
        p = block * BLOCK_P + tl.arange(0, BLOCK_P)
        mask = (p < pixels)[:, None] & c_mask[None]
        offsets = (b * pixels + p[:, None]) * C + c[None]
        ni, nf, ng, no, di, df, dg, do, _ = _gate_gradients(
            gates_x + b * stride_b + p[:, None] * stride_p,
            gates_h + (b * pixels + p[:, None]) * 4 * C,
            moments + b * (4 * C // GROUP) * 2,
            weight,
            bias,
            cell + offsets,
            grad_hidden + offsets,
            grad_cell + offsets,
            c,
            c_mask,
            mask,
            C,
            GROUP,
        )
        si += tl.sum(di, 0)
        sf += tl.sum(df, 0)
        sg += tl.sum(dg, 0)
        so += tl.sum(do, 0)
        ti += tl.sum(di * ni, 0)
        tf += tl.sum(df * nf, 0)
        tg += tl.sum(dg * ng, 0)
        to += tl.sum(do * no, 0)
    out = partials + (b * tl.num_programs(1) + chunk) * 8 * C + c
    tl.store(out, si, mask=c_mask)
    tl.store(out + C, sf, mask=c_mask)
    tl.store(out + 2 * C, sg, mask=c_mask)
    tl.store(out + 3 * C, so, mask=c_mask)
    tl.store(out + 4 * C, ti, mask=c_mask)
    tl.store(out + 5 * C, tf, mask=c_mask)
    tl.store(out + 6 * C, tg, mask=c_mask)
    tl.store(out + 7 * C, to, mask=c_mask)


@triton.jit
def _store_norm_gradient(out, gradient, normalised, moments, means, weight, k, c_mask, mask, GROUP: tl.constexpr):
    """Writes the gradient of the sum of both halves at channels ``k`` of the gates."""
    inverse = tl.load(moments + k // GROUP * 2 + 1, mask=c_mask, other=0.0)
    mean_gradient = tl.load(means + k // GROUP * 2, mask=c_mask, other=0.0)
    mean_product = tl.load(means + k // GROUP * 2 + 1, mask=c_mask, other=0.0)
    w = tl.load(weight + k, mask=c_mask, other=0.0)
    result = inverse[None] * (gradient * w[None] - mean_gradient[None] - normalised * mean_product[None])
    tl.store(out + k[None], result.to(out.dtype.element_ty), mask=mask)


@triton.jit
def gradient_kernel(
    gates_x,
    gates_h,
    moments,
    means,
    weight,
    bias,
    cell,
    grad_hidden,
    grad_cell,
    gradient,
    grad_old_cell,
    pixels,
    stride_b,
    stride_p,
    C: tl.constexpr,
    GROUP: tl.constexpr,
    BLOCK_P: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """Writes the gradients of both halves of the gates, which are equal, and of the old cell."""
    b, p = tl.program_id(0).to(tl.int64), tl.program_id(1) * BLOCK_P + tl.arange(0, BLOCK_P)
    c = tl.program_id(2) * BLOCK_C + tl.arange(0, BLOCK_C)
    c_mask = c < C
    mask = (p < pixels)[:, None] & c_mask[None]
    offsets = (b * pixels + p[:, None]) * C + c[None]
    moments += b * (4 * C // GROUP) * 2
    means += b * (4 * C // GROUP) * 2
    ni, nf, ng, no, di, df, dg, do, old = _gate_gradients(
        gates_x + b * stride_b + p[:, None] * stride_p,
        gates_h + (b * pixels + p[:, None]) * 4 * C,
        moments,
        weight,
        bias,
        cell + offsets,
        grad_hidden + offsets,
        grad_cell + offsets,
        c,
        c_mask,
        mask,
        C,
        GROUP,
    )
    tl.store(grad_old_cell + offsets, old, mask=mask)
    out = gradient + (b * pixels + p[:, None]) * 4 * C
    _store_norm_gradient(out, di, ni, moments, means, weight, c, c_mask, mask, GROUP)
    _store_norm_gradient(out, df, nf, moments, means, weight, C + c, c_mask, mask, GROUP)
    _store_norm_gradient(out, dg, ng, moments, means, weight, 2 * C + c, c_mask, mask, GROUP)
    _store_norm_gradient(out, do, no, moments, means, weight, 3 * C + c, c_mask, mask, GROUP)
