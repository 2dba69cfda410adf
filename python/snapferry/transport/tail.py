"""How late reads come, as a multiple of what was predicted: a small sketch of quantiles that forgets.

A histogram over ratios, with buckets a quarter of a power of two wide, each count fading as new ones come: so a quantile is right to
within 19 % and follows a change within some fifty reads. Memory: some forty numbers.
"""

from __future__ import annotations

import math

_STEPS = 4
"""Buckets for each doubling."""

_LOWEST, _HIGHEST = -4 * _STEPS, 6 * _STEPS
_FADE = 0.98
_ENOUGH = 8.0


class Tail:
    """Quantiles of ratios.

    Arguments:
        remembered: the ninety-fifth percentile of an earlier run; it counts like a few reads.
    """

    def __init__(self, remembered: float | None = None) -> None:
        self._counts = [0.0] * (_HIGHEST - _LOWEST + 1)
        self._total = 0.0
        self._factor = 1.0
        if remembered is not None and remembered > 0:
            self._count(1.0, _ENOUGH * 0.9)
            self._count(remembered, _ENOUGH * 0.2)

    def add(self, ratio: float) -> None:
        """One read: what it took, divided by what was predicted. Of one that was given up, what it had taken by then."""
        # Instead of fading all counts, new ones grow; both are brought back before they leave the range of floats.
        self._factor /= _FADE
        if self._factor > 1e100:
            self._counts = [count / self._factor for count in self._counts]
            self._total /= self._factor
            self._factor = 1.0
        self._count(ratio, 1.0)

    def quantile(self, share: float) -> float | None:
        """The upper end of the bucket below which ``share`` (0 to 1) of the reads lie; None while there are too few to tell."""
        if self._total < _ENOUGH * self._factor:
            return None
        sum_, wanted = 0.0, share * self._total
        for number, count in enumerate(self._counts):
            sum_ += count
            if sum_ >= wanted:
                return math.exp2((number + _LOWEST) / _STEPS)
        return math.exp2(_HIGHEST / _STEPS)

    def _count(self, ratio: float, weight: float) -> None:
        bucket = _LOWEST if ratio <= 0 else math.ceil(math.log2(ratio) * _STEPS - 1e-9) if math.isfinite(ratio) else _HIGHEST
        self._counts[min(_HIGHEST, max(_LOWEST, bucket)) - _LOWEST] += weight * self._factor
        self._total += weight * self._factor
