"""Between the solved head's network and the fine-tuned one: which of them to keep.

Where there are few photos, fine-tuning fits them all and forgets some of what was known before. On
the straight way between the two networks there are often some that are better than both. And
where few photos validate, chance decides between networks that are nearly as good. So one that is
usually good is kept, unless another is better by more than chance.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)  # of the way from the solved head's network
_ERRORS = 2.0  # standard errors that count as more than chance
# From so many training photos a class, which share is usually the best: as found on Intel photos
# that took no part in it, for 8, 25, 100 and 500 a class. With 8, none was better than the head in
# the mean of two draws; with 25, half-way reached 86.3 % where the head had 84.6 % and the
# fine-tuned network 84.1 %; with 100 and 500, three quarters 88.7 % (87.9, 88.4) and 91.4 % (89.7,
# 91.2).
_USUAL = {0: 0.0, 15: 0.5, 50: 0.75}


def usual_share(photos_a_class: float) -> float:
    """Which share of the way is usually good, by the training photos a class.

    Example:
        >>> [usual_share(n) for n in (8, 25, 500)]
        [0.0, 0.5, 0.75]
    """
    return next(share for least, share in reversed(_USUAL.items()) if photos_a_class >= least)


def chosen_share(losses: Mapping[float, npt.NDArray[np.float64]], usual: float) -> float:
    """Which network to keep.

    Another than the usual one must have a lower mean loss on the same photos, by more than two
    standard errors of the difference; of several that do, the one with the lowest.

    Args:
        losses: for each share of the way the loss of each validation photo, (n,) float64; NaN or
            infinity where a network is of no use.
        usual: the share to keep otherwise.

    Returns:
        A share.

    Example:
        >>> a, b = np.array([0.5, 0.7, 0.2, 0.4]), np.array([0.3, 0.6, 0.1, 0.2])
        >>> chosen_share({0.5: a, 1.0: b}, 0.5)
        1.0
        >>> chosen_share({0.5: a, 1.0: a - [0.3, -0.3, 0.1, 0]}, 0.5)
        0.5

    References:
        Keeping what is simpler unless the difference exceeds its standard error: L. Breiman,
        J. Friedman, R. Olshen, C. Stone (1984), Classification and Regression Trees, section 3.4.3.
    """
    if not np.isfinite(losses[usual]).all():
        return 0.0
    better = {usual: 0.0}
    for share, of in losses.items():
        difference = of - losses[usual]
        if share == usual or len(of) < 2 or not np.isfinite(difference).all():
            continue
        error = float(difference.std(ddof=1)) / len(difference) ** 0.5
        if difference.mean() < -_ERRORS * error:
            better[share] = float(difference.mean())
    return min(better, key=lambda share: better[share])
