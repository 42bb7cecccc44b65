"""Linear CKA: similarity of two layers' states of the same tokens, whatever their widths."""

from collections.abc import Iterable

import torch
from torch import Tensor


def linear_cka(x: Tensor, y: Tensor) -> Tensor:
    """Return the linear CKA of two representations of the same rows.

    It is 1 where they agree up to rotation and scale, and near 0 where they are unrelated, then as often below 0 as
    above. HSIC is taken by its unbiased estimator: with the usual one, few rows of wide layers look alike even if they
    are independent.

    Args:
        x: (rows, width of x); row i belongs to row i of `y`.
        y: (rows, width of y).

    Raises:
        ValueError: if the rows are not equally many, or fewer than 4.

    References: Kornblith et al. 2019, arXiv:1905.00414; the estimator Song et al. 2012 (JMLR 13, 1393–1434),
    in CKA Nguyen et al. 2021, arXiv:2010.15327, equation 3.
    """
    if len(x) != len(y) or len(x) < 4:
        raise ValueError(f"expected the same rows on both sides, at least 4 / got {len(x)} and {len(y)}")
    return _direction(x) @ _direction(y)


def cka_table(xs: Iterable[Tensor], ys: Iterable[Tensor]) -> list[list[float]]:
    """Return `linear_cka` of every x with every y, (xs, ys); holds (xs + 1) matrices of rows² numbers in memory."""
    directions = [_direction(x) for x in xs]
    columns = [torch.stack([x @ y for x in directions]) for y in map(_direction, ys)]
    return torch.stack(columns, dim=1).tolist()


def _direction(x: Tensor) -> Tensor:
    """Return the U-centred Gram matrix as a vector of length 1, (rows²,): CKA is the product of two of them."""
    x = x.float() - x.float().mean(0)  # U-centring removes the mean too; without it first, float32 loses more
    gram, rows = x @ x.T, len(x)
    means = gram.fill_diagonal_(0).sum(0) / (rows - 2)
    gram -= means[:, None] + means - means.sum() / (rows - 1)
    gram.fill_diagonal_(0)
    return gram.div_(gram.norm()).flatten()
