"""What ``gates`` launches: each program takes some pixels of a picture, with some channels of all four gates.

Nothing is added atomically: equal inputs give equal bits.

Shapes: B pictures, C channels of the state, G = 4 C channels of the gates i, f, g, o, H height, W width, P = H W.
"""

import triton
import triton.language as tl


@triton.jit
def _tanh(x):
    return 2.0 * tl.sigmoid(2.0 * x) - 1.0


@triton.jit
def _gate(seen, remembered, moments, weight, bias, k, known, mask, GROUP: tl.constexpr):
    """Returns the normalised sum of both halves at channels ``k`` of the gates, and what the gate takes of it."""
    x = tl.load(seen + k[None], mask=mask, other=0.0).to(tl.float32)
    x += tl.load(remembered + k[None], mask=mask, other=0.0).to(tl.float32)
    mean = tl.load(moments + k // GROUP * 2, mask=known, other=0.0)
    inverse = tl.load(moments + k // GROUP * 2 + 1, mask=known, other=0.0)
    normal = (x - mean[None]) * inverse[None]
    w, b = tl.load(weight + k, mask=known, other=0.0), tl.load(bias + k, mask=known, other=0.0)
    return normal, normal * w[None] + b[None]


@triton.jit
def _slopes(
    seen, remembered, moments, weight, bias, cell, by_hidden, by_cell, c, known, mask, C, GROUP: tl.constexpr
):
    """Returns the normalised gates, the gradient of what each takes, and that of the old cell."""
    ni, i = _gate(seen, remembered, moments, weight, bias, c, known, mask, GROUP)
    nf, f = _gate(seen, remembered, moments, weight, bias, C + c, known, mask, GROUP)
    ng, g = _gate(seen, remembered, moments, weight, bias, 2 * C + c, known, mask, GROUP)
    no, o = _gate(seen, remembered, moments, weight, bias, 3 * C + c, known, mask, GROUP)
    i, f, g, o = tl.sigmoid(i), tl.sigmoid(f), _tanh(g), tl.sigmoid(o)
    old = tl.load(cell, mask=mask, other=0.0)
    out = _tanh(f * old + i * g)
    dh = tl.load(by_hidden, mask=mask, other=0.0).to(tl.float32)
    dc = tl.load(by_cell, mask=mask, other=0.0) + dh * o * (1.0 - out * out)
    di, df = dc * g * i * (1.0 - i), dc * old * f * (1.0 - f)
    dg, do = dc * i * (1.0 - g * g), dh * out * o * (1.0 - o)
    return ni, nf, ng, no, di, df, dg, do, dc * f


@triton.jit
def sums_kernel(
    seen, remembered, parts, pixels, seen_b, seen_p, G: tl.constexpr, RB: tl.constexpr, CB: tl.constexpr
):
    """Stores of some pixels of a picture the sum of both halves of the gates, and the sum of its squares."""
    b, chunk = tl.program_id(0).to(tl.int64), tl.program_id(1)
    k = tl.program_id(2) * CB + tl.arange(0, CB)
    known = k < G
    total, squares = tl.zeros((CB,), tl.float32), tl.zeros((CB,), tl.float32)
    for block in range(chunk, tl.cdiv(pixels, RB), tl.num_programs(1)):
        p = block * RB + tl.arange(0, RB)
        mask = (p < pixels)[:, None] & known[None]
        x = tl.load(seen + b * seen_b + p[:, None] * seen_p + k[None], mask=mask, other=0.0).to(tl.float32)
        x += tl.load(remembered + (b * pixels + p[:, None]) * G + k[None], mask=mask, other=0.0).to(tl.float32)
        total += tl.sum(x, 0)
        squares += tl.sum(x * x, 0)
    out = parts + (b * tl.num_programs(1) + chunk) * 2 * G + k
    tl.store(out, total, mask=known)
    tl.store(out + G, squares, mask=known)


@triton.jit
def merge_kernel(
    parts,
    weight,
    merged,
    chunks,
    count,
    eps,
    G: tl.constexpr,
    GROUP: tl.constexpr,
    PB: tl.constexpr,
    CB: tl.constexpr,
    MOMENTS: tl.constexpr,
):
    """Stores mean and 1 / deviation of a group of a picture, or the means of its two weighted sums."""
    b, group = tl.program_id(0).to(tl.int64), tl.program_id(1)
    c, chunk = tl.arange(0, CB), tl.arange(0, PB)
    mask = (chunk < chunks)[:, None] & (c < GROUP)[None]
    here = parts + (b * chunks + chunk)[:, None] * 2 * G + (group * GROUP + c)[None]
    first = tl.sum(tl.load(here, mask=mask, other=0.0), 0)
    second = tl.sum(tl.load(here + G, mask=mask, other=0.0), 0)
    if not MOMENTS:
        w = tl.load(weight + group * GROUP + c, mask=c < GROUP, other=0.0)
        first, second = first * w, second * w
    one, two = tl.sum(first, 0) / count, tl.sum(second, 0) / count
    if MOMENTS:
        two = 1.0 / tl.sqrt(tl.maximum(two - one * one, 0.0) + eps)
    out = merged + (b * tl.num_programs(1) + group) * 2
    tl.store(out, one)
    tl.store(out + 1, two)


@triton.jit
def state_kernel(
    seen,
    remembered,
    moments,
    weight,
    bias,
    cell,
    hidden,
    new_cell,
    pixels,
    seen_b,
    seen_p,
    C: tl.constexpr,
    GROUP: tl.constexpr,
    RB: tl.constexpr,
    CB: tl.constexpr,
):
    """Writes the new state of some pixels of a picture."""
    b, p = tl.program_id(0).to(tl.int64), tl.program_id(1) * RB + tl.arange(0, RB)
    c = tl.program_id(2) * CB + tl.arange(0, CB)
    known = c < C
    mask = (p < pixels)[:, None] & known[None]
    seen += b * seen_b + p[:, None] * seen_p
    remembered += (b * pixels + p[:, None]) * 4 * C
    moments += b * (4 * C // GROUP) * 2
    _, i = _gate(seen, remembered, moments, weight, bias, c, known, mask, GROUP)
    _, f = _gate(seen, remembered, moments, weight, bias, C + c, known, mask, GROUP)
    _, g = _gate(seen, remembered, moments, weight, bias, 2 * C + c, known, mask, GROUP)
    _, o = _gate(seen, remembered, moments, weight, bias, 3 * C + c, known, mask, GROUP)
    place = (b * pixels + p[:, None]) * C + c[None]
    new = tl.sigmoid(f) * tl.load(cell + place, mask=mask, other=0.0) + tl.sigmoid(i) * _tanh(g)
    tl.store(new_cell + place, new, mask=mask)
    tl.store(hidden + place, (tl.sigmoid(o) * _tanh(new)).to(hidden.dtype.element_ty), mask=mask)


@triton.jit
def slope_sums_kernel(
    seen,
    remembered,
    moments,
    weight,
    bias,
    cell,
    by_hidden,
    by_cell,
    parts,
    pixels,
    seen_b,
    seen_p,
    C: tl.constexpr,
    GROUP: tl.constexpr,
    RB: tl.constexpr,
    CB: tl.constexpr,
):
    """Stores of some pixels of a picture the sums of the gates' gradients, and of these times the normal gates."""
    b, chunk = tl.program_id(0).to(tl.int64), tl.program_id(1)
    c = tl.program_id(2) * CB + tl.arange(0, CB)
    known = c < C
    si = tl.zeros((CB,), tl.float32)
    sf, sg, so = si, si, si
    ti, tf, tg, to = si, sf, sg, so
    for block in range(chunk, tl.cdiv(pixels, RB), tl.num_programs(1)):
        p = block * RB + tl.arange(0, RB)
        mask = (p < pixels)[:, None] & known[None]
        place = (b * pixels + p[:, None]) * C + c[None]
        ni, nf, ng, no, di, df, dg, do, _ = _slopes(
            seen + b * seen_b + p[:, None] * seen_p,
            remembered + (b * pixels + p[:, None]) * 4 * C,
            moments + b * (4 * C // GROUP) * 2,
            weight,
            bias,
            cell + place,
            by_hidden + place,
            by_cell + place,
            c,
            known,
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
    out = parts + (b * tl.num_programs(1) + chunk) * 8 * C + c
    tl.store(out, si, mask=known)
    tl.store(out + C, sf, mask=known)
    tl.store(out + 2 * C, sg, mask=known)
    tl.store(out + 3 * C, so, mask=known)
    tl.store(out + 4 * C, ti, mask=known)
    tl.store(out + 5 * C, tf, mask=known)
    tl.store(out + 6 * C, tg, mask=known)
    tl.store(out + 7 * C, to, mask=known)


@triton.jit
def _through_norm(out, slope, normal, moments, means, weight, k, known, mask, GROUP: tl.constexpr):
    """Writes the gradient of the sum of both halves at channels ``k`` of the gates."""
    inverse = tl.load(moments + k // GROUP * 2 + 1, mask=known, other=0.0)
    one = tl.load(means + k // GROUP * 2, mask=known, other=0.0)
    two = tl.load(means + k // GROUP * 2 + 1, mask=known, other=0.0)
    w = tl.load(weight + k, mask=known, other=0.0)
    value = inverse[None] * (slope * w[None] - one[None] - normal * two[None])
    tl.store(out + k[None], value.to(out.dtype.element_ty), mask=mask)


@triton.jit
def gradient_kernel(
    seen,
    remembered,
    moments,
    means,
    weight,
    bias,
    cell,
    by_hidden,
    by_cell,
    gradient,
    by_old,
    pixels,
    seen_b,
    seen_p,
    C: tl.constexpr,
    GROUP: tl.constexpr,
    RB: tl.constexpr,
    CB: tl.constexpr,
):
    """Writes the gradients of both halves of the gates, which are equal, and of the old cell."""
    b, p = tl.program_id(0).to(tl.int64), tl.program_id(1) * RB + tl.arange(0, RB)
    c = tl.program_id(2) * CB + tl.arange(0, CB)
    known = c < C
    mask = (p < pixels)[:, None] & known[None]
    place = (b * pixels + p[:, None]) * C + c[None]
    moments += b * (4 * C // GROUP) * 2
    means += b * (4 * C // GROUP) * 2
    ni, nf, ng, no, di, df, dg, do, old = _slopes(
        seen + b * seen_b + p[:, None] * seen_p,
        remembered + (b * pixels + p[:, None]) * 4 * C,
        moments,
        weight,
        bias,
        cell + place,
        by_hidden + place,
        by_cell + place,
        c,
        known,
        mask,
        C,
        GROUP,
    )
    tl.store(by_old + place, old, mask=mask)
    out = gradient + (b * pixels + p[:, None]) * 4 * C
    _through_norm(out, di, ni, moments, means, weight, c, known, mask, GROUP)
    _through_norm(out, df, nf, moments, means, weight, C + c, known, mask, GROUP)
    _through_norm(out, dg, ng, moments, means, weight, 2 * C + c, known, mask, GROUP)
    _through_norm(out, do, no, moments, means, weight, 3 * C + c, known, mask, GROUP)
