"""A gallery that is only read goes on, whatever happens to its file, and comes back to it by itself."""

from __future__ import annotations

import logging
import os
import shutil
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from fakes import card
from numpy.typing import NDArray
from waiting import wait_for

from edge_fr.errors import GalleryError, GalleryFileError, GalleryModelError
from edge_fr.gallery import Gallery
from edge_fr.gallery.follow import Follower

SIZE = 8
CARD = card(embedding_size=SIZE)
ADA, GRACE = np.eye(SIZE, dtype=np.float32)[:1], np.eye(SIZE, dtype=np.float32)[1:2]
HOLDER = """
import sqlite3, sys
db = sqlite3.connect(sys.argv[1], isolation_level=None)
db.execute("BEGIN EXCLUSIVE")
print("held", flush=True)
sys.stdin.readline()
db.execute("ROLLBACK")
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A gallery of Ada."""
    return enrolled(tmp_path / "people.db", "Ada", ADA)


@pytest.fixture
def reader(path: Path) -> Iterator[Gallery]:
    with Gallery.open(path, CARD, read_only=True, refresh_s=0.05) as gallery:
        yield gallery


def enrolled(path: Path, name: str, row: NDArray[np.float32], times: int = 1) -> Path:
    with Gallery.open(path, CARD, create=True) as gallery:
        for _ in range(times):
            gallery.add(name, row)
    return path


def best(gallery: Gallery, row: NDArray[np.float32]) -> tuple[str, float]:
    found = gallery.search(row)[0][0]
    return found.identity, found.score


def wait_for_name(gallery: Gallery, row: NDArray[np.float32], name: str) -> None:
    wait_for(lambda: best(gallery, row) == (name, 1.0), f"{name} is found")


def wait_for_trouble(gallery: Gallery, what: str) -> None:
    wait_for(lambda: what in (gallery.trouble or ""), f"trouble that says {what!r}")


def test_a_file_that_replaces_the_open_one_is_taken_over(reader: Gallery, path: Path, tmp_path: Path) -> None:
    os.replace(enrolled(tmp_path / "new.db", "Grace", GRACE), path)
    wait_for_name(reader, GRACE, "Grace")
    assert [p.identity for p in reader.identities()] == ["Grace"]
    assert (len(reader), reader.template_count, reader.trouble) == (1, 1, None)
    with Gallery.open(path, CARD) as writer:  # and what is committed to it from then on
        writer.add("Ada", ADA)
    wait_for_name(reader, ADA, "Ada")


def test_a_file_that_is_away_for_a_while_is_searched_as_it_was_and_taken_up_again(
    reader: Gallery, path: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    os.rename(path, tmp_path / "kept.db")
    wait_for_trouble(reader, "is not there any more")
    assert best(reader, ADA) == ("Ada", 1.0)
    wait_for(lambda: reader.age_s > 1, "several attempts")
    begun = [record.message for record in caplog.records]
    os.replace(enrolled(tmp_path / "new.db", "Grace", GRACE), path)
    wait_for_name(reader, GRACE, "Grace")
    wait_for(lambda: reader.trouble is None, "the end of the trouble")
    assert len(begun) == 1  # however often it was tried
    assert "Searches go on with what was read" in begun[0]
    (over,) = (record.message for record in caplog.records[1:])
    assert f"gallery {path} is read again, after" in over
    assert {record.levelno for record in caplog.records} == {logging.WARNING}


def test_a_folder_that_goes_away_and_comes_back_is_no_different(tmp_path: Path) -> None:
    mount = tmp_path / "mount"
    mount.mkdir()
    path = enrolled(mount / "people.db", "Ada", ADA)
    with Gallery.open(path, CARD, read_only=True, refresh_s=0.05) as reader:
        os.rename(mount, tmp_path / "away")
        mount.write_text("not a folder")  # os.stat says something else than that there is no file
        wait_for_trouble(reader, "Not a directory")
        assert best(reader, ADA) == ("Ada", 1.0)
        mount.unlink()
        os.rename(tmp_path / "away", mount)
        wait_for(lambda: reader.trouble is None, "the end of the trouble")


def test_a_search_does_not_wait_for_a_process_that_holds_the_file(path: Path) -> None:
    with Gallery.open(path, CARD, read_only=True, refresh_s=0, busy_s=0.2) as reader:
        holder = subprocess.Popen(
            [sys.executable, "-c", HOLDER, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        wait_for_trouble(reader, "another process holds it")
        assert best(reader, ADA) == ("Ada", 1.0)
        holder.communicate("\n", timeout=600)
        enrolled(path, "Grace", GRACE)
        wait_for_name(reader, GRACE, "Grace")
        wait_for(lambda: reader.trouble is None, "the end of the trouble")


def test_a_search_answers_while_the_look_at_the_file_is_still_waiting(path: Path) -> None:
    with Gallery.open(path, CARD, read_only=True, refresh_s=0, busy_s=600) as reader:
        db = sqlite3.connect(path, isolation_level=None)
        db.execute("BEGIN EXCLUSIVE")
        for _ in range(20):
            assert best(reader, ADA) == ("Ada", 1.0)  # it would wait for ever
        assert reader.trouble is None
        db.execute("ROLLBACK")
        db.close()


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9])
def test_a_file_cut_short_is_trouble_until_it_is_whole_again(
    reader: Gallery, path: Path, tmp_path: Path, share: float
) -> None:
    whole = enrolled(tmp_path / "new.db", "Grace", GRACE).read_bytes()
    os.truncate(path, int(path.stat().st_size * share))
    wait_for(lambda: reader.trouble is not None, "the trouble")
    assert best(reader, ADA) == ("Ada", 1.0)
    path.write_bytes(whole)
    wait_for_name(reader, GRACE, "Grace")
    wait_for(lambda: reader.trouble is None, "the end of the trouble")
    assert [p.identity for p in reader.identities()] == ["Grace"]


@pytest.mark.parametrize("in_place", [False, True])
def test_a_gallery_of_another_model_is_not_taken_over(
    reader: Gallery, path: Path, tmp_path: Path, in_place: bool
) -> None:
    kept, other = tmp_path / "kept.db", tmp_path / "other.db"
    shutil.copyfile(path, kept)
    with Gallery.open(
        other, card(embedding_size=SIZE, name="other", weights_digest="sha256:o"), create=True
    ) as g:
        g.add("Mallory", ADA)
    put = shutil.copyfile if in_place else os.replace
    put(other, path)
    wait_for_trouble(reader, "was enrolled with 'other', but 'fake' is loaded")
    assert best(reader, ADA) == ("Ada", 1.0)
    put(kept, path)
    wait_for(lambda: reader.trouble is None, "the end of the trouble")
    assert best(reader, ADA) == ("Ada", 1.0)


@pytest.mark.parametrize("commits", [1, 2])
def test_another_gallery_that_is_written_over_the_file_is_taken_over_whole(
    reader: Gallery, path: Path, tmp_path: Path, commits: int
) -> None:
    # As many commits leave SQLite's own counter as it was; more look like a few additions to what was there.
    shutil.copyfile(enrolled(tmp_path / "new.db", "Grace", GRACE, commits), path)
    wait_for_name(reader, GRACE, "Grace")
    assert (len(reader), reader.template_count) == (1, commits)


def test_a_writer_takes_over_whole_or_refuses_what_was_written_over_its_file(
    path: Path, tmp_path: Path
) -> None:
    new = enrolled(tmp_path / "new.db", "Grace", GRACE, 3)
    other, model = tmp_path / "other.db", card(embedding_size=SIZE, name="other", weights_digest="sha256:o")
    with Gallery.open(other, model, create=True) as gallery:
        for _ in range(5):
            gallery.add("Mallory", ADA)
    with Gallery.open(path, CARD, refresh_s=0) as gallery:
        shutil.copyfile(new, path)
        assert [found.identity for found in gallery.search(ADA)[0]] == ["Grace"]
        shutil.copyfile(other, path)
        content = path.read_bytes()
        with pytest.raises(GalleryModelError, match="enrolled with 'other'"):
            gallery.add("Grace", GRACE)
        with pytest.raises(GalleryModelError, match="enrolled with 'other'"):
            gallery.search(ADA)
        assert path.read_bytes() == content


def test_a_refresh_that_is_asked_for_says_why_it_failed(path: Path) -> None:
    with Gallery.open(path, CARD, read_only=True, refresh_s=3600) as reader:
        path.unlink()
        with pytest.raises(GalleryFileError, match=r"is not there any more.*put it back"):
            reader.refresh()
        assert best(reader, ADA) == ("Ada", 1.0)


def test_what_is_committed_is_found_by_the_next_search_when_that_is_asked_for(path: Path) -> None:
    with Gallery.open(path, CARD, read_only=True, refresh_s=0) as reader, Gallery.open(path, CARD) as writer:
        for number in range(2, SIZE):
            row = np.eye(SIZE, dtype=np.float32)[[number]]
            writer.add(str(number), row)
            wait_for_name(reader, row, str(number))  # at once, unless this machine stands still


def test_a_gallery_that_is_dropped_leaves_no_thread(path: Path) -> None:
    def running() -> int:
        return sum(thread.name == "edge-fr-gallery" for thread in threading.enumerate())

    before = running()
    gallery = Gallery.open(path, CARD, read_only=True, refresh_s=0.05)
    assert running() == before + 1
    del gallery
    wait_for(lambda: running() == before, "the thread has ended")


class Hanging:
    """A look that waits for the test."""

    def __init__(self) -> None:
        self.go_on = threading.Event()
        self.looks = 0

    def look(self) -> None:
        self.looks += 1
        self.go_on.wait()


def test_a_file_system_that_hangs_holds_nothing_up_and_is_told(caplog: pytest.LogCaptureFixture) -> None:
    disk = Hanging()
    follower = Follower(disk.look, "people.db", every_s=0, patience_s=0.2)
    wait_for(lambda: disk.looks == 1, "a look")
    follower.ask()
    wait_for(lambda: follower.trouble is not None, "the trouble")
    assert "does not answer" in (follower.trouble or "")
    follower.ask()
    assert len(caplog.records) == 1
    disk.go_on.set()
    wait_for(lambda: follower.trouble is None, "the end of the trouble")
    assert "is read again" in caplog.messages[-1]
    disk.go_on.clear()
    looks = disk.looks
    wait_for(lambda: disk.looks > looks, "another look")
    assert not follower.close()  # it says that its thread hangs, and waits no longer for it
    disk.go_on.set()


def test_a_closed_reader_says_that_it_is_closed(reader: Gallery) -> None:
    reader.close()
    with pytest.raises(GalleryError, match="is closed"):
        reader.search(ADA)
