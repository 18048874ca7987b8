"""Learning-rate schedules: pure functions of the update's number. Imports no torch."""

import math

from ..config import Schedule


def factor(schedule: Schedule, update: int, total: int, per_epoch: int) -> float:
    """Compute the factor on the base learning rate for `update` (0-based) of `total`; `per_epoch` updates are an epoch.

    The schedule's lengths are in epochs, or in shares of the run where its `unit` says so. Warm-up rises linearly from
    `warmup_from` (Goyal et al. 2017, section 2.2). Cosine, polynomial and one-cycle run over the updates that are left
    after it; the drops of step and multistep are counted from the first update. Cosine is SGDR (Loshchilov and Hutter 2017)
    with `cycles` of one length; one-cycle rises and falls by cosines (Smith and Topin 2019), the momentum stays.
    """
    unit = per_epoch if schedule.unit == "epochs" else total
    warm = round(schedule.warmup * unit)
    if update < warm:
        return schedule.warmup_from + (1 - schedule.warmup_from) * update / warm
    return _CURVES[schedule.name](schedule, update, warm, max(total, warm + 1), unit)


def _progress(update: int, warm: int, total: int) -> float:
    return min(1.0, (update - warm) / (total - warm))


def _between(a: float, b: float, share: float) -> float:
    return b + (a - b) * (1 + math.cos(math.pi * share)) / 2


def _constant(s: Schedule, update: int, warm: int, total: int, unit: int) -> float:
    return 1.0


def _step(s: Schedule, update: int, warm: int, total: int, unit: int) -> float:
    return s.gamma ** (update // max(1, round(s.step * unit)))


def _multistep(s: Schedule, update: int, warm: int, total: int, unit: int) -> float:
    return s.gamma ** sum(update >= round(m * unit) for m in s.milestones)


def _cosine(s: Schedule, update: int, warm: int, total: int, unit: int) -> float:
    share = _progress(update, warm, total)
    return _between(1.0, s.final, share if share == 1 else share * s.cycles % 1)


def _polynomial(s: Schedule, update: int, warm: int, total: int, unit: int) -> float:
    return s.final + (1 - s.final) * (1 - _progress(update, warm, total)) ** s.power


def _one_cycle(s: Schedule, update: int, warm: int, total: int, unit: int) -> float:
    share = _progress(update, warm, total)
    if share < s.peak:
        return _between(s.start, 1.0, share / s.peak)
    return _between(1.0, s.final, (share - s.peak) / (1 - s.peak))


_CURVES = {
    "constant": _constant,
    "step": _step,
    "multistep": _multistep,
    "cosine": _cosine,
    "polynomial": _polynomial,
    "one_cycle": _one_cycle,
}
