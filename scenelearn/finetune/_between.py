"""Between the solved head's network and the fine-tuned one: which of them to keep.

Where there are few photos, fine-tuning fits them all and forgets some of what was known before. On
the straight way between the two networks there are often some that are better than both. And
where few photos validate, chance decides between networks that are nearly as good: so the one
half-way is kept unless another is better by more than chance.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)  # of the way from the solved head's network
HALF_WAY = 0.5


def chosen_share(losses: Mapping[float, npt.NDArray[np.float64]]) -> float:
    """Which network to keep.

    Another than the one half-way must have a lower mean loss on the same photos, by more than one
    standard error of the difference; of several that do, the one with the lowest.

    Args:
        losses: for each share of the way, 0.5 among them, the loss of each validation photo, (n,)
            float64; NaN or infinity where a network is of no use.

    Returns:
        A share.

    Example:
        >>> a, b = np.array([0.5, 0.7, 0.2, 0.4]), np.array([0.3, 0.6, 0.1, 0.2])
        >>> chosen_share({0.5: a, 1.0: b}), chosen_share({0.5: a, 1.0: a - [0.3, -0.3, 0.1, 0]})
        (1.0, 0.5)

    References:
        The rule of one standard error: L. Breiman, J. Friedman, R. Olshen, C. Stone (1984),
        Classification and Regression Trees, section 3.4.3.
    """
    usual = losses[HALF_WAY]
    if not np.isfinite(usual).all():
        return 0.0
    better = {HALF_WAY: 0.0}
    for share, of in losses.items():
        difference = of - usual
        if share == HALF_WAY or len(of) < 2 or not np.isfinite(difference).all():
            continue
        error = float(difference.std(ddof=1)) / len(difference) ** 0.5
        if difference.mean() < -error:
            better[share] = float(difference.mean())
    return min(better, key=lambda share: better[share])
