import csv
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from pydantic import ValidationError

from edge_fr.errors import ImageError, InputError
from export.training.data import TEMPLATE, Faces, Source, held_out, pack
from export.training.degradations import Recipe
from export.training.loader import Loader
from export.training.masks import MaskRenderer
from export.training.teacher import to_tensor


def picture(seed: int, height: int = 112, width: int = 112) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def people(root: Path, count: int = 30, each: int = 2) -> Source:
    for person in range(count):
        (root / "people" / f"p{person}").mkdir(parents=True)
        for number in range(each):
            path = root / "people" / f"p{person}" / f"{number}.png"
            cv2.imwrite(str(path), picture(person * each + number))
    return Source(name="people", path="people", identities="folder")


def test_packed_crops_are_the_pictures_in_order_and_are_decoded_once(tmp_path: Path) -> None:
    source = people(tmp_path, count=3)
    faces = pack([source], tmp_path, tmp_path / "cache")
    np.testing.assert_array_equal(faces.crops[3], picture(3))
    written = next((tmp_path / "cache").glob("*/crops.npy"))
    before = written.stat().st_mtime_ns
    again = pack([source], tmp_path, tmp_path / "cache")
    assert written.stat().st_mtime_ns == before
    np.testing.assert_array_equal(again.identity, [0, 0, 1, 1, 2, 2])


def test_a_changed_folder_is_packed_anew(tmp_path: Path) -> None:
    source = people(tmp_path, count=2)
    first = pack([source], tmp_path, tmp_path / "cache")
    cv2.imwrite(str(tmp_path / "people" / "p0" / "9.png"), picture(99))
    second = pack([source], tmp_path, tmp_path / "cache")
    assert len(second.crops) == len(first.crops) + 1
    assert first.digest != second.digest


def test_no_person_is_on_both_sides_even_across_sources_that_share_people(tmp_path: Path) -> None:
    names = [f"{n:03d}.png" for n in range(40)]
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        for n, name in enumerate(names):
            cv2.imwrite(str(tmp_path / folder / f"{folder}{name}"), picture(n))
    with (tmp_path / "who.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["image", "identity"])
        rows.writerows([f"{folder}{name}", n] for folder in ("a", "b") for n, name in enumerate(names))
    sources = [Source(name=f, path=f, identities="who.csv", people="shared") for f in ("a", "b")]
    faces = pack(sources, tmp_path, tmp_path / "cache")
    tune, train = set(faces.identity[faces.tune]), set(faces.identity[~faces.tune])
    assert len(set(faces.identity)) == 40
    assert tune
    assert tune & train == set()
    assert held_out("shared/3") == bool(faces.tune[faces.identity == faces.identity[3]][0])


def test_celebas_own_alignment_lands_on_the_template(tmp_path: Path) -> None:
    image = np.zeros((109, 89, 3), np.uint8)
    for x, y in ((34.5, 55.5), (54.0, 55.5)):  # the eyes of every picture
        cv2.circle(image, (round(x * 16), round(y * 16)), 24, (255, 255, 255), -1, cv2.LINE_AA, 4)
    (tmp_path / "half").mkdir()
    cv2.imwrite(str(tmp_path / "half" / "1.png"), image)
    faces = pack([Source(name="half", path="half", layout="celeba-half")], tmp_path, tmp_path / "cache")
    _, _, _, centres = cv2.connectedComponentsWithStats((faces.crops[0][..., 0] > 100).astype(np.uint8))
    # A similarity cannot bring five mean landmarks onto the template exactly; 2 px here are 1 px there.
    np.testing.assert_allclose(sorted(centres[1:].tolist()), TEMPLATE[:2], rtol=0, atol=2.0)


def test_a_picture_that_is_no_aligned_crop_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    cv2.imwrite(str(tmp_path / "x" / "wide.png"), picture(0, 112, 200))
    with pytest.raises(ImageError, match=r"wide\.png is 200x112, expected an aligned crop of 112x112"):
        pack([Source(name="x", path="x")], tmp_path, tmp_path / "cache")


def test_an_empty_folder_and_an_unlisted_picture_are_refused(tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    with pytest.raises(InputError, match="no pictures under"):
        pack([Source(name="x", path="x")], tmp_path, tmp_path / "cache")
    cv2.imwrite(str(tmp_path / "x" / "1.png"), picture(0))
    (tmp_path / "who.csv").write_text("image,identity\n2.png,7\n")
    with pytest.raises(InputError, match=r"1\.png has no row"):
        pack([Source(name="x", path="x", identities="who.csv")], tmp_path, tmp_path / "cache")


def test_a_file_of_names_that_is_missing_or_has_other_columns_is_told(tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    cv2.imwrite(str(tmp_path / "x" / "1.png"), picture(0))
    source = Source(name="x", path="x", identities="who.csv")
    with pytest.raises(
        InputError, match=r"who\.csv: expected a CSV file with the columns image and identity"
    ):
        pack([source], tmp_path, tmp_path / "cache")
    (tmp_path / "who.csv").write_text("file,person\n1.png,7\n")
    with pytest.raises(InputError, match=r"who\.csv: expected .* columns image and identity"):
        pack([source], tmp_path, tmp_path / "cache")


def test_pictures_that_were_packed_as_one_source_may_be_two_later(tmp_path: Path) -> None:
    for n, folder in enumerate(("a", "b")):
        (tmp_path / "x" / folder).mkdir(parents=True)
        cv2.imwrite(str(tmp_path / "x" / folder / "1.png"), picture(n))
    pack([Source(name="x", path="x")], tmp_path, tmp_path / "cache")
    parts = [Source(name=folder, path=f"x/{folder}") for folder in ("a", "b")]
    np.testing.assert_array_equal(pack(parts, tmp_path, tmp_path / "cache").source, [0, 1])


@pytest.mark.parametrize("share", [0.0, 1.5])
def test_a_share_that_no_epoch_can_show_is_refused(share: float) -> None:
    with pytest.raises(ValidationError, match="share"):
        Source(name="x", path="x", share=share)


def loader(faces: Faces, **changed: int) -> Loader:
    return Loader(faces, [1.0], Recipe(), MaskRenderer(None), **{"batch": 8, "seed": 0, **changed})


def test_a_batch_depends_on_seed_and_step_alone(tmp_path: Path) -> None:
    faces = pack([people(tmp_path)], tmp_path, tmp_path / "cache")
    straight = list(loader(faces).batches(0, 12))
    later = list(loader(faces).batches(9, 12))
    for expected, found in zip(straight[9:], later, strict=True):
        for name, value in vars(expected).items():
            assert torch.equal(value, vars(found)[name]), name
    assert not torch.equal(next(iter(loader(faces, seed=1).batches(0, 1))).crops, straight[0].crops)


def test_an_epoch_shows_every_training_face_once_and_no_held_out_one(tmp_path: Path) -> None:
    faces = pack([people(tmp_path)], tmp_path, tmp_path / "cache")
    drawn = loader(faces, batch=6)
    steps = drawn.epoch_size // 6
    first = np.concatenate([drawn.rows(step) for step in range(steps)])
    second = np.concatenate([drawn.rows(step) for step in range(steps, 2 * steps)])
    assert len(set(first)) == len(first)
    assert not faces.tune[first].any()
    assert len(first) > (~faces.tune).sum() - 6
    assert first.tolist() != second.tolist()


def test_a_source_of_half_share_is_drawn_half_as_often(tmp_path: Path) -> None:
    count = 400
    faces = Faces(
        crops=np.zeros((2 * count, 1, 1, 3), np.uint8),
        source=np.repeat([0, 1], count),
        identity=np.full(2 * count, -1),
        tune=np.zeros(2 * count, bool),
        digest="",
    )
    drawn = Loader(faces, [1.0, 0.5], Recipe(), MaskRenderer(None), batch=10, seed=0)
    assert drawn.epoch_size == 600
    rows = np.concatenate([drawn.rows(step) for step in range(60)])
    assert (rows < count).sum() == 400
    assert (rows >= count).sum() == 200


def test_a_crop_becomes_rgb_in_the_order_of_the_network() -> None:
    crop = np.zeros((1, 112, 112, 3), np.uint8)
    crop[0, 2, 5] = (10, 20, 30)  # blue, green, red
    assert to_tensor(crop)[0, :, 2, 5].tolist() == [30.0, 20.0, 10.0]
