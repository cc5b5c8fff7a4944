"""What a gallery promises: enrolled people stay, are found, and go when they are removed."""

from __future__ import annotations

import sqlite3
import tempfile
import unicodedata
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fakes import card
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from numpy.typing import NDArray

from edge_fr.cli import main
from edge_fr.errors import (
    CardError,
    GalleryError,
    GalleryFileError,
    GalleryModelError,
    InputError,
    UnknownIdentityError,
)
from edge_fr.gallery import Gallery
from edge_fr.gallery.database import checksum

SIZE = 8
CARD = card(embedding_size=SIZE, template="arcface-112")


def unit(seed: int, count: int = 1, size: int = SIZE) -> NDArray[np.float32]:
    rows = np.random.default_rng(seed).standard_normal((count, size))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def same(a: NDArray[np.float32], b: NDArray[np.float32]) -> bool:
    # kept rows are normalised once more: one float32 rounding
    return a.shape == b.shape and bool(np.allclose(a, b, atol=1e-7))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "people.db"


def test_who_was_enrolled_is_there_after_opening_again(path: Path) -> None:
    before = datetime.now(timezone.utc) - timedelta(microseconds=1)
    with Gallery.open(path, CARD, create=True) as gallery:
        assert gallery.add("Grace", unit(1, 3), qualities=[0.5, 1, -0.0], sources=["a.jpg", "b.jpg", ""]) == 3
        assert gallery.add("Ada", unit(2, 2)) == 2
        assert gallery.add("Grace", unit(3)) == 4
    with Gallery.open(path, CARD) as gallery:
        assert [(p.identity, p.templates) for p in gallery.identities()] == [("Ada", 2), ("Grace", 4)]
        assert before <= gallery.identities()[0].enrolled_at <= datetime.now(timezone.utc)
        assert (len(gallery), gallery.template_count) == (2, 6)
        kept = gallery.templates("Grace")
        assert kept.dtype == np.float32
        assert same(kept, np.concatenate([unit(1, 3), unit(3)]))
        origin = gallery.provenance("Grace")
        assert [t.quality for t in origin] == [0.5, 1.0, 0.0, None]
        assert [t.source for t in origin] == ["a.jpg", "b.jpg", "", ""]
        assert all(before <= t.added_at <= datetime.now(timezone.utc) for t in origin)
        assert gallery.search(unit(3))[0][0].identity == "Grace"


def test_enrolled_at_is_the_time_of_the_first_template(path: Path) -> None:
    with Gallery.open(path, CARD, create=True) as gallery:
        gallery.add("Ada", unit(1))
        first = gallery.identities()
        gallery.add("Ada", unit(2))
        assert gallery.identities()[0].enrolled_at == first[0].enrolled_at
        assert gallery.provenance("Ada")[1].added_at > first[0].enrolled_at


def test_an_empty_gallery_answers_with_empty_tuples(path: Path) -> None:
    with Gallery.open(path, CARD, create=True) as gallery:
        assert gallery.search(unit(1, 3)).candidates == ((), (), ())
        assert gallery.search(np.zeros((0, SIZE), np.float32)).candidates == ()
        assert gallery.identities() == ()
    with Gallery.open(path, CARD) as gallery:
        assert (len(gallery), gallery.template_count) == (0, 0)


def test_a_gallery_in_memory_needs_no_file_and_leaves_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with Gallery.open(":memory:", CARD) as gallery:
        gallery.add("Ada", unit(1))
        gallery.refresh()
        assert gallery.search(unit(1))[0][0].identity == "Ada"
        assert gallery.remove("Ada") == 1
    with Gallery.open(":memory:", CARD) as gallery:
        assert len(gallery) == 0
    # Files alone: hypothesis keeps its folder in the current directory, and may make it at any time.
    assert [p for p in tmp_path.iterdir() if p.is_file()] == []


def test_an_identity_s_score_is_that_of_what_its_templates_have_in_common(path: Path) -> None:
    axes = np.eye(SIZE, dtype=np.float32)
    with Gallery.open(path, CARD, create=True) as gallery:
        gallery.add("Ada", axes[[0, 1]])
        gallery.add("Grace", axes[[3]])
        probe = (axes[0] * 0.64 + axes[1] * 0.48 + axes[3] * 0.6)[None].astype(np.float32)
        ada, grace = gallery.search(probe)[0]
        # rounded to float32
        assert (ada.identity, ada.score) == ("Ada", pytest.approx(1.12 / np.sqrt(2), abs=1e-6))
        assert ada.margin == pytest.approx(1.12 / np.sqrt(2) - 0.6, abs=1e-6)
        assert (grace.identity, grace.score) == ("Grace", pytest.approx(0.6, abs=1e-6))
        assert grace.margin is None  # there is nobody behind
        assert len(gallery.search(probe, k=1)[0]) == 1


def test_a_probe_s_mean_score_with_others_leaves_out_the_best(path: Path) -> None:
    axes = np.eye(SIZE, dtype=np.float32)
    with Gallery.open(path, CARD, create=True) as gallery:
        gallery.add("Ada", axes[:1])
        assert gallery.search(axes[:1]).others == (None,)
        gallery.add("Grace", axes[1:2])
        gallery.add("Zoë", axes[2:3])
        probe = np.zeros((1, SIZE), np.float32)
        probe[0, :3] = 0.8, 0.6, 0.0
        matches = gallery.search(probe, k=1)
        assert matches[0][0].identity == "Ada"
        assert matches.others == (pytest.approx(0.3, abs=1e-6),)  # rounded to float32


def test_people_who_look_like_one_are_listed_the_most_alike_first(path: Path) -> None:
    angles = np.deg2rad([0, 10, 90, 115])
    rows = np.zeros((4, SIZE), np.float32)
    rows[:, 0], rows[:, 1] = np.cos(angles), np.sin(angles)
    with Gallery.open(path, CARD, create=True) as gallery:
        for name, row in zip(("Zoë", "Ada", "Grace", "Alan"), rows, strict=True):
            gallery.add(name, row[None])
        pairs = gallery.lookalikes(0.9)
        assert [pair[:2] for pair in pairs] == [("Ada", "Zoë"), ("Alan", "Grace")]
        assert [pair[2] for pair in pairs] == pytest.approx(np.cos(np.deg2rad([10, 25])), abs=1e-6)
        gallery.remove("Ada")
        assert [pair[:2] for pair in gallery.lookalikes(0.9)] == [("Alan", "Grace")]
        assert gallery.cohort.people == 3


def test_removing_erases_the_person_from_search_and_list(path: Path) -> None:
    with Gallery.open(path, CARD, create=True) as gallery:
        gallery.add("Ada", unit(1, 2))
        gallery.add("Grace", unit(2))
        assert gallery.remove("Ada") == 2
        assert [p.identity for p in gallery.identities()] == ["Grace"]
        assert [c.identity for c in gallery.search(unit(1))[0]] == ["Grace"]
    with Gallery.open(path, CARD) as gallery:
        assert [p.identity for p in gallery.identities()] == ["Grace"]


def test_what_is_removed_is_overwritten_in_the_file(path: Path) -> None:
    with Gallery.open(path, CARD, create=True) as gallery:
        gallery.add("Ada", unit(1, 40), sources=["ada.jpg"] * 40)
        gallery.add("Grace", unit(2))
        first, last = gallery.templates("Ada")[[0, -1]]
        content = path.read_bytes()
        traces = [first.tobytes(), last.tobytes(), b"Ada", b"ada.jpg"]
        assert all(trace in content for trace in traces)
        gallery.remove("Ada")
        content = path.read_bytes()
        assert not any(trace in content for trace in traces)
        assert b"Grace" in content


def test_removing_somebody_unknown_names_those_who_are_close(path: Path) -> None:
    with Gallery.open(path, CARD, create=True) as gallery:
        for seed, name in enumerate(["Ada Lovelace", "Grace Hopper", "Ada Loveless"]):
            gallery.add(name, unit(seed))
        with pytest.raises(
            UnknownIdentityError, match=r"'Ada Lovelac' .* close: 'Ada Lovelace', 'Ada Loveless'"
        ):
            gallery.remove("Ada Lovelac")
        with pytest.raises(
            UnknownIdentityError, match=r"'Zoe' is enrolled in .*people.db; `edge-fr gallery list`"
        ):
            gallery.templates("Zoe")
        with pytest.raises(KeyError):
            gallery.provenance("Zoe")
        assert len(gallery) == 3


def test_names_are_kept_in_composed_form_and_found_in_any(path: Path) -> None:
    composed, decomposed = (
        unicodedata.normalize("NFC", "Zoë Kádár"),
        unicodedata.normalize("NFD", "Zoë Kádár"),
    )
    assert composed != decomposed
    with Gallery.open(path, CARD, create=True) as gallery:
        gallery.add(decomposed, unit(1))
        gallery.add(f"  {composed}\n", unit(2))
        assert [p.identity for p in gallery.identities()] == [composed]
        assert len(gallery.templates(decomposed)) == 2
        assert gallery.remove(decomposed) == 2


@pytest.mark.parametrize(
    "name",
    [
        "'; DROP TABLE people; --",
        '"',
        "%",
        "_",
        "a' OR '1'='1",
        "?",
        ":name",
        "NULL",
        "李小龍",
        "🙂",
        "a" * 200,
        "0",
        "-1",
    ],
)
def test_any_printable_name_is_only_a_name(path: Path, name: str) -> None:
    with Gallery.open(path, CARD, create=True) as gallery:
        gallery.add("Bystander", unit(1))
        gallery.add(name, unit(2), sources=[name])
        assert {p.identity for p in gallery.identities()} == {"Bystander", name}
        assert gallery.search(unit(2))[0][0].identity == name
        assert gallery.provenance(name)[0].source == name
        assert gallery.remove(name) == 1
        assert [p.identity for p in gallery.identities()] == ["Bystander"]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("", "has 0 characters, expected 1 to 200"),
        (" \t\n", "has 0 characters"),
        ("a" * 201, "has 201 characters"),
        ("a\nb", r"control character '\\n'"),
        ("a\x00b", r"control character '\\x00'"),
        ("a\x7fb", r"control character '\\x7f'"),
        ("a\u2028b", r"control character '\\u2028'"),
        ("a\ud800b", r"control character '\\ud800'"),
        ("An\u200bna", r"'An\\u200bna' holds ZERO WIDTH SPACE \(U\+200B\), which cannot be seen"),
        ("\u202eannA", r"RIGHT-TO-LEFT OVERRIDE \(U\+202E\)"),
        ("An\ufe0fna", r"VARIATION SELECTOR-16 \(U\+FE0F\)"),
        ("An\U000e0100na", r"VARIATION SELECTOR-17 \(U\+E0100\)"),
        ("Anna\U000e0041", r"TAG LATIN CAPITAL LETTER A \(U\+E0041\)"),
        ("An\u00adna", r"SOFT HYPHEN \(U\+00AD\)"),
        ("An\u3164na", r"HANGUL FILLER \(U\+3164\)"),
        ("Anna\u00a0K", r"NO-BREAK SPACE \(U\+00A0\), which cannot be seen or told from a space"),
        ("Anna\u3000K", r"IDEOGRAPHIC SPACE \(U\+3000\)"),
    ],
)
def test_a_name_that_cannot_be_shown_is_refused(path: Path, name: str, message: str) -> None:
    with Gallery.open(path, CARD, create=True) as gallery:
        with pytest.raises(InputError, match=message):
            gallery.add(name, unit(1))
        assert len(gallery) == 0


def test_a_name_with_hidden_characters_from_an_earlier_version_is_listed_and_removed(
    path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    hidden = "An\u200bna\u202e"
    with Gallery.open(path, CARD, create=True) as gallery:
        gallery.add("Anna", unit(1))
        gallery.add("Ann", unit(2))
    with sqlite3.connect(path) as db:  # as one that did not look so closely wrote it
        (since,) = db.execute("SELECT enrolled_at_us FROM people WHERE identity = 'Ann'").fetchone()
        row = (hidden, checksum(hidden, since, 1))
        db.execute("UPDATE people SET identity = ?, crc32 = ? WHERE identity = 'Ann'", row)
    db.close()
    with Gallery.open(path, CARD) as gallery:
        assert gallery.search(unit(2))[0][0].identity == hidden
        assert len(gallery.templates(hidden)) == 1
    assert main(["gallery", "list", "--gallery", str(path)]) == 0
    assert r"An\u200bna\u202e  1 templates" in capsys.readouterr().out
    assert main(["gallery", "remove", r"An\u200bna\u202e", "--gallery", str(path)]) == 0
    assert r"removed An\u200bna\u202e, 1 templates" in capsys.readouterr().out
    with Gallery.open(path, CARD) as gallery:
        assert [p.identity for p in gallery.identities()] == ["Anna"]


@pytest.mark.parametrize(
    ("embeddings", "options", "message"),
    [
        (np.zeros((0, SIZE), np.float32), {}, "nothing to enroll for 'Ada': got 0 embeddings"),
        (unit(1)[0], {}, r"embeddings need shape \(N, 8\) .* embedding\[None\]"),
        (unit(1, 2, 4), {}, r"got \(2, 4\)"),
        ([[1.0, 0.0], [1.0]], {}, r"embeddings need shape \(N, 8\), got rows of different lengths"),
        (None, {}, r"embeddings need shape \(N, 8\) .* got \(\)"),
        (unit(1) * 2, {}, "embeddings row 0 has length 2"),
        (unit(1) * np.nan, {}, "embeddings row 0 holds NaN"),
        (unit(1, 2), {"qualities": [0.5]}, "qualities need 2 numbers from 0 to 1"),
        (unit(1), {"qualities": [1.5]}, "qualities need 1 numbers"),
        (unit(1), {"qualities": [np.nan]}, "qualities need 1 numbers"),
        (unit(1, 2), {"sources": ["a"]}, "sources need 2 texts"),
        (unit(1, 2), {"sources": "ab"}, "sources need 2 texts"),
    ],
)
def test_what_cannot_be_enrolled_is_refused_and_changes_nothing(
    path: Path, embeddings: NDArray[np.float32], options: dict[str, Any], message: str
) -> None:
    with Gallery.open(path, CARD, create=True) as gallery:
        gallery.add("Ada", unit(9))
        with pytest.raises(InputError, match=message):
            gallery.add("Ada", embeddings, **options)
        assert len(gallery.templates("Ada")) == 1


def test_a_search_with_probes_that_were_not_embedded_says_so(path: Path) -> None:
    with Gallery.open(path, CARD, create=True) as gallery:
        with pytest.raises(InputError, match=r"probes row 1 holds NaN .* pass only those"):
            gallery.search(np.concatenate([unit(1), unit(2) * np.nan]))
        with pytest.raises(InputError, match="k is 0"):
            gallery.search(unit(1), k=0)


def test_equal_templates_are_kept_twice(path: Path) -> None:
    with Gallery.open(path, CARD, create=True) as gallery:
        gallery.add("Ada", np.repeat(unit(1), 2, axis=0))
        assert gallery.add("Ada", unit(1)) == 3


def test_a_source_that_is_no_unicode_is_kept_readable(path: Path) -> None:
    with Gallery.open(path, CARD, create=True) as gallery:
        gallery.add("Ada", unit(1), sources=["caf\udce9.jpg"])  # how Python gives a Latin-1 file name
        assert gallery.provenance("Ada")[0].source == r"caf\udce9.jpg"


@pytest.mark.parametrize(
    ("change", "difference"),
    [
        ({"weights_digest": "sha256:other"}, "weights_digest sha256:fake there, sha256:other here"),
        ({"embedding_size": 16}, "embedding_size 8 there, 16 here"),
        ({"template": None}, "template arcface-112 there, None here"),
    ],
)
def test_a_gallery_of_another_model_is_refused(path: Path, change: dict[str, Any], difference: str) -> None:
    with Gallery.open(path, CARD, create=True) as gallery:
        gallery.add("Ada", unit(1))
    content = path.read_bytes()
    other = card(**{"embedding_size": SIZE, "template": "arcface-112", "name": "other", **change})
    for create in (False, True):
        with pytest.raises(
            GalleryModelError, match=f"enrolled with 'fake', but 'other' is loaded .*{difference}.*edge-fr"
        ):
            Gallery.open(path, other, create=create)
    assert path.read_bytes() == content


def test_another_precision_of_the_same_weights_is_welcome(path: Path) -> None:
    Gallery.open(path, CARD, create=True).close()
    int8 = card(embedding_size=SIZE, template="arcface-112", precision="int8", calibration_digest="sha256:c")
    with Gallery.open(path, int8) as gallery:
        assert gallery.card == int8


def test_without_a_card_the_gallery_takes_its_own(path: Path) -> None:
    with Gallery.open(path, CARD, create=True) as gallery:
        gallery.add("Ada", unit(1))
    with Gallery.open(path, None) as gallery:
        assert gallery.card == CARD
        assert gallery.remove("Ada") == 1


def test_what_makes_no_sense_together_is_refused(path: Path) -> None:
    with pytest.raises(InputError, match="needs the card of the embedder"):
        Gallery.open(path, None, create=True)
    with pytest.raises(InputError, match="needs the card of the embedder"):
        Gallery.open(":memory:", None)
    with pytest.raises(InputError, match="cannot be read_only"):
        Gallery.open(path, CARD, create=True, read_only=True)
    with pytest.raises(CardError, match="expected one for 'embed'"):
        Gallery.open(path, card(task="detect", head="yunet"), create=True)
    assert not path.exists()


def test_a_read_only_gallery_searches_and_refuses_to_change(path: Path) -> None:
    with Gallery.open(path, CARD, create=True) as gallery:
        gallery.add("Ada", unit(1))
    content = path.read_bytes()
    with Gallery.open(path, CARD, read_only=True) as gallery:
        assert gallery.search(unit(1))[0][0].identity == "Ada"
        with pytest.raises(GalleryFileError, match=r"cannot add to gallery .*read_only=True"):
            gallery.add("Grace", unit(2))
        with pytest.raises(GalleryFileError, match=r"cannot remove from gallery .*read_only=True"):
            gallery.remove("Ada")
    assert path.read_bytes() == content


def test_a_closed_gallery_says_that_it_is_closed(path: Path) -> None:
    gallery = Gallery.open(path, CARD, create=True)
    gallery.close()
    gallery.close()
    for use in (
        lambda: gallery.add("Ada", unit(1)),
        lambda: gallery.search(unit(1)),
        lambda: gallery.identities(),
        lambda: gallery.refresh(),
    ):
        with pytest.raises(GalleryError, match="is closed"):
            use()


def test_threads_may_share_a_gallery(path: Path) -> None:
    with Gallery.open(path, CARD, create=True, refresh_s=0) as gallery:
        gallery.add("Ada", unit(0))

        def work(number: int) -> set[str]:
            found = set()
            for i in range(5):
                gallery.add(f"Person {number}", unit(100 * number + i))
                found.add(gallery.search(unit(0))[0][0].identity)
            return found

        with ThreadPoolExecutor(4) as threads:
            assert list(threads.map(work, range(1, 5))) == [{"Ada"}] * 4
        assert {p.identity: p.templates for p in gallery.identities()} == {
            "Ada": 1,
            **{f"Person {number}": 5 for number in range(1, 5)},
        }


def test_what_another_connection_changed_is_found_after_a_refresh(path: Path) -> None:
    with (
        Gallery.open(path, CARD, create=True) as writer,
        Gallery.open(path, CARD, refresh_s=3600) as reader,
        Gallery.open(path, CARD, refresh_s=0) as eager,
    ):
        writer.add("Ada", unit(1))
        assert reader.search(unit(1)).candidates == ((),)  # its hour is not over
        assert eager.search(unit(1))[0][0].identity == "Ada"
        assert reader.refresh() is True
        assert reader.refresh() is False
        assert reader.search(unit(1))[0][0].identity == "Ada"
        writer.add("Ada", unit(2))
        writer.add("Grace", unit(3))
        writer.remove("Ada")
        writer.add("Ada", unit(4))
        assert [c.identity for c in eager.search(unit(4))[0]] == ["Ada", "Grace"]
        assert reader.refresh() is True
        assert (len(reader), reader.template_count) == (2, 2)
        assert [c.identity for c in reader.search(unit(4))[0]] == ["Ada", "Grace"]


def test_a_refresh_after_only_own_changes_reports_none(path: Path) -> None:
    with Gallery.open(path, CARD, create=True) as gallery:
        gallery.add("Ada", unit(1))
        assert gallery.refresh() is False


def test_a_commit_that_changed_nobody_reports_none(path: Path) -> None:
    with Gallery.open(path, CARD, create=True) as gallery:
        gallery.add("Ada", unit(1))
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("VACUUM")
        other.close()
        assert gallery.refresh() is False
        assert gallery.search(unit(1))[0][0].identity == "Ada"


def test_an_own_change_takes_over_what_others_changed_before_it(path: Path) -> None:
    with (
        Gallery.open(path, CARD, create=True) as one,
        Gallery.open(path, CARD, refresh_s=3600) as other,
    ):
        one.add("Ada", unit(1))
        other.add("Grace", unit(2))
        assert len(other) == 2
        assert other.search(unit(1))[0][0].identity == "Ada"


def test_an_older_copy_written_over_the_file_is_taken_over_whole(path: Path) -> None:
    with Gallery.open(path, CARD, create=True) as gallery:
        gallery.add("Ada", unit(1))
    with (
        Gallery.open(path, CARD, refresh_s=0) as gallery,
        sqlite3.connect(path.with_name("backup.db")) as backup,
        sqlite3.connect(path) as live,
    ):
        live.backup(backup)
        gallery.add("Grace", unit(2))
        gallery.remove("Ada")
        backup.backup(live)
        assert [c.identity for c in gallery.search(unit(1))[0]] == ["Ada"]
    backup.close()
    live.close()


def test_a_file_replaced_while_open_is_noticed(path: Path) -> None:
    with Gallery.open(path, CARD, create=True) as gallery:
        gallery.add("Ada", unit(1))
        path.rename(path.with_name("moved.db"))
        with pytest.raises(GalleryFileError, match=r"deleted or replaced .* open it again"):
            gallery.add("Grace", unit(2))
        Gallery.open(path, CARD, create=True).close()
        with pytest.raises(GalleryFileError, match="deleted or replaced"):
            gallery.refresh()
    with Gallery.open(path.with_name("moved.db"), CARD) as gallery:
        assert [p.identity for p in gallery.identities()] == ["Ada"]


def in_common(rows: NDArray[np.float32]) -> NDArray[np.float64]:
    total = rows.sum(axis=0, dtype=np.float64)
    return np.asarray(total / np.linalg.norm(total))


@settings(max_examples=30, stateful_step_count=25, deadline=None)
class GalleryAgainstDict(RuleBasedStateMachine):
    """Adds, removes, reopens and searches, and compares with a dict of arrays."""

    names = st.sampled_from(["Ada", "Grace", "Zoë", "'; --", "Alan", "李"])
    seeds = st.integers(0, 30)  # few, so that templates repeat

    @initialize()
    def make(self) -> None:
        # A shared in-memory file system where there is one: a hundred commits with their syncs take
        # seconds on a disk, and what a power cut leaves is another test's concern.
        where = "/dev/shm" if Path("/dev/shm").is_dir() else None
        self.folder = tempfile.TemporaryDirectory(dir=where)
        self.path = Path(self.folder.name) / "people.db"
        self.gallery = Gallery.open(self.path, CARD, create=True, refresh_s=0)
        self.model: dict[str, NDArray[np.float32]] = {}

    @rule(name=names, seed=seeds, count=st.integers(1, 4), other_process=st.booleans())
    def add(self, name: str, seed: int, count: int, other_process: bool) -> None:
        rows = unit(seed, count)
        self.model[name] = np.concatenate([self.model.get(name, rows[:0]), rows])
        if other_process:
            with Gallery.open(self.path, CARD) as gallery:
                assert gallery.add(name, rows) == len(self.model[name])
        else:
            assert self.gallery.add(name, rows) == len(self.model[name])

    @rule(name=names, other_process=st.booleans())
    def remove(self, name: str, other_process: bool) -> None:
        gallery = Gallery.open(self.path, None) if other_process else self.gallery
        if name in self.model:
            assert gallery.remove(name) == len(self.model.pop(name))
        else:
            with pytest.raises(UnknownIdentityError, match="nobody called"):
                gallery.remove(name)
        if other_process:
            gallery.close()

    @rule()
    def reopen(self) -> None:
        self.gallery.close()
        self.gallery = Gallery.open(self.path, CARD, refresh_s=0)

    @rule(seed=st.integers(0, 60), count=st.integers(0, 3), k=st.integers(1, 7))
    def search(self, seed: int, count: int, k: int) -> None:
        probes = unit(seed, count)
        found = self.gallery.search(probes, k).candidates
        assert len(found) == count
        for probe, candidates in zip(probes, found, strict=True):
            scores = {name: float(in_common(rows) @ probe) for name, rows in self.model.items()}
            assert len(candidates) == min(k, len(scores))
            for candidate in candidates:
                # float32 against float64 over 8 products
                assert candidate.score == pytest.approx(scores[candidate.identity], abs=2e-6)
            ordered = sorted(scores.values(), reverse=True)
            np.testing.assert_allclose([c.score for c in candidates], ordered[:k], atol=2e-6)

    @precondition(lambda self: self.model)
    @rule(data=st.data())
    def read_templates(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(self.model)))
        assert same(self.gallery.templates(name), self.model[name])

    @invariant()
    def lists_agree(self) -> None:
        if hasattr(self, "gallery"):
            listed = {p.identity: p.templates for p in self.gallery.identities()}
            assert listed == {name: len(rows) for name, rows in self.model.items()}

    def teardown(self) -> None:
        if hasattr(self, "gallery"):
            self.gallery.close()
            self.folder.cleanup()


TestGalleryAgainstDict = GalleryAgainstDict.TestCase
