"""The Triton kernels of `attention.py`: KL between attention distributions, tile by tile, and its gradient.

`divergence` has a block of queries of one head: it walks the tiles of both models' scores and keeps, for each query,
the maxima and sums of both softmaxes and the sum of the KL. The gradient of the scores is p_student − p_teacher;
`query_gradient` and `key_gradient` compute its tiles again from those sums, as flash attention does (Dao 2023,
arXiv:2307.08691, algorithm 2). No (seq, seq) tensor is ever in memory. Sums are in fp32.
"""

import triton
import triton.language as tl


@triton.jit
def _product(left, right, PRECISION: tl.constexpr):
    """Return left · right in fp32; Triton's interpreter knows no product of bf16, so that it is told to widen first."""
    if PRECISION == "widened":
        product = tl.dot(left.to(tl.float32), right.to(tl.float32), input_precision="ieee")
    else:
        product = tl.dot(left, right, input_precision=PRECISION)
    return product


@triton.jit
def _tile(
    queries, keys, visible, rows, columns, length,
    scaling, stride_query, stride_key, stride_row, stride_column,
    WIDTH: tl.constexpr, PADDED: tl.constexpr, HAS_MASK: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Return the scores of a tile of one model, −1e30 where a key is masked or outside, and its queries and keys."""
    width = tl.arange(0, PADDED)
    is_row, is_column, is_width = rows < length, columns < length, width < WIDTH
    query = tl.load(
        queries + rows[:, None] * stride_query + width[None, :], mask=is_row[:, None] & is_width[None, :], other=0.0
    )
    key = tl.load(
        keys + columns[:, None] * stride_key + width[None, :], mask=is_column[:, None] & is_width[None, :], other=0.0
    )
    scores = _product(query, tl.trans(key), PRECISION) * scaling
    is_seen = is_row[:, None] & is_column[None, :]
    if HAS_MASK:
        places = visible + rows[:, None] * stride_row + columns[None, :] * stride_column
        is_seen = is_seen & (tl.load(places, mask=is_seen, other=0) != 0)
    return tl.where(is_seen, scores, -1.0e30), query, key


@triton.jit
def divergence(
    student_query, student_key, teacher_query, teacher_key, visible, teacher_visible, chosen,
    losses, student_sums, teacher_sums,
    heads, length, student_scaling, teacher_scaling,
    sqb, sqh, sqm, skb, skh, skm, tqb, tqh, tqm, tkb, tkh, tkm, vb, vm, vn, wb, wm, wn,
    STUDENT: tl.constexpr, STUDENT_PADDED: tl.constexpr, TEACHER: tl.constexpr, TEACHER_PADDED: tl.constexpr,
    HAS_MASK: tl.constexpr, TEACHER_HAS_MASK: tl.constexpr, PRECISION: tl.constexpr, ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):  # fmt: skip
    """Write the KL of each query of a block, 0 where it is not chosen, and log Σ exp of both models' scores.

    Args:
        student_query, student_key, teacher_query, teacher_key: (batch, heads, seq, head width), with their strides.
        visible, teacher_visible: (batch, seq, seq) of bytes, with their strides; not read without a mask.
        chosen: (batch, seq).
        losses, student_sums, teacher_sums: (batch, heads, seq) fp32, written.
    """
    block, head, sequence = tl.program_id(0), tl.program_id(1).to(tl.int64), tl.program_id(2).to(tl.int64)
    rows = block * ROWS + tl.arange(0, ROWS)
    is_row = rows < length
    student_query += sequence * sqb + head * sqh
    student_key += sequence * skb + head * skh
    teacher_query += sequence * tqb + head * tqh
    teacher_key += sequence * tkb + head * tkh
    visible += sequence * vb
    teacher_visible += sequence * wb
    top = tl.full([ROWS], -3.0e38, tl.float32)
    teacher_top = tl.full([ROWS], -3.0e38, tl.float32)
    total = tl.zeros([ROWS], tl.float32)
    teacher_total = tl.zeros([ROWS], tl.float32)
    distance = tl.zeros([ROWS], tl.float32)
    for start in range(0, length, COLUMNS):
        columns = start + tl.arange(0, COLUMNS)
        own, _, _ = _tile(student_query, student_key, visible, rows, columns, length, student_scaling, sqm, skm, vm, vn,
                          STUDENT, STUDENT_PADDED, HAS_MASK, PRECISION)  # fmt: skip
        target, _, _ = _tile(teacher_query, teacher_key, teacher_visible, rows, columns, length, teacher_scaling, tqm,
                             tkm, wm, wn, TEACHER, TEACHER_PADDED, TEACHER_HAS_MASK, PRECISION)  # fmt: skip
        new = tl.maximum(top, tl.max(own, 1))
        total = total * tl.exp(top - new) + tl.sum(tl.exp(own - new[:, None]), 1)
        top = new
        new = tl.maximum(teacher_top, tl.max(target, 1))
        shrink = tl.exp(teacher_top - new)
        part = tl.exp(target - new[:, None])
        teacher_total = teacher_total * shrink + tl.sum(part, 1)
        distance = distance * shrink + tl.sum(part * tl.where(target > -1.0e29, target - own, 0.0), 1)
        teacher_top = new
    student_sum, teacher_sum = top + tl.log(total), teacher_top + tl.log(teacher_total)
    places = (sequence * heads + head) * length + rows
    is_chosen = tl.load(chosen + sequence * length + rows, mask=is_row, other=0) != 0
    tl.store(
        losses + places, tl.where(is_chosen, distance / teacher_total - teacher_sum + student_sum, 0.0), mask=is_row
    )
    tl.store(student_sums + places, student_sum, mask=is_row)
    tl.store(teacher_sums + places, teacher_sum, mask=is_row)


@triton.jit
def _gradient_tile(
    student_query, student_key, teacher_query, teacher_key, visible, teacher_visible, chosen,
    student_sums, teacher_sums, first, sequence, rows, columns,
    length, student_scaling, teacher_scaling, sqm, skm, tqm, tkm, vm, vn, wm, wn,
    STUDENT: tl.constexpr, STUDENT_PADDED: tl.constexpr, TEACHER: tl.constexpr, TEACHER_PADDED: tl.constexpr,
    HAS_MASK: tl.constexpr, TEACHER_HAS_MASK: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Return p_student − p_teacher of a tile, 0 for queries that are not chosen, and the student's queries and keys."""
    own, query, key = _tile(student_query, student_key, visible, rows, columns, length, student_scaling, sqm, skm, vm,
                            vn, STUDENT, STUDENT_PADDED, HAS_MASK, PRECISION)  # fmt: skip
    target, _, _ = _tile(teacher_query, teacher_key, teacher_visible, rows, columns, length, teacher_scaling, tqm, tkm,
                         wm, wn, TEACHER, TEACHER_PADDED, TEACHER_HAS_MASK, PRECISION)  # fmt: skip
    is_row = rows < length
    student_sum = tl.load(student_sums + first + rows, mask=is_row, other=0.0)
    teacher_sum = tl.load(teacher_sums + first + rows, mask=is_row, other=0.0)
    is_chosen = tl.load(chosen + sequence * length + rows, mask=is_row, other=0) != 0
    student_share = tl.where(own > -1.0e29, tl.exp(own - student_sum[:, None]), 0.0)
    teacher_share = tl.where(target > -1.0e29, tl.exp(target - teacher_sum[:, None]), 0.0)
    return tl.where(is_chosen[:, None], student_share - teacher_share, 0.0), query, key


@triton.jit
def query_gradient(
    student_query, student_key, teacher_query, teacher_key, visible, teacher_visible, chosen,
    gradient, student_sums, teacher_sums,
    heads, length, student_scaling, teacher_scaling,
    sqb, sqh, sqm, skb, skh, skm, tqb, tqh, tqm, tkb, tkh, tkm, vb, vm, vn, wb, wm, wn,
    STUDENT: tl.constexpr, STUDENT_PADDED: tl.constexpr, TEACHER: tl.constexpr, TEACHER_PADDED: tl.constexpr,
    HAS_MASK: tl.constexpr, TEACHER_HAS_MASK: tl.constexpr, PRECISION: tl.constexpr, ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):  # fmt: skip
    """Write the gradient of a block of queries: scaling · Σ_keys gradient of the score · key."""
    block, head, sequence = tl.program_id(0), tl.program_id(1).to(tl.int64), tl.program_id(2).to(tl.int64)
    rows, width = block * ROWS + tl.arange(0, ROWS), tl.arange(0, STUDENT_PADDED)
    first = (sequence * heads + head) * length
    student_query += sequence * sqb + head * sqh
    student_key += sequence * skb + head * skh
    teacher_query += sequence * tqb + head * tqh
    teacher_key += sequence * tkb + head * tkh
    visible += sequence * vb
    teacher_visible += sequence * wb
    total = tl.zeros([ROWS, STUDENT_PADDED], tl.float32)
    for start in range(0, length, COLUMNS):
        columns = start + tl.arange(0, COLUMNS)
        scores, _, key = _gradient_tile(
            student_query, student_key, teacher_query, teacher_key, visible, teacher_visible, chosen,
            student_sums, teacher_sums, first, sequence, rows, columns,
            length, student_scaling, teacher_scaling, sqm, skm, tqm, tkm, vm, vn, wm, wn,
            STUDENT, STUDENT_PADDED, TEACHER, TEACHER_PADDED, HAS_MASK, TEACHER_HAS_MASK, PRECISION,
        )  # fmt: skip
        total += _product(scores.to(key.dtype), key, PRECISION)
    store = gradient + (first + rows)[:, None] * STUDENT + width[None, :]
    tl.store(store, total * student_scaling, mask=(rows < length)[:, None] & (width < STUDENT)[None, :])


@triton.jit
def key_gradient(
    student_query, student_key, teacher_query, teacher_key, visible, teacher_visible, chosen,
    gradient, student_sums, teacher_sums,
    heads, length, student_scaling, teacher_scaling,
    sqb, sqh, sqm, skb, skh, skm, tqb, tqh, tqm, tkb, tkh, tkm, vb, vm, vn, wb, wm, wn,
    STUDENT: tl.constexpr, STUDENT_PADDED: tl.constexpr, TEACHER: tl.constexpr, TEACHER_PADDED: tl.constexpr,
    HAS_MASK: tl.constexpr, TEACHER_HAS_MASK: tl.constexpr, PRECISION: tl.constexpr, ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):  # fmt: skip
    """Write the gradient of a block of keys: scaling · Σ_queries gradient of the score · query."""
    block, head, sequence = tl.program_id(0), tl.program_id(1).to(tl.int64), tl.program_id(2).to(tl.int64)
    columns, width = block * COLUMNS + tl.arange(0, COLUMNS), tl.arange(0, STUDENT_PADDED)
    student_query += sequence * sqb + head * sqh
    student_key += sequence * skb + head * skh
    teacher_query += sequence * tqb + head * tqh
    teacher_key += sequence * tkb + head * tkh
    visible += sequence * vb
    teacher_visible += sequence * wb
    first = (sequence * heads + head) * length
    total = tl.zeros([COLUMNS, STUDENT_PADDED], tl.float32)
    for start in range(0, length, ROWS):
        rows = start + tl.arange(0, ROWS)
        scores, query, _ = _gradient_tile(
            student_query, student_key, teacher_query, teacher_key, visible, teacher_visible, chosen,
            student_sums, teacher_sums, first, sequence, rows, columns,
            length, student_scaling, teacher_scaling, sqm, skm, tqm, tkm, vm, vn, wm, wn,
            STUDENT, STUDENT_PADDED, TEACHER, TEACHER_PADDED, HAS_MASK, TEACHER_HAS_MASK, PRECISION,
        )  # fmt: skip
        total += _product(tl.trans(scores.to(query.dtype)), query, PRECISION)
    store = gradient + (first + columns)[:, None] * STUDENT + width[None, :]
    tl.store(store, total * student_scaling, mask=(columns < length)[:, None] & (width < STUDENT)[None, :])
