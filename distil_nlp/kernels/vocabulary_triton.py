"""The Triton kernel of `vocabulary.py`: soft targets and labels of a chunk of vocabulary logits, and their gradient.

A program has one row. It reads the logits of both models once for their maxima, sums and losses (online softmax,
Milakov & Gimelshein 2018, arXiv:1805.02867), and once more to write the gradient over the student's logits. All sums
are in fp32, whatever the dtype of the logits, and no softmax is ever in memory.
"""

import triton
import triton.language as tl


@triton.jit
def losses_and_gradient(
    student, teacher, labels, taught, factors, soft_loss, hard_loss,
    words, student_stride, teacher_stride, temperature,
    HAS_SOFT: tl.constexpr, HAS_HARD: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Write the losses of a row, and their gradient over the student's logits.

    Args:
        student: (rows, words) logits, overwritten.
        teacher: (rows, words) logits of any dtype.
        labels: (rows,), −100 for rows without.
        taught: (rows,), 1 for rows with soft targets.
        factors: (2,) fp32, of the soft targets and of the labels in the loss.
        soft_loss: (rows,) fp32, T² · KL(teacher ‖ student); 0 for rows that are not taught.
        hard_loss: (rows,) fp32, cross-entropy; 0 for rows without a label.
        words: columns.
        student_stride: elements from row to row.
        teacher_stride: elements from row to row.
        temperature: T > 0.
        HAS_SOFT: whether any row is taught.
        HAS_HARD: whether any row has a label.
        BLOCK: columns that are read at a time.
    """
    row = tl.program_id(0).to(tl.int64)
    student += row * student_stride
    teacher += row * teacher_stride
    label = tl.load(labels + row)
    is_taught = tl.load(taught + row) != 0
    has_label = label >= 0
    lowest = -3.0e38
    inverse = 1.0 / temperature

    top_soft, sum_soft, top_teacher, sum_teacher, distance = lowest, 0.0, lowest, 0.0, 0.0
    top_hard, sum_hard, chosen = lowest, 0.0, 0.0
    for start in range(0, words, BLOCK):
        columns = start + tl.arange(0, BLOCK)
        is_word = columns < words
        logits = tl.load(student + columns, mask=is_word, other=0.0).to(tl.float32)
        if HAS_SOFT:
            own = logits * inverse
            target = tl.load(teacher + columns, mask=is_word, other=0.0).to(tl.float32) * inverse
            top = tl.maximum(top_soft, tl.max(tl.where(is_word, own, lowest), 0))
            part = tl.where(is_word, tl.exp(own - top), 0.0)
            sum_soft = sum_soft * tl.exp(top_soft - top) + tl.sum(part, 0)
            top_soft = top
            top = tl.maximum(top_teacher, tl.max(tl.where(is_word, target, lowest), 0))
            part = tl.where(is_word, tl.exp(target - top), 0.0)
            shrink = tl.exp(top_teacher - top)
            sum_teacher = sum_teacher * shrink + tl.sum(part, 0)
            distance = distance * shrink + tl.sum(part * (target - own), 0)
            top_teacher = top
        if HAS_HARD:
            top = tl.maximum(top_hard, tl.max(tl.where(is_word, logits, lowest), 0))
            sum_hard = sum_hard * tl.exp(top_hard - top) + tl.sum(tl.where(is_word, tl.exp(logits - top), 0.0), 0)
            top_hard = top
            chosen += tl.sum(tl.where(columns == label, logits, 0.0), 0)

    if HAS_SOFT:
        divergence = distance / sum_teacher - (top_teacher + tl.log(sum_teacher)) + (top_soft + tl.log(sum_soft))
        tl.store(soft_loss + row, tl.where(is_taught, divergence * temperature * temperature, 0.0))
    if HAS_HARD:
        tl.store(hard_loss + row, tl.where(has_label, top_hard + tl.log(sum_hard) - chosen, 0.0))

    soft_factor = tl.where(is_taught, tl.load(factors), 0.0) * temperature
    hard_factor = tl.where(has_label, tl.load(factors + 1), 0.0)
    for start in range(0, words, BLOCK):
        columns = start + tl.arange(0, BLOCK)
        is_word = columns < words
        logits = tl.load(student + columns, mask=is_word, other=0.0).to(tl.float32)
        gradient = tl.zeros([BLOCK], dtype=tl.float32)
        if HAS_SOFT:
            target = tl.load(teacher + columns, mask=is_word, other=0.0).to(tl.float32) * inverse
            own = tl.exp(logits * inverse - top_soft) / sum_soft
            gradient += soft_factor * (own - tl.exp(target - top_teacher) / sum_teacher)
        if HAS_HARD:
            own = tl.exp(logits - top_hard) / sum_hard
            gradient += hard_factor * (own - tl.where(columns == label, 1.0, 0.0))
        tl.store(student + columns, gradient.to(student.dtype.element_ty), mask=is_word)
