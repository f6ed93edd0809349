"""Sums by channel, and what is read from them."""

from __future__ import annotations

import math

import numpy as np
import pytest

from tilewright.compiler.reports.figures import ChannelSums, decibels, finite

RNG = np.random.default_rng(0)
EXACT = RNG.standard_normal((40, 6))
MADE = EXACT + RNG.standard_normal((40, 6)) * np.array([0.1, 0.2, 0.01, 0.1, 0.3, 0.1])


def test_figures_are_those_of_all_values_together() -> None:
    sums = ChannelSums.of(EXACT, MADE)
    noise = np.linalg.norm(MADE - EXACT) ** 2
    assert sums.snr_db == pytest.approx(10 * math.log10(np.linalg.norm(EXACT) ** 2 / noise))
    cosine = (EXACT * MADE).sum() / np.linalg.norm(EXACT) / np.linalg.norm(MADE)
    assert sums.cosine == pytest.approx(cosine)
    assert sums.worst_channel == 4
    channel = 10 * math.log10((EXACT[:, 4] ** 2).sum() / ((MADE - EXACT)[:, 4] ** 2).sum())
    assert sums.channel_snr_db[4] == pytest.approx(channel)


def test_sums_of_parts_are_those_of_the_whole() -> None:
    parts = ChannelSums.of(EXACT[:7], MADE[:7]) + ChannelSums.of(EXACT[7:], MADE[7:])
    assert parts.snr_db == pytest.approx(ChannelSums.of(EXACT, MADE).snr_db)


def test_what_is_finite_on_one_side_alone_spoils_the_figures() -> None:
    made = EXACT.copy()
    made[3, 2] = np.nan
    sums = ChannelSums.of(EXACT, made)
    assert (sums.bad, sums.snr_db) == (1, -math.inf)
    unwritten = EXACT.copy()
    unwritten[3, 2] = np.nan
    assert ChannelSums.of(unwritten, made).snr_db == math.inf


def test_nothing_and_everything() -> None:
    zeros = np.zeros((2, 3))
    assert ChannelSums.of(zeros, zeros).cosine == 1
    assert ChannelSums.of(zeros, zeros).snr_db == math.inf
    assert ChannelSums.of(zeros, zeros + 1).snr_db == -math.inf
    assert ChannelSums.of(zeros, zeros + 1).cosine == 0
    assert (decibels(0.01), finite(math.inf), finite(2.0), finite(None)) == (20, None, 2, None)
