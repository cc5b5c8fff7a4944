"""The exact search in memory, compared with the plain definition in float64."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from edge_fr.errors import InputError
from edge_fr.gallery.index import Index, unit_rows


def unit(rng: np.random.Generator, count: int, size: int = 16) -> NDArray[np.float32]:
    rows = rng.standard_normal((count, size))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def names_of(owners: NDArray[np.int64]) -> dict[int, str]:
    return {int(owner): f"name {int(owner):06d}" for owner in owners}


def index_of(owners: NDArray[np.int64], rows: NDArray[np.float32]) -> Index:
    index = Index(rows.shape[1])
    index.append(owners, rows)
    return index


def plain_search(
    owners: NDArray[np.int64], rows: NDArray[np.float32], probe: NDArray[np.float32], k: int
) -> list[tuple[str, float, float]]:
    """What `search` promises, spelled out: (name, score, margin) of the k best."""
    scores: dict[str, float] = {}
    for owner, row in zip(owners, rows, strict=True):
        name = f"name {int(owner):06d}"
        score = float(np.clip(np.dot(row.astype(np.float64), probe.astype(np.float64)), -1, 1))
        scores[name] = max(scores.get(name, -2.0), score)
    ranked = sorted(scores.items(), key=lambda item: (-item[1], item[0]))
    following = [score for _, score in ranked[1:]] + [np.nan]
    return [(n, s, s - after) for (n, s), after in zip(ranked, following, strict=True)][:k]


def assert_same(
    index: Index, owners: NDArray[np.int64], rows: NDArray[np.float32], probes: NDArray[np.float32], k: int
) -> None:
    matches = index.search(probes, k, names_of(owners))
    assert len(matches) == len(probes)
    for probe, found in zip(probes, matches.candidates, strict=True):
        expected = plain_search(owners, rows, probe, k)
        assert [c.identity for c in found] == [name for name, _, _ in expected]
        # Both are float64 sums of the same products in another order: 16 roundings of 1e-16 each.
        np.testing.assert_allclose([c.score for c in found], [s for _, s, _ in expected], atol=1e-14)
        margins = [np.nan if c.margin is None else c.margin for c in found]  # None: there is nobody behind
        np.testing.assert_allclose(margins, [m for _, _, m in expected], atol=1e-14)


@settings(max_examples=60, deadline=None)
@given(
    count=st.integers(1, 3000),
    people=st.integers(1, 400),
    probes=st.integers(0, 4),
    k=st.integers(1, 12),
    seed=st.integers(0, 2**32 - 1),
)
def test_a_search_gives_what_comparing_everything_gives(
    count: int, people: int, probes: int, k: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    owners, rows = rng.integers(0, people, count), unit(rng, count)
    assert_same(index_of(owners, rows), owners, rows, unit(rng, probes), k)


@pytest.mark.parametrize("crowd", [100, 2000, 19_990])
def test_an_identity_that_owns_all_the_nearest_templates_does_not_hide_the_others(crowd: int) -> None:
    rng = np.random.default_rng(crowd)
    probe = unit(rng, 1)
    near = probe + 0.05 * unit(rng, crowd)
    rows = np.concatenate([near / np.linalg.norm(near, axis=1, keepdims=True), unit(rng, 20_000 - crowd)])
    owners = np.concatenate([np.full(crowd, 7), 10 + np.arange(20_000 - crowd) // 3])
    order = rng.permutation(20_000)
    assert_same(index_of(owners[order], rows[order]), owners[order], rows[order], probe, 3)


def test_equal_templates_tie_and_are_ordered_by_name_wherever_they_lie() -> None:
    rng = np.random.default_rng(1)
    rows = unit(rng, 5000, 128)
    owners = np.arange(5000)
    rows[rng.choice(5000, 40, replace=False)] = rows[17]
    twins = np.flatnonzero((rows == rows[17]).all(axis=1))
    assert len(twins) >= 40
    found = index_of(owners, rows).search(rows[17:18], 25, names_of(owners))[0]
    assert [c.identity for c in found] == [f"name {owner:06d}" for owner in sorted(twins)[:25]]
    assert {c.score for c in found} == {found[0].score}
    assert [c.margin for c in found] == [0.0] * 25


def test_scores_closer_than_float32_can_tell_are_still_put_in_order() -> None:
    rng = np.random.default_rng(8)
    probe = unit(rng, 1, 512)
    # Cosines of 0.7 but for the rounding of the rows, which is less than that of a float32 product.
    across = rng.standard_normal((3000, 512))
    across -= (across @ probe[0])[:, None] * probe
    across /= np.linalg.norm(across, axis=1, keepdims=True)
    rows = (0.7 * probe + np.sqrt(1 - 0.7**2) * across).astype(np.float32)
    owners = rng.permutation(3000)
    assert_same(index_of(owners, rows), owners, rows, probe, 5)


def test_a_score_depends_neither_on_the_other_probes_nor_on_where_the_template_lies() -> None:
    rng = np.random.default_rng(2)
    rows, owners = unit(rng, 4097, 512), np.arange(4097)
    probes = unit(rng, 33, 512)
    names = names_of(owners)
    together = index_of(owners, rows).search(probes, 3, names)
    turned = index_of(owners[::-1].copy(), rows[::-1].copy())
    for i in range(33):
        assert turned.search(probes[i : i + 1], 3, names)[0] == together[i]


def test_a_score_is_never_above_one() -> None:
    rng = np.random.default_rng(3)
    rows, owners = unit(rng, 500, 128), np.arange(500)
    best = [found[0].score for found in index_of(owners, rows).search(rows, 1, names_of(owners)).candidates]
    assert max(best) <= 1.0
    assert min(best) > 1 - 1e-6  # float32 rows of length 1 within a rounding


def test_what_is_removed_is_not_found_and_the_rest_still_is() -> None:
    rng = np.random.default_rng(4)
    owners, rows = rng.integers(0, 100, 1000), unit(rng, 1000)
    index = Index(16)
    for start in range(0, 1000, 7):  # many growths
        index.append(owners[start : start + 7], rows[start : start + 7])
    index.remove(np.array([3, 50, 99, 12345]))
    left = ~np.isin(owners, [3, 50, 99])
    assert len(index) == left.sum()
    assert index.owner_counts() == {int(o): int((owners == o).sum()) for o in np.unique(owners[left])}
    assert_same(index, owners[left], rows[left], unit(rng, 5), 10)
    index.remove(np.unique(owners))
    assert len(index) == 0
    assert index.search(unit(rng, 2), 5, {}).candidates == ((), ())


def test_the_index_keeps_its_own_copy() -> None:
    rng = np.random.default_rng(5)
    owners, rows = np.arange(10), unit(rng, 10)
    index = index_of(owners, rows)
    probe = rows[4:5].copy()
    rows[:] = 0
    assert index.search(probe, 1, names_of(owners))[0][0].identity == "name 000004"


def test_the_last_identity_has_nobody_to_lead() -> None:
    rows = np.eye(4, dtype=np.float32)[:1]
    (only,) = index_of(np.array([1]), rows).search(rows, 5, {1: "Anna"})[0]
    assert (only.identity, only.score, only.margin) == ("Anna", 1.0, None)


def test_the_margin_looks_at_the_next_identity_even_when_it_is_not_listed() -> None:
    rows = np.array([[1, 0], [0.6, 0.8]], np.float32)
    (best,) = index_of(np.array([1, 2]), rows).search(rows[:1], 1, {1: "Anna", 2: "Bea"})[0]
    assert best.margin == pytest.approx(0.4, abs=1e-7)  # 0.6 in float32


def test_rows_within_one_percent_of_length_one_are_normalised() -> None:
    rng = np.random.default_rng(6)
    rows = unit(rng, 8)
    scaled = rows * np.linspace(0.991, 1.009, 8, dtype=np.float32)[:, None]
    for given_rows in (scaled, scaled.astype(np.float64), rows.astype(np.float16)):
        made = unit_rows(given_rows, 16, "embeddings")
        assert made.dtype == np.float32
        # one float32 rounding
        np.testing.assert_allclose(np.linalg.norm(made.astype(np.float64), axis=1), 1, atol=1e-7)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda rows: rows[0], r"got \(16,\) .*embedding\[None\]"),
        (lambda rows: rows[:, :15], r"need shape \(N, 16\) .* got \(3, 15\)"),
        (lambda rows: np.ones((3, 16), np.int64), "floating dtype, got .* int64"),
        (lambda rows: rows * np.float32(1.02), "row 0 has length 1.02, expected 1"),
        (lambda rows: rows * 0, "row 0 has length 0, expected 1"),
        (lambda rows: np.where(np.arange(3)[:, None] == 2, np.nan, rows), "row 2 holds NaN or infinite"),
        (lambda rows: np.where(np.arange(3)[:, None] == 1, np.inf, rows), "row 1 holds NaN or infinite"),
        (lambda rows: np.full((3, 16), 1e300), "row 0 holds NaN or infinite"),
    ],
)
def test_rows_that_no_embedder_puts_out_are_refused(change, message: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(InputError, match=message):
        unit_rows(change(unit(np.random.default_rng(7), 3)), 16, "probes")
