"""The field's formats: read from small samples of each, refused when they are damaged."""

from __future__ import annotations

import hashlib
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from drawn_people import (
    bin_content,
    detector_of,
    ijb_folder,
    lfw_folder,
    scface_folder,
    tinyface_folder,
    write,
)
from numpy.typing import NDArray

from calibration.datasets import open_dataset
from calibration.datasets.dataset import Crops, Dataset, one_picture_each
from calibration.datasets.ijb import connected
from edge_fr.errors import ImageError, InputError
from edge_fr.image import TEMPLATE, align

# LFW and folders of people


def test_lfw_is_read_as_pairs_in_folds_with_its_people(tmp_path: Path) -> None:
    dataset = open_dataset(f"lfw:{lfw_folder(tmp_path)}")
    assert dataset.pairs is not None
    lines = (tmp_path / "pairs.txt").read_text().splitlines()[1:]
    for line, first, second, same in zip(
        lines, dataset.pairs.first, dataset.pairs.second, dataset.pairs.same, strict=True
    ):
        words = line.split("\t")
        other = words[0] if len(words) == 3 else words[2]
        assert dataset.names[first] == f"{words[0]}_{int(words[1]):04d}.jpg"
        assert dataset.names[second] == f"{other}_{int(words[-1]):04d}.jpg"
        assert same == (len(words) == 3)
    assert dataset.pairs.folds is not None
    assert dataset.pairs.folds.tolist() == [i // 6 for i in range(24)]
    assert "mask+px24" in dataset.conditions
    stored = cv2.imread(str(tmp_path / "aligned112" / dataset.names[0]))
    assert np.array_equal(dataset.read(0), stored)


def test_a_crop_that_was_read_cannot_be_spoiled_for_the_next_reader(tmp_path: Path) -> None:
    dataset = open_dataset(f"lfw:{lfw_folder(tmp_path)}")
    with pytest.raises(ValueError, match="read-only"):
        dataset.read(0)[:] = 0
    shutil.rmtree(tmp_path / "aligned112")
    assert dataset.read(0).shape == (112, 112, 3)  # read once


def damage_pairs(change: Callable[[list[str]], list[str]]) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        path = folder / "pairs.txt"
        path.write_text("\n".join(change(path.read_text().splitlines())))

    return damage


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: (folder / "pairs.txt").unlink(), r"pairs\.txt cannot be read .* expected LFW's list"),
        (lambda folder: (folder / "pairs.txt").write_bytes(b""), r"pairs\.txt is empty"),
        (lambda folder: (folder / "pairs.txt").write_bytes(b"\xff\xfe\x00"), r"pairs\.txt cannot be read"),
        (damage_pairs(lambda lines: ["Person_A\t1\t2", *lines]), "first line 'Person_A"),
        (damage_pairs(lambda lines: lines[:-1]), r"has 23 pairs, expected 24: .* 4 folds of 3 genuine"),
        (damage_pairs(lambda lines: lines[:1]), "has 0 pairs"),
        (
            damage_pairs(lambda lines: [*lines[:5], "Person_A 1 2", *lines[6:]]),
            "line 6: cannot read 'Person_A",
        ),
        (damage_pairs(lambda lines: [*lines[:5], "Person_A\tone\t2", *lines[6:]]), "line 6: cannot read"),
        (
            damage_pairs(lambda lines: [*lines[:5], "Nobody\t1\t2", *lines[6:]]),
            r"2 of the 29 .*/Nobody_0001\.jpg",
        ),
        (
            lambda folder: shutil.rmtree(folder / "aligned112"),
            r"pictures that .*pairs\.txt names are missing",
        ),
        (
            damage_pairs(lambda lines: ["1\t3", *[line for line in lines if line.count("\t") == 2][:6]]),
            "all 6 pairs show one person, expected pairs of both kinds",
        ),
        (
            damage_pairs(lambda lines: ["1\t3", *[line for line in lines if line.count("\t") == 3][:6]]),
            "all 6 pairs show two people",
        ),
    ],
)
def test_a_damaged_lfw_folder_is_refused_with_the_reason(
    damage: Callable[[Path], object], message: str, tmp_path: Path
) -> None:
    damage(lfw_folder(tmp_path))
    with pytest.raises(InputError, match=message):
        open_dataset(f"lfw:{tmp_path}")


def test_a_picture_that_is_cut_off_is_named_when_it_is_read(tmp_path: Path) -> None:
    dataset = open_dataset(f"lfw:{lfw_folder(tmp_path)}")
    path = tmp_path / "aligned112" / dataset.names[3]
    path.write_bytes(path.read_bytes()[:400])
    with pytest.raises(ImageError, match=dataset.names[3]):
        _ = dataset.digest


def people_folder(folder: Path, *counts: int) -> Path:
    for person, count in enumerate(counts):
        for number in range(count):
            write(folder / f"person {person}" / f"{number}.png", f"{person}", number)
    return folder


def test_a_folder_of_people_gives_every_genuine_pair_and_as_many_different_impostors(tmp_path: Path) -> None:
    dataset = open_dataset(f"people:{people_folder(tmp_path, 4, 3, 1, 5)}")
    assert dataset.pairs is not None
    assert dataset.people is not None
    first, second, same = dataset.pairs.first, dataset.pairs.second, dataset.pairs.same
    assert same.sum() == 6 + 3 + 0 + 10
    assert np.array_equal(same, dataset.people[first] == dataset.people[second])
    assert (~same).sum() == same.sum()
    assert len(set(zip(first.tolist(), second.tolist(), strict=True))) == len(same)
    assert (first < second).all()
    assert dataset.names[0] == "person 0/0.png"  # names tell people apart: masks are drawn from them
    assert dataset.conditions == ("as is",)


def test_impostor_pairs_that_are_few_are_all_taken(tmp_path: Path) -> None:
    dataset = open_dataset(f"people:{people_folder(tmp_path, 5, 1)}")
    assert dataset.pairs is not None
    assert dataset.pairs.same.tolist() == [True] * 10 + [False] * 5


@pytest.mark.parametrize("counts", [(), (3,), (1, 1, 1)])
def test_a_folder_without_both_kinds_of_pairs_is_refused(counts: tuple[int, ...], tmp_path: Path) -> None:
    with pytest.raises(InputError, match=f"pictures of {len(counts)} people, expected one folder a person"):
        open_dataset(f"people:{people_folder(tmp_path, *counts)}")


def test_first_pictures_are_enrolled_the_others_looked_up_and_single_ones_are_strangers() -> None:
    lookup = one_picture_each(np.array([2, 0, 2, 1, 0, 2]))
    assert lookup.gallery.tolist() == [1, 0]
    assert lookup.probes["all"].tolist() == [2, 4, 5]
    assert lookup.strangers.tolist() == [3]


# insightface's .bin


def python2_string(data: bytes) -> bytes:
    """BINSTRING, which Python 3 does not write."""
    return b"T" + len(data).to_bytes(4, "little") + data


def python2_pickle(pictures: list[bytes], same: list[bool]) -> bytes:
    strings = b"".join(python2_string(picture) for picture in pictures)
    flags = b"".join(b"\x88" if flag else b"\x89" for flag in same)
    return b"\x80\x02](" + strings + b"e](" + flags + b"e\x86."


def python2_array(data: bytes) -> bytes:
    """An array of bytes as Python 2's numpy wrote it."""
    dtype = b"cnumpy\ndtype\n(U\x02u1K\x00K\x01tR(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
    shape = b"J" + len(data).to_bytes(4, "little") + b"K\x01\x86"
    start = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(K\x00tU\x01btR"
    return start + b"(K\x01" + shape + dtype + b"\x89" + python2_string(data) + b"tb"


PICTURES, SAME = bin_content()
ARRAYS = [np.frombuffer(picture, np.uint8)[:, None] for picture in PICTURES]  # as cv2.imencode gives them
BINS = {
    "python 2": python2_pickle(PICTURES, SAME),
    "python 2 arrays": b"\x80\x02]("
    + b"".join(python2_array(picture) for picture in PICTURES)
    + b"e](\x88\x89\x88\x89e\x86.",
    **{f"protocol {p}": pickle.dumps((PICTURES, SAME), protocol=p) for p in (0, 1, 2, 3, 4, 5)},
    **{f"arrays {p}": pickle.dumps((ARRAYS, np.array(SAME)), protocol=p) for p in (2, 4, 5)},
    "numpy flags": pickle.dumps((PICTURES, [np.bool_(flag) for flag in SAME]), protocol=4),
    "numbers": pickle.dumps([PICTURES, (1, 0, 1, 0)], protocol=4),
}


@pytest.mark.parametrize("form", BINS)
def test_a_bin_file_is_read_however_it_was_pickled(form: str, tmp_path: Path) -> None:
    path = tmp_path / "agedb_30.bin"
    path.write_bytes(BINS[form])
    dataset = open_dataset(f"bin:{path}")
    assert dataset.pairs is not None
    assert dataset.pairs.same.tolist() == SAME
    assert dataset.pairs.first.tolist() == [0, 2, 4, 6]
    assert dataset.pairs.second.tolist() == [1, 3, 5, 7]
    assert dataset.people is None
    assert dataset.title == "agedb_30"
    for i, picture in enumerate(PICTURES):
        stored = cv2.imdecode(np.frombuffer(picture, np.uint8), cv2.IMREAD_COLOR)
        assert np.array_equal(dataset.read(i), stored)


def test_the_pairs_of_a_bin_file_are_cut_into_ten_folds_in_their_order(tmp_path: Path) -> None:
    path = tmp_path / "x.bin"
    path.write_bytes(pickle.dumps((PICTURES[:2] * 25, [True] * 13 + [False] * 12)))
    dataset = open_dataset(f"bin:{path}")
    assert dataset.pairs is not None
    assert dataset.pairs.folds is not None
    assert np.bincount(dataset.pairs.folds).tolist() == [3, 2, 3, 2, 3, 2, 3, 2, 3, 2]
    assert (np.diff(dataset.pairs.folds) >= 0).all()


class Shell:
    """What a hostile pickle looks like: loading it calls a function."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[object, ...]:
        return (Path.touch, (self.trace,))


@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
def test_a_pickle_that_calls_a_function_is_refused_and_the_function_is_not_called(
    protocol: int, tmp_path: Path
) -> None:
    path = tmp_path / "hostile.bin"
    path.write_bytes(pickle.dumps((PICTURES, [Shell(tmp_path / "called")]), protocol=protocol))
    with pytest.raises(
        InputError, match=r"hostile\.bin: the file refers to .*, which a file of pictures has"
    ):
        open_dataset(f"bin:{path}")
    assert not (tmp_path / "called").exists()


@pytest.mark.parametrize(
    "call",
    [
        b"cos\nsystem\n(S'false'\ntR.",
        b"c__builtin__\neval\n(S'1'\ntR.",
        b"\x80\x04\x8c\x05numpy\x8c\x08testing.\x93.",
        b"\x80\x02\x82\x01.",  # the extension registry
        b"(S'false'\nios\nsystem\n.",
    ],
)
def test_no_reference_to_anything_but_arrays_is_followed(call: bytes, tmp_path: Path) -> None:
    path = tmp_path / "x.bin"
    path.write_bytes(call)
    with pytest.raises(InputError, match=r"x\.bin: .*expected insightface's pickle"):
        open_dataset(f"bin:{path}")


def test_a_bin_file_cut_off_anywhere_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.bin"
    for whole in (BINS["protocol 4"], BINS["python 2 arrays"]):
        for length in np.linspace(0, len(whole) - 1, 60).astype(int):
            path.write_bytes(whole[:length])
            with pytest.raises(InputError, match=r"x\.bin"):
                open_dataset(f"bin:{path}")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"bins": []}, "holds a dict"),
        ((PICTURES, SAME, 1), "holds a tuple"),
        ((PICTURES, 5), "holds a int where a list is due"),
        ((PICTURES[:-1], SAME), "holds 7 pictures and 4 pairs"),
        (([], []), "holds 0 pictures and 0 pairs"),
        ((["text", *PICTURES[1:]], SAME), "picture 0 is a str, expected encoded bytes"),
        ((PICTURES, [True, False, 2, True]), "pair 2 is marked 2, expected True or False"),
        ((PICTURES, [True, False, b"x", True]), "pair 2 is marked b'x'"),
        ((PICTURES, [True] * 4), "all 4 pairs show one person"),
        ((np.zeros((8, 3), np.float32), SAME), "an array of type 'f4', only bytes"),
        ((np.array([object()]), SAME), "x.bin: "),
    ],
)
def test_a_bin_file_with_other_content_is_refused(content: object, message: str, tmp_path: Path) -> None:
    path = tmp_path / "x.bin"
    path.write_bytes(pickle.dumps(content))
    with pytest.raises(InputError, match=message):
        open_dataset(f"bin:{path}")


def test_a_damaged_picture_in_a_bin_file_is_named_by_its_number(tmp_path: Path) -> None:
    path = tmp_path / "x.bin"
    small = bytes(cv2.imencode(".png", np.zeros((96, 112, 3), np.uint8))[1])
    path.write_bytes(pickle.dumps(([PICTURES[0], b"no picture", small, b"", *PICTURES[4:]], SAME)))
    dataset = open_dataset(f"bin:{path}")
    with pytest.raises(InputError, match=r"picture 1 \(10 bytes\) is damaged, or no picture"):
        dataset.read(1)
    with pytest.raises(InputError, match="picture 2 is 112x96, expected an aligned 112x112 crop"):
        dataset.read(2)
    with pytest.raises(InputError, match="picture 3"):
        dataset.read(3)


# Sets with a gallery


def test_tinyface_looks_probes_up_among_matches_and_distractors(tmp_path: Path) -> None:
    for root in (tinyface_folder(tmp_path), tmp_path / "Testing_Set"):
        dataset = open_dataset(f"tinyface:{root}")
        assert dataset.lookup is not None
        assert dataset.people is not None
        assert dataset.people[dataset.lookup.gallery].tolist() == [17, 17, 208, 208, 3, 3, -1, -1]
        assert dataset.people[dataset.lookup.probes["all"]].tolist() == [17, 208, 3]
        assert dataset.lookup.ranks == (1, 5, 20)
        assert len(dataset.lookup.strangers) == 0
        probe = dataset.lookup.probes["all"][1]
        assert dataset.names[probe] == "Probe/208_9.jpg"
        assert np.array_equal(dataset.read(probe), cv2.imread(str(tmp_path / "Testing_Set/Probe/208_9.jpg")))


def test_survface_has_strangers_and_counts_the_first_twenty_places(tmp_path: Path) -> None:
    base = tmp_path / "Face_Identification_Test_Set"
    for person in (11, 5):
        write(base / "gallery" / f"{person}_cam1_1.jpg", f"{person}", 1)
        write(base / "mated_probe" / f"{person}_cam2_1.jpg", f"{person}", 2)
    write(base / "unmated_probe" / "99_cam3_1.jpg", "99", 1)
    write(base / "unmated_probe" / "distractors_12.jpg", "12", 1)
    dataset = open_dataset(f"survface:{tmp_path}")
    assert dataset.lookup is not None
    assert dataset.people is not None
    assert dataset.people[dataset.lookup.gallery].tolist() == [11, 5]
    assert dataset.people[dataset.lookup.probes["all"]].tolist() == [11, 5]
    assert [dataset.names[i] for i in dataset.lookup.strangers] == [
        "unmated_probe/99_cam3_1.jpg",
        "unmated_probe/distractors_12.jpg",
    ]
    assert dataset.lookup.open_rank == 20


def test_scface_looks_up_the_visible_cameras_by_distance(tmp_path: Path) -> None:
    dataset = open_dataset(f"scface:{scface_folder(tmp_path)}")
    assert dataset.lookup is not None
    assert dataset.people is not None
    assert dataset.people[dataset.lookup.gallery].tolist() == [1, 2]
    assert list(dataset.lookup.probes) == ["distance 1", "distance 2", "distance 3"]
    names = [dataset.names[i] for i in dataset.lookup.probes["distance 2"]]
    assert names[0] == "surveillance_cameras_distance_2/cam_1/001_cam1_2.jpg"
    assert {name.rpartition("/")[2] for name in names} == {
        f"00{person}_cam{camera}_2.jpg" for person in (1, 2) for camera in (1, 2, 3, 4, 5)
    }


@pytest.mark.parametrize(
    ("form", "make", "damage", "message"),
    [
        ("tinyface", tinyface_folder, "Testing_Set/Probe", "Probe is no folder; expected TinyFace's"),
        (
            "tinyface",
            tinyface_folder,
            "Testing_Set/Gallery_Match/3_*",
            r"1 people .* not in the gallery: \[3\]",
        ),
        ("scface", scface_folder, "mugshot_frontal_cropped_all/*", "cropped_all holds no picture"),
        ("scface", scface_folder, "surveillance_cameras_distance_2", "distance_2 is no folder"),
        (
            "scface",
            scface_folder,
            "surveillance_cameras_distance_1/cam_[1-5]",
            r"no picture such as 001_cam1_1\.jpg",
        ),
    ],
)
def test_a_set_with_a_part_missing_is_refused(
    form: str, make: Callable[[Path], Path], damage: str, message: str, tmp_path: Path
) -> None:
    make(tmp_path)
    for path in list(tmp_path.glob(damage)):
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    with pytest.raises(InputError, match=message):
        open_dataset(f"{form}:{tmp_path}")


def test_a_name_without_a_person_is_refused(tmp_path: Path) -> None:
    write(tinyface_folder(tmp_path) / "Testing_Set/Probe/face.jpg", "x", 0)
    with pytest.raises(InputError, match=r"face\.jpg: expected a name that begins with the person's number"):
        open_dataset(f"tinyface:{tmp_path}")


# Pictures that are not aligned


def test_pictures_that_are_not_aligned_need_a_detector(tmp_path: Path) -> None:
    dataset = open_dataset(f"tinyface:{tinyface_folder(tmp_path, side=150)}")
    with pytest.raises(InputError, match=r"17_1\.jpg is 150x150, expected an aligned .* --detector yunet"):
        dataset.read(0)


def test_a_detected_face_is_aligned_and_a_picture_without_one_taken_whole_and_counted(tmp_path: Path) -> None:
    tinyface_folder(tmp_path, side=150)
    picture = cv2.imread(str(tmp_path / "Testing_Set/Gallery_Match/17_1.jpg"))
    landmarks = TEMPLATE + 20
    dataset = open_dataset(f"tinyface:{tmp_path}", detector_of(landmarks))
    # the detector's landmarks come back through a logarithm and strides: a grey level of rounding
    assert np.abs(dataset.read(0).astype(int) - align(picture, landmarks[None])[0]).max() <= 1
    assert dataset.whole == set()
    dataset = open_dataset(f"tinyface:{tmp_path}", detector_of(None))
    assert np.array_equal(dataset.read(0), cv2.resize(picture, (112, 112), interpolation=cv2.INTER_CUBIC))
    assert dataset.whole == {"Gallery_Match/17_1.jpg"}


@pytest.mark.parametrize("form", ["people", "lfw"])
def test_pictures_of_one_name_in_two_folders_are_counted_apart(form: str, tmp_path: Path) -> None:
    if form == "people":
        for person in ("A", "B"):
            for number in (0, 1):
                write(tmp_path / person / f"{number}.png", person, number, side=150)
        expected = {"A/0.png", "A/1.png", "B/0.png", "B/1.png"}
    else:
        lfw_folder(tmp_path)
        pictures = list((tmp_path / "aligned112").glob("*"))
        for path in pictures:
            write(path, path.stem, 0, side=150)
        named = open_dataset(f"lfw:{tmp_path}").names
        expected = {f"aligned112/{name}" for name in named}
    dataset = open_dataset(f"{form}:{tmp_path}", detector_of(None))
    for i in range(len(dataset.names)):
        dataset.read(i)
    assert dataset.whole == expected


# IJB


@pytest.mark.parametrize("prefix", ["ijbb", "ijbc"])
def test_ijb_is_read_as_templates_with_its_own_landmarks(prefix: str, tmp_path: Path) -> None:
    dataset = open_dataset(f"ijb:{ijb_folder(tmp_path, prefix)}")
    assert dataset.title == f"IJB-{prefix[-1].upper()}"
    assert dataset.pairs is not None
    assert dataset.templates is not None
    assert dataset.people is not None
    assert dataset.templates.template.tolist() == [0, 1, 1, 2, 3, 3, 3]
    assert dataset.templates.media.tolist() == [1, 2, 3, 4, 5, 5, 6]
    assert dataset.templates.weight == pytest.approx([0.9, 0.91, 0.92, 0.93, 0.94, 0.95, 0.96])
    assert dataset.pairs.first.tolist() == [0, 2, 0, 1]
    assert dataset.pairs.second.tolist() == [1, 3, 2, 3]
    assert dataset.pairs.same.tolist() == [True, True, False, False]
    assert dataset.people.tolist() == [0, 0, 1, 1]
    assert 1e-4 in dataset.pairs.fars
    picture = cv2.imread(str(tmp_path / "loose_crop/3.jpg"))
    # landmarks are written with two digits: a grey level of rounding
    assert np.abs(dataset.read(2).astype(int) - align(picture, TEMPLATE[None] + 2)[0]).max() <= 1
    assert dataset.pictures_of(np.array([1, 3])).tolist() == [1, 2, 4, 5, 6]


def test_links_join_people_however_long_the_chain() -> None:
    order = np.random.default_rng(0).permutation(50)
    chain = order[:40]
    groups = connected(50, chain[:-1], chain[1:])
    assert len(set(groups[chain].tolist())) == 1
    assert len(set(groups.tolist())) == 11


def rewrite(name: str, old: str, new: str) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        path = folder / "meta" / f"ijbc_{name}.txt"
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new, 1))

    return damage


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (
            lambda f: (f / "meta/ijbc_name_5pts_score.txt").unlink(),
            "expected insightface's folder IJBB or IJBC",
        ),
        (lambda f: (f / "meta/ijbc_face_tid_mid.txt").unlink(), r"tid_mid\.txt cannot be read"),
        (lambda f: (f / "meta/ijbc_template_pair_label.txt").unlink(), "pair_label.txt is missing or empty"),
        (
            lambda f: (f / "meta/ijbc_template_pair_label.txt").write_text(""),
            "pair_label.txt is missing or empty",
        ),
        (
            lambda f: (f / "loose_crop/4.jpg").unlink(),
            r"1 of the 7 pictures .* missing, the first is .*4\.jpg",
        ),
        (rewrite("name_5pts_score", "3.jpg ", "3.jpg 1 "), r"score\.txt, line 3: 13 words"),
        (rewrite("name_5pts_score", "0.92", "high"), r"score\.txt: could not convert string to float"),
        (rewrite("name_5pts_score", "0.92", "nan"), r"score\.txt has values that are no finite numbers"),
        (rewrite("face_tid_mid", "3.jpg", "4.jpg"), r"line 3: '4\.jpg 11 3' where 3\.jpg is due"),
        (rewrite("face_tid_mid", "7.jpg 30 6\n", ""), r"has 6 lines for 7 pictures"),
        (rewrite("face_tid_mid", " 30 6", " x 6"), r"tid_mid\.txt: invalid literal"),
        (rewrite("template_pair_label", "10 12 0", "10 99 0"), "names template 99, which has no pictures"),
        (rewrite("template_pair_label", "10 12 0", "10 12 2"), "other labels than 0 and 1"),
        (rewrite("template_pair_label", "10 12 0", "10 12"), r"pair_label\.txt: .*number of columns"),
        (rewrite("template_pair_label", "10 12 0", "ten 12 0"), r"pair_label\.txt: could not convert"),
    ],
)
def test_a_damaged_ijb_folder_is_refused_with_the_reason(
    damage: Callable[[Path], object], message: str, tmp_path: Path
) -> None:
    damage(ijb_folder(tmp_path))
    with pytest.raises(InputError, match=message):
        open_dataset(f"ijb:{tmp_path}")


# All of them


@pytest.mark.parametrize("name", ["lfw", "lfw:", "faces:/tmp", ":/tmp", ""])
def test_an_unknown_form_is_refused_with_the_known_ones(name: str) -> None:
    with pytest.raises(InputError, match=r"expected lfw:DIR, people:DIR, bin:FILE"):
        open_dataset(name)


@pytest.mark.parametrize("form", ["lfw", "people", "tinyface", "survface", "scface", "ijb"])
def test_a_folder_that_is_not_there_is_refused(form: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=f"there is no folder {tmp_path}/absent"):
        open_dataset(f"{form}:{tmp_path}/absent")
    with pytest.raises(InputError, match=r"x\.bin cannot be read"):
        open_dataset(f"bin:{tmp_path}/x.bin")


def test_the_digest_follows_every_pixel_and_every_label(tmp_path: Path) -> None:
    def digest() -> str:
        return open_dataset(f"lfw:{tmp_path}").digest

    lfw_folder(tmp_path)
    once = digest()
    assert once == digest()
    path = tmp_path / "pairs.txt"
    lines = path.read_text().splitlines()
    path.write_text("\n".join([lines[0], *lines[2:4], lines[1], *lines[4:]]))
    other = digest()
    assert other != once
    write(tmp_path / "aligned112" / "Person_A_0001.jpg", "somebody else", 1)
    assert digest() != other


def test_a_digest_takes_no_picture_that_was_read_a_second_time() -> None:
    count = 9000  # more than stay in memory
    asked: list[int] = []

    def read(i: int) -> NDArray[np.uint8]:
        asked.append(i)
        return np.full((1, 1, 3), i % 256, np.uint8)

    crops = Crops(read)
    for i in range(count - 1):
        crops(i)
    digest = Dataset("many", tuple(map(str, range(count))), crops, people=None).digest
    assert digest.startswith("sha256:")
    assert asked == list(range(count))  # the last one for the digest
    assert crops.sha256(257) == hashlib.sha256(b"\1\1\1").digest()
    crops(0)
    assert len(asked) == count + 1  # it had left memory


def test_the_digest_of_the_same_pictures_with_other_labels_is_another(tmp_path: Path) -> None:
    digests = set()
    for same in (SAME, SAME[::-1]):
        (tmp_path / "x.bin").write_bytes(pickle.dumps((PICTURES, same)))
        digests.add(open_dataset(f"bin:{tmp_path}/x.bin").digest)
    assert len(digests) == 2
