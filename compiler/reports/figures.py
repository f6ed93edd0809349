"""How far a made tensor is from the exact one, channel by channel, over any number of samples."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class ChannelSums:
    """Sums over rows of the exact values `y` and the made ones `m`, f64 `[channels]` each."""

    signal: Array
    """`sum y^2`."""
    noise: Array
    """`sum (m - y)^2`."""
    dot: Array
    """`sum y m`."""
    made: Array
    """`sum m^2`."""
    bad: int = 0
    """Values that are finite in one of them only, or that are infinities of both signs. They are
    counted, and in no sum."""

    @staticmethod
    def of(exact: Array, made: Array) -> ChannelSums:
        """Of two arrays of a shape, whose last axis is the channels'. What is not finite in both is
        left out (memory that nothing has written yet)."""
        y = np.asarray(exact, np.float64).reshape(-1, exact.shape[-1] if exact.ndim else 1)
        m = np.asarray(made, np.float64).reshape(y.shape)
        known, seen = np.isfinite(y), np.isfinite(m)
        both = known & seen
        y, m = np.where(both, y, 0.0), np.where(both, m, 0.0)
        return ChannelSums(
            (y * y).sum(axis=0),
            ((m - y) ** 2).sum(axis=0),
            (y * m).sum(axis=0),
            (m * m).sum(axis=0),
            int(np.count_nonzero(known != seen)),
        )

    def __add__(self, other: ChannelSums) -> ChannelSums:
        return ChannelSums(
            self.signal + other.signal,
            self.noise + other.noise,
            self.dot + other.dot,
            self.made + other.made,
            self.bad + other.bad,
        )

    @property
    def noise_share(self) -> float:
        """The energy of the error over that of the exact values; infinite without a signal."""
        noise, signal = float(self.noise.sum()), float(self.signal.sum())
        if self.bad:
            return math.inf
        if noise == 0:
            return 0.0
        return noise / signal if signal > 0 else math.inf

    @property
    def snr_db(self) -> float:
        """`10 log10(signal / noise)` of all channels; infinite where nothing differs."""
        return decibels(self.noise_share)

    @property
    def cosine(self) -> float:
        """Of all values as two vectors; 1 where both are zero, 0 where one is."""
        norms = math.sqrt(float(self.signal.sum()) * float(self.made.sum()))
        if norms == 0:
            return float(self.signal.sum() == self.made.sum())
        return float(self.dot.sum()) / norms

    @property
    def channel_snr_db(self) -> Array:
        """The SNR of each channel against its own signal, f64 `[channels]`."""
        with np.errstate(divide="ignore", invalid="ignore"):
            snr = 10 * np.log10(self.signal / self.noise)
        return np.where(self.noise == 0, np.inf, snr)

    @property
    def worst_channel(self) -> int:
        """The channel with the lowest SNR."""
        return int(np.argmin(self.channel_snr_db))


def decibels(noise_share: float) -> float:
    """An SNR in dB of the energy of the noise over that of the signal."""
    if noise_share == 0:
        return math.inf
    return -10 * math.log10(noise_share) if math.isfinite(noise_share) else -math.inf


def finite(value: float | None) -> float | None:
    """For JSON: none where a value is not finite."""
    return value if value is not None and math.isfinite(value) else None
