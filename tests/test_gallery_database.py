"""What a gallery does when its file or disk fails: it says so, and leaves the file as it is."""

from __future__ import annotations

import os
import shutil
import sqlite3
import stat
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from fakes import card
from numpy.typing import NDArray

from edge_fr.errors import GalleryFileError
from edge_fr.gallery import Gallery
from edge_fr.gallery.database import connect, transaction

SIZE = 8
CARD = card(embedding_size=SIZE)
NOBODY = 65534


def unit(seed: int, count: int = 1) -> NDArray[np.float32]:
    rows = np.random.default_rng(seed).standard_normal((count, SIZE))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def content(path: Path) -> object:
    """Everything that a gallery tells about itself."""
    with Gallery.open(path, CARD) as gallery:
        people = gallery.identities()
        return (
            people,
            [gallery.templates(p.identity).tobytes() for p in people],
            [gallery.provenance(p.identity) for p in people],
            gallery.search(np.eye(SIZE, dtype=np.float32), k=1000).candidates,
        )


@pytest.fixture(scope="module")
def enrolled(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The bytes of a gallery of 60 people with 3 templates each, one of them removed."""
    path = tmp_path_factory.mktemp("enrolled") / "people.db"
    with Gallery.open(path, CARD, create=True) as gallery:
        for seed in range(60):
            gallery.add(f"Person {seed}", unit(seed, 3), qualities=[0.1, 0.2, 0.3], sources=["photo.jpg"] * 3)
        gallery.remove("Person 7")
    return path.read_bytes()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "people.db"


@pytest.fixture
def ordinary_user() -> Iterator[Path]:
    """A folder of a user without root's power to write everywhere, whom the test becomes."""
    with tempfile.TemporaryDirectory() as name:
        if os.geteuid() != 0:
            yield Path(name)
            os.chmod(name, 0o700)
            return
        os.chown(name, NOBODY, NOBODY)
        os.seteuid(NOBODY)
        try:
            yield Path(name)
        finally:
            os.seteuid(0)


def assert_refused_untouched(path: Path, message: str) -> None:
    before = path.read_bytes()
    for options in ({}, {"create": True}, {"read_only": True}):
        with pytest.raises(GalleryFileError, match=message):
            Gallery.open(path, CARD, **options)
    assert path.read_bytes() == before
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_a_missing_file_names_the_command_that_makes_one(path: Path) -> None:
    with pytest.raises(GalleryFileError, match=r"no gallery at .*people.db; `edge-fr enroll` makes one"):
        Gallery.open(path, CARD)
    assert not path.exists()


def test_a_missing_folder_is_not_made(tmp_path: Path) -> None:
    with pytest.raises(GalleryFileError, match=r"cannot make gallery .*No such file or directory"):
        Gallery.open(tmp_path / "absent" / "people.db", CARD, create=True)


def test_a_folder_is_refused_with_a_file_that_would_do(tmp_path: Path) -> None:
    with pytest.raises(GalleryFileError, match=r"it is a folder, expected a file such as .*people.db"):
        Gallery.open(tmp_path, CARD, create=True)


def test_a_pipe_is_refused_rather_than_waited_for(path: Path) -> None:
    os.mkfifo(path)
    with pytest.raises(GalleryFileError, match="a device or pipe"):
        Gallery.open(path, CARD)


def test_a_path_through_a_file_is_refused(path: Path) -> None:
    path.write_text("not a folder")
    with pytest.raises(GalleryFileError, match="Not a directory"):
        Gallery.open(path / "people.db", CARD, create=True)


@pytest.mark.parametrize(
    "name", ["with space.db", "100%.db", "a?mode=ro.db", "a#b.db", "ü.db", "caf\udce9.db"]
)
def test_a_path_may_have_any_name(tmp_path: Path, name: str) -> None:
    with Gallery.open(tmp_path / name, CARD, create=True) as gallery:
        gallery.add("Ada", unit(1))
    assert os.listdir(tmp_path) == [name]
    with Gallery.open(tmp_path / name, CARD) as gallery:
        assert len(gallery) == 1


def test_a_new_gallery_is_for_its_owner_alone(path: Path) -> None:
    Gallery.open(path, CARD, create=True).close()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_file_that_is_no_database_is_refused_untouched(path: Path) -> None:
    path.write_bytes(b"identity,embedding\n" * 500)
    assert_refused_untouched(path, "cannot open gallery .* it is no gallery, or its beginning is damaged")


def test_a_database_of_another_program_is_refused_untouched(path: Path) -> None:
    other = sqlite3.connect(path)
    other.execute("CREATE TABLE people (id)")
    other.close()
    assert_refused_untouched(path, "an SQLite database of another program")


def test_a_gallery_of_a_newer_version_is_refused_untouched(path: Path) -> None:
    Gallery.open(path, CARD, create=True).close()
    newer = sqlite3.connect(path)
    newer.execute("PRAGMA user_version = 2")
    newer.close()
    assert_refused_untouched(
        path, "made by a newer edge-fr .schema 2, this one reads up to 1.*git pull and pip install \\. in"
    )


def test_an_empty_file_is_refused_unless_a_new_gallery_is_asked_for(path: Path) -> None:
    path.touch()
    with pytest.raises(
        GalleryFileError, match=r"holds nothing, not even a gallery without people.*`edge-fr enroll`"
    ):
        Gallery.open(path, CARD)
    assert path.read_bytes() == b""
    with Gallery.open(path, CARD, create=True) as gallery:
        gallery.add("Ada", unit(1))
    assert path.stat().st_size > 0


@pytest.mark.parametrize("share", [i / 40 for i in range(1, 40)])
def test_a_file_cut_short_is_refused_untouched(path: Path, enrolled: bytes, share: float) -> None:
    # Not on a page boundary every time: 39 places that are not multiples of 8192, and the boundaries below.
    path.write_bytes(enrolled[: int(len(enrolled) * share)])
    assert_refused_untouched(path, "damaged")


@pytest.mark.parametrize("cut", [1, 15, 16, 99, 100, 511, 512, 8191, 8192, 8193, 16384, 65536, -8192, -1])
def test_a_file_cut_at_a_boundary_is_refused_untouched(path: Path, enrolled: bytes, cut: int) -> None:
    path.write_bytes(enrolled[:cut])
    assert_refused_untouched(path, "holds nothing" if cut == 1 else "damaged")


def test_a_changed_byte_is_refused_or_changes_nothing(path: Path, enrolled: bytes) -> None:
    # SQLite leaves gaps between rows, where a change means nothing; everywhere else it must be noticed.
    path.write_bytes(enrolled)
    truth = content(path)
    rng = np.random.default_rng(0)
    used = np.flatnonzero(np.frombuffer(enrolled, np.uint8))  # gaps are zeros
    refused = 0
    for at in rng.choice(used, 300, replace=False):
        broken = bytearray(enrolled)
        broken[at] ^= rng.choice([0x01, 0x20, 0x80, 0xFF])
        path.write_bytes(broken)
        try:
            assert content(path) == truth, f"a change at byte {at} went unnoticed"
        except GalleryFileError:
            refused += 1
        assert path.read_bytes() == broken
    assert refused > 200


@pytest.mark.parametrize("filling", [b"\x00", b"\xff"])
def test_a_lost_sector_is_refused_or_changes_nothing(path: Path, enrolled: bytes, filling: bytes) -> None:
    path.write_bytes(enrolled)
    truth = content(path)
    refused = 0
    for at in range(0, len(enrolled), 512):
        path.write_bytes(enrolled[:at] + filling * 512 + enrolled[at + 512 :])
        try:
            assert content(path) == truth, f"the sector at byte {at} went unnoticed"
        except GalleryFileError:
            refused += 1
    assert refused > len(enrolled) // 512 // 4


def test_rows_lost_or_changed_in_a_way_sqlite_accepts_are_noticed(path: Path, enrolled: bytes) -> None:
    for loss in (
        "DELETE FROM templates WHERE id = 10",
        "DELETE FROM people WHERE identity = 'Person 3'",
        "DELETE FROM templates WHERE person = 4",
        "DELETE FROM meta",
        "UPDATE meta SET card = replace(card, 'Apache', 'apache')",
    ):
        path.write_bytes(enrolled)
        db = sqlite3.connect(path, isolation_level=None)
        db.execute(loss)
        db.close()
        with pytest.raises(GalleryFileError, match=r"damaged.*Restore it from a backup.*`edge-fr enroll`"):
            Gallery.open(path, CARD)


def test_damage_that_arrives_while_open_is_noticed_and_memory_keeps_what_was_good(path: Path) -> None:
    with Gallery.open(path, CARD, create=True, refresh_s=3600) as gallery:
        gallery.add("Ada", unit(1, 2))
        db = sqlite3.connect(path, isolation_level=None)
        db.execute("UPDATE templates SET quality = 0.9 WHERE id = 1")
        db.execute("INSERT OR REPLACE INTO changes (person) VALUES (1)")
        db.close()
        with pytest.raises(GalleryFileError, match="a template does not have the checksum"):
            gallery.refresh()
        with pytest.raises(GalleryFileError, match="a template does not have the checksum"):
            gallery.templates("Ada")
        assert gallery.search(unit(1, 2)[:1])[0][0].identity == "Ada"


def test_a_locked_file_is_reported_after_the_stated_wait(path: Path, enrolled: bytes) -> None:
    path.write_bytes(enrolled)
    with Gallery.open(path, CARD, busy_s=0.05, refresh_s=0) as gallery:
        db = sqlite3.connect(path, isolation_level=None)
        db.execute("BEGIN EXCLUSIVE")
        with pytest.raises(
            GalleryFileError,
            match=r"cannot add to gallery .* another process holds it .* within 0.05 s.*fuser",
        ):
            gallery.add("Ada", unit(1))
        with pytest.raises(GalleryFileError, match=r"cannot read gallery .* another process holds it"):
            gallery.search(unit(1))
        with pytest.raises(GalleryFileError, match=r"cannot open gallery .* another process holds it"):
            Gallery.open(path, CARD, busy_s=0.05)
        db.execute("ROLLBACK")
        db.close()
        assert gallery.add("Ada", unit(1)) == 1


def test_an_enrolment_waits_for_another_to_finish(path: Path, enrolled: bytes) -> None:
    path.write_bytes(enrolled)
    db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    with Gallery.open(path, CARD, busy_s=60) as gallery:
        db.execute("BEGIN IMMEDIATE")
        finish = threading.Timer(0.2, lambda: db.execute("COMMIT"))
        finish.start()
        assert gallery.add("Ada", unit(1)) == 1
        finish.join()
    db.close()


def test_who_opens_while_another_makes_the_gallery_finds_it_made(tmp_path: Path) -> None:
    together = threading.Barrier(4)

    def make(path: Path, name: str) -> int:
        together.wait(timeout=60)
        with Gallery.open(path, CARD, create=True, busy_s=60) as gallery:
            return gallery.add(name, unit(1))

    with ThreadPoolExecutor(4) as threads:
        for turn in range(20):
            path = tmp_path / f"{turn}.db"
            assert list(threads.map(make, [path] * 4, "abcd")) == [1, 1, 1, 1]
            with Gallery.open(path, CARD) as gallery:
                assert [p.identity for p in gallery.identities()] == ["a", "b", "c", "d"]


def test_a_large_enrolment_lets_others_read_until_it_commits(path: Path, enrolled: bytes) -> None:
    path.write_bytes(enrolled)
    db = connect(str(path), CARD, create=False, busy_s=5)
    with Gallery.open(path, CARD, busy_s=0.05) as reader, transaction(db, "IMMEDIATE"):
        db.execute("UPDATE templates SET source = hex(zeroblob(20000))")  # 7 MB, more than SQLite's cache
        assert len(reader.identities()) == 59
        db.execute("UPDATE templates SET source = 'photo.jpg'")
    db.close()


def test_a_commit_reaches_the_disk_before_it_is_confirmed(path: Path) -> None:
    # What a power cut takes cannot be tried here; that SQLite is told to sync file and folder can.
    db = connect(str(path), CARD, create=True, busy_s=5)
    assert db.execute("PRAGMA synchronous").fetchone() == (3,)  # EXTRA
    assert db.execute("PRAGMA journal_mode").fetchone() == ("delete",)
    db.close()


def test_a_write_waits_for_a_reader_of_another_process(path: Path, enrolled: bytes) -> None:
    path.write_bytes(enrolled)
    with Gallery.open(path, CARD, busy_s=0.05) as gallery:
        db = sqlite3.connect(path, isolation_level=None)
        db.execute("BEGIN")
        db.execute("SELECT count(*) FROM people").fetchone()
        with pytest.raises(GalleryFileError, match="another process holds it"):
            gallery.add("Ada", unit(1))
        db.execute("COMMIT")
        db.close()
        assert [p.identity for p in gallery.identities()].count("Ada") == 0
        assert gallery.add("Ada", unit(1)) == 1


def test_a_write_protected_file_can_be_searched_and_says_why_it_cannot_change(ordinary_user: Path) -> None:
    path = ordinary_user / "people.db"
    with Gallery.open(path, CARD, create=True) as gallery:
        gallery.add("Ada", unit(1))
    path.chmod(0o400)
    with Gallery.open(path, CARD) as gallery:
        assert gallery.search(unit(1))[0][0].identity == "Ada"
        with pytest.raises(
            GalleryFileError, match=r"cannot add to gallery .* write-protected .*readonly.*ls -ld"
        ):
            gallery.add("Grace", unit(2))
        assert len(gallery) == 1


def test_a_write_protected_folder_can_be_searched_and_says_why_it_cannot_change(ordinary_user: Path) -> None:
    path = ordinary_user / "people.db"
    with Gallery.open(path, CARD, create=True) as gallery:
        gallery.add("Ada", unit(1))
    ordinary_user.chmod(0o500)
    with Gallery.open(path, CARD) as gallery:
        with pytest.raises(
            GalleryFileError, match=r"cannot remove from gallery .* folder is write-protected"
        ):
            gallery.remove("Ada")
        assert gallery.search(unit(1))[0][0].identity == "Ada"
    with pytest.raises(
        GalleryFileError, match=r"cannot make gallery .*Permission denied.*must exist and be writable"
    ):
        Gallery.open(ordinary_user / "other.db", CARD, create=True)
    ordinary_user.chmod(0o000)
    with pytest.raises(GalleryFileError, match=r"cannot open gallery .*Permission denied"):
        Gallery.open(path, CARD)


def cut_off_in_the_middle(path: Path, copy: Path) -> None:
    """Copies the file and its journal as a power cut in the middle of a commit would leave them."""
    db = sqlite3.connect(path, isolation_level=None)
    db.execute("PRAGMA cache_size = 2")  # so that changed pages reach the file before the commit
    db.execute("BEGIN IMMEDIATE")
    db.execute("UPDATE templates SET quality = 0.9, source = 'overwritten'")
    for name in (path.name, f"{path.name}-journal"):
        shutil.copy(path.with_name(name), copy.with_name(copy.name + name[len(path.name) :]))
    db.execute("ROLLBACK")
    db.close()


@pytest.mark.parametrize("read_only", [False, True])
def test_a_write_cut_off_by_a_power_failure_is_undone(
    tmp_path: Path, enrolled: bytes, read_only: bool
) -> None:
    path, copy = tmp_path / "people.db", tmp_path / "copy.db"
    path.write_bytes(enrolled)
    cut_off_in_the_middle(path, copy)
    assert copy.read_bytes() != enrolled  # half of it had been written
    with Gallery.open(copy, CARD, read_only=read_only) as gallery:
        assert len(gallery) == 59
    assert copy.read_bytes() == enrolled


def test_a_cut_off_write_on_protected_media_is_refused_with_the_reason(
    ordinary_user: Path, enrolled: bytes
) -> None:
    path, copy = ordinary_user / "people.db", ordinary_user / "copy.db"
    path.write_bytes(enrolled)
    cut_off_in_the_middle(path, copy)
    half = copy.read_bytes()
    copy.chmod(0o400)
    ordinary_user.chmod(0o500)
    with pytest.raises(
        GalleryFileError, match=r"an unfinished write has to be undone, but .* write-protected"
    ):
        Gallery.open(copy, CARD)
    assert copy.read_bytes() == half


FILL_THE_DISK = """
import os
import sys
import numpy as np
from edge_fr.engine import ModelCard
from edge_fr.errors import GalleryFileError
from edge_fr.gallery import Gallery

card = ModelCard("fake", "embed", "RGB", (0, 255), "sha256:fake", "none", "none", embedding_size=128)
row = np.zeros((1, 128), np.float32)
row[0, 0] = 1
ballast = sys.argv[1] + ".ballast"
with open(ballast, "wb") as file:
    file.write(bytes(200_000))
with Gallery.open(sys.argv[1], card, create=True) as gallery:
    done = 0
    try:
        while done < 5000:
            gallery.add(f"Person {done}", np.repeat(row, 20, axis=0))
            done += 1
    except GalleryFileError as error:
        print(error)
    assert len(gallery) == done, (len(gallery), done)
with Gallery.open(sys.argv[1], card) as gallery:
    assert [p.templates for p in gallery.identities()] == [20] * done
    os.remove(ballast)  # room for the journal: without any, SQLite cannot even remove
    gallery.remove("Person 0")
    gallery.add("Person 0", row)
    print("kept", done)
"""


def test_a_full_disk_takes_nothing_back_that_was_confirmed(tmp_path: Path) -> None:
    script = 'mount -t tmpfs -o size=1m tmpfs $1 && exec $2 -c "$3" $1/people.db'
    private = ["unshare", "--user", "--map-root-user", "--mount"]
    if shutil.which("unshare") is None or subprocess.run([*private, "true"], capture_output=True).returncode:
        pytest.skip("this machine does not let a test mount a small disk of its own")
    run = subprocess.run(
        [*private, "sh", "-c", script, "sh", tmp_path, sys.executable, FILL_THE_DISK],
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert run.returncode == 0, run.stderr
    error, kept = run.stdout.splitlines()
    assert "cannot add to gallery" in error
    assert "the disk is full; nothing was changed. Free some space: `df" in error
    assert int(kept.removeprefix("kept ")) > 10


LIMIT_THE_FILE = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))\n"


def test_a_failing_disk_takes_nothing_back_that_was_confirmed(path: Path) -> None:
    # A file that may not grow any more answers like a disk that fails to write.
    run = subprocess.run(
        [sys.executable, "-c", LIMIT_THE_FILE + FILL_THE_DISK, path],
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert run.returncode == 0, run.stderr
    error, kept = run.stdout.splitlines()
    assert "the disk failed (disk I/O error); nothing was changed" in error
    assert int(kept.removeprefix("kept ")) > 10
