"""Whether an INT8 model may be trusted, and which layers must go back to floating point until it may.

Nothing here runs a model: what a choice of layers costs is measured by the functions that `search` is given.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from calibration.drift import Drift
from edge_fr.engine import Verdict
from edge_fr.errors import InputError

Kept = tuple[str, ...]  # names of layers, in the order in which they were returned to floating point
Name = Literal["mean_cosine", "p1_cosine", "ri_spearman", "mask_auc_drop", "tar_drop"]


@dataclass(frozen=True)
class Bounds:
    """What INT8 may cost.

    `mean_cosine`, least: at .99 two embeddings are 8 degrees apart, where pictures of one person are 40 and
    more: the change drowns in what any two pictures differ by. `p1_cosine`, least: the worst face of a
    hundred may turn by 16 degrees, still under half of that; a mean hides such faces. `ri_spearman`, least:
    below it faces change places in the order that decides which picture of a track counts. `mask_auc_drop`,
    greatest: half a point, the resolution of a few hundred faces. `tar_drop`, greatest: three matches in a
    thousand, at a false-accept rate of 1e-2. `float_share`, greatest: with half of the multiply-adds in
    floating point again there is little left to gain from INT8.
    """

    mean_cosine: float = 0.99
    p1_cosine: float = 0.96
    ri_spearman: float = 0.98
    mask_auc_drop: float = 0.005
    tar_drop: float = 0.003
    float_share: float = 0.5


BOUNDS = Bounds()


@dataclass(frozen=True)
class Breach:
    """A figure of a stratum (or of a condition of the labelled faces) that is worse than its bound."""

    stratum: str
    name: Name
    value: float
    bound: float

    @property
    def excess(self) -> float:
        """How many times what is allowed; more than 1."""
        if self.name in ("mask_auc_drop", "tar_drop"):
            return self.value / self.bound
        return (1 - self.value) / (1 - self.bound)

    def __str__(self) -> str:
        allowed = "at most" if self.name in ("mask_auc_drop", "tar_drop") else "at least"
        return f"{self.name} of {self.stratum} is {self.value:.4f}, allowed {allowed} {self.bound:g}"


@dataclass(frozen=True)
class Cost:
    """What one choice of layers costs: drift by stratum, how much worse `mask_prob` tells masked faces from
    clean ones (None without that output), the file's size, and milliseconds a face of the original and of
    this model, timed by turns (None where the target is another machine)."""

    strata: Mapping[str, Drift]
    mask_auc_drop: float | None
    size_bytes: int
    original_ms: float | None
    ms: float | None

    @property
    def speedup(self) -> float | None:
        """How many times as fast as the original."""
        return None if self.ms is None or self.original_ms is None else self.original_ms / self.ms


@dataclass(frozen=True)
class Trial:
    """A choice of layers in floating point, what it costs, and what is wrong with it. `tar_drops`, by
    condition, are measured only where the strata have passed."""

    kept: Kept
    float_share: float
    cost: Cost
    breaches: tuple[Breach, ...]
    tar_drops: Mapping[str, float] = field(default_factory=dict)

    @property
    def worst(self) -> Breach:
        """The breach that is furthest beyond its bound."""
        return max(self.breaches, key=lambda breach: breach.excess)


@dataclass(frozen=True)
class Harm:
    """What quantising one layer costs a stratum: by how much the error (`of`) falls when this layer alone
    goes back to floating point."""

    layer: str
    stratum: str
    of: str
    recovered: float


@dataclass(frozen=True)
class Finding:
    """The verdict, its reason in plain words, the trial that it is about, all trials in their order, and
    the layers' harm as far as it was asked for."""

    verdict: Verdict
    reason: str
    chosen: Trial
    trials: tuple[Trial, ...]
    harms: tuple[Harm, ...]


def breaches(cost: Cost, bounds: Bounds) -> tuple[Breach, ...]:
    """The figures that are worse than allowed."""

    def found() -> Iterator[Breach]:
        for stratum, drift in cost.strata.items():
            values: tuple[tuple[Name, float | None, float], ...] = (
                ("mean_cosine", drift.mean_cosine, bounds.mean_cosine),
                ("p1_cosine", drift.p1_cosine, bounds.p1_cosine),
                ("ri_spearman", drift.ri_spearman, bounds.ri_spearman),
            )
            for name, value, bound in values:
                if value is not None and not value >= bound:
                    yield Breach(stratum, name, value, bound)
        if cost.mask_auc_drop is not None and not cost.mask_auc_drop <= bounds.mask_auc_drop:
            yield Breach("masked", "mask_auc_drop", cost.mask_auc_drop, bounds.mask_auc_drop)

    return tuple(found())


def search(
    shares: Mapping[str, float],
    *,
    measure: Callable[[Kept], Cost],
    rank: Callable[[Kept, Breach], Sequence[Harm]],
    tar_drops: Callable[[Kept], Mapping[str, float]] = lambda kept: {},
    bounds: Bounds = BOUNDS,
    tell: Callable[[Trial], object] = lambda trial: None,
) -> Finding:
    """Returns layers to floating point, the most harmful to the worst figure first, until nothing breaches
    its bound or the budget is spent; then takes back those that turn out not to be needed.

    `shares` has the part of the multiply-adds of every layer that could be quantised; what is missing to 1
    is in floating point anyway. `rank` gives those layers in descending order of harm.
    """
    if not shares:
        raise InputError("the model has no layer that could compute in 8 bits: there is nothing to gain")
    always = max(0.0, 1 - sum(shares.values()))
    tried: dict[frozenset[str], Trial] = {}
    harms: dict[tuple[str, Name], Sequence[Harm]] = {}

    def share(kept: Collection[str]) -> float:
        return always + sum(shares[layer] for layer in kept)

    def attempt(kept: Kept) -> Trial:
        key = frozenset(kept)
        if key not in tried:
            cost = measure(kept)
            trial = Trial(kept, share(kept), cost, breaches(cost, bounds))
            if not trial.breaches:
                trial = _recognising(trial, tar_drops(kept), bounds)
            tried[key] = trial
            tell(trial)
        return tried[key]

    def finding(verdict: Verdict, reason: str, chosen: Trial) -> Finding:
        ranked = tuple(harm for found in harms.values() for harm in found)
        return Finding(verdict, reason, chosen, tuple(tried.values()), ranked)

    trial = attempt(())
    while trial.breaches:
        worst = trial.worst
        if (worst.stratum, worst.name) not in harms:
            harms[worst.stratum, worst.name] = rank(trial.kept, worst)
        left = [h.layer for h in harms[worst.stratum, worst.name] if h.layer not in trial.kept]
        fitting = [layer for layer in left if share({*trial.kept, layer}) <= bounds.float_share]
        if not fitting:
            best = min(tried.values(), key=lambda t: t.worst.excess)
            return finding("refused", _why_refused(best, trial, bounds), best)
        trial = attempt((*trial.kept, fitting[0]))
    for layer in trial.kept:
        fewer = attempt(tuple(name for name in trial.kept if name != layer))
        if not fewer.breaches:
            trial = fewer
    return finding("passed", _why_passed(trial), trial)


def better(trials: Sequence[Trial]) -> list[Trial]:
    """The Pareto front: those that no other trial beats at once in its worst mean cosine and in how much is
    left in floating point, which decides size and speed."""

    def worst(trial: Trial) -> float:
        return min(drift.mean_cosine for drift in trial.cost.strata.values())

    def beats(a: Trial, b: Trial) -> bool:
        no_worse = worst(a) >= worst(b) and a.float_share <= b.float_share
        return no_worse and (worst(a) > worst(b) or a.float_share < b.float_share)

    return [trial for trial in trials if not any(beats(other, trial) for other in trials)]


def _recognising(trial: Trial, drops: Mapping[str, float], bounds: Bounds) -> Trial:
    """The trial with what it recognises less."""
    found = tuple(
        Breach(condition, "tar_drop", drop, bounds.tar_drop)
        for condition, drop in drops.items()
        if not drop <= bounds.tar_drop
    )
    return replace(trial, tar_drops=dict(drops), breaches=found)


def _why_passed(trial: Trial) -> str:
    kept = f"with {', '.join(trial.kept)} in floating point" if trial.kept else "with every layer in 8 bits"
    checked = "every stratum is" if not trial.tar_drops else "every stratum and the labelled faces are"
    return f"{kept} {checked} within bounds"


def _why_refused(best: Trial, last: Trial, bounds: Bounds) -> str:
    returned = f"{len(last.kept)} layers returned" if last.kept else "no layer small enough to return"
    return (
        f"{returned} to floating point and the budget is spent: {last.float_share:.0%} of the multiply-adds "
        f"are in floating point, and any layer more would pass {bounds.float_share:.0%}; at best {best.worst}"
    )
