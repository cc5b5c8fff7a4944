"""Pictures of people who do not exist: each a pattern of its own, a little different in every picture."""

from __future__ import annotations

import zlib
from pathlib import Path

import cv2
import numpy as np
from fakes import FakeEngine, Feeds, card, spec
from numpy.typing import NDArray

from edge_fr.detect import Detector
from edge_fr.embed import Embedder
from edge_fr.image import TEMPLATE

CELLS = 7
_MARGIN_PX = 75  # what `detect_tight` puts around a picture of 150 px


def crop(person: str, picture: int, side: int = 112) -> NDArray[np.uint8]:
    """A (side, side, 3) picture of the person: a smooth pattern, and some noise of the picture's own."""
    own = np.random.default_rng(zlib.crc32(person.encode()))
    here = np.random.default_rng(zlib.crc32(f"{person} {picture}".encode()))
    pattern = own.uniform(40, 215, (CELLS, CELLS, 3)) + here.normal(0, 25, (CELLS, CELLS, 3))
    small = np.clip(pattern, 0, 255).astype(np.uint8)
    return np.asarray(cv2.resize(small, (side, side), interpolation=cv2.INTER_CUBIC), np.uint8)


def write(path: Path, person: str, picture: int, side: int = 112) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), crop(person, picture, side))
    return path


def lfw_folder(folder: Path, people: int = 12, folds: int = 4, half: int = 3) -> Path:
    """LFW's layout, small: everybody but the last two has four pictures, they have one."""
    names = [f"Person_{chr(65 + i)}" for i in range(people)]
    pictures = {name: 4 if i < people - 2 else 1 for i, name in enumerate(names)}
    for name, count in pictures.items():
        for number in range(1, count + 1):
            write(folder / "aligned112" / f"{name}_{number:04d}.jpg", name, number)
    rng = np.random.default_rng(0)
    lines = [f"{folds}\t{half}"]
    for _ in range(folds):
        for name in rng.choice(names[:-2], half, replace=False):
            first, second = rng.choice(4, 2, replace=False) + 1
            lines.append(f"{name}\t{first}\t{second}")
        for _ in range(half):
            one, other = rng.choice(names, 2, replace=False)
            ends = [(name, rng.integers(pictures[name]) + 1) for name in (one, other)]
            lines.append("\t".join(f"{name}\t{number}" for name, number in ends))
    (folder / "pairs.txt").write_text("\n".join(lines) + "\n")
    return folder


def cell_means(feeds: Feeds) -> NDArray[np.float32]:
    """What the fake recognizer sees: the mean of each cell and colour, without the overall mean."""
    x = feeds["x"]
    side = x.shape[2] // CELLS
    cells = x.reshape(len(x), 3, CELLS, side, CELLS, side).mean(axis=(3, 5)).reshape(len(x), -1)
    return np.asarray(cells - cells.mean(axis=1, keepdims=True), np.float32)


def brightness(feeds: Feeds) -> NDArray[np.float32]:
    """What the fake recognizer gives as its ri, 0..1: it says nothing about small faces."""
    return np.asarray(feeds["x"].mean(axis=(1, 2, 3)) / 255, np.float32)[:, None]


def recognizer(
    name: str = "drawn",
    *,
    noise: float = 0.0,
    ri: bool = False,
    threshold: float | None = None,
    weights: str | None = None,
) -> Embedder:
    """A recognizer of drawn people; `noise` makes it worse; its card may promise a threshold for 1e-4,
    and says that its weights are those of its name, unless told whose."""
    size = 3 * CELLS * CELLS

    def compute(feeds: Feeds) -> dict[str, NDArray[np.float32]]:
        cells = cell_means(feeds)
        # the same picture gets the same noise, in whatever batch it comes
        seeds = [zlib.crc32(row.tobytes()) for row in feeds["x"]]
        rows = [np.random.default_rng(seed).normal(0, noise, size) for seed in seeds]
        found = {"embedding": (cells + np.array(rows)).astype(np.float32)}
        return {**found, "ri": brightness(feeds)} if ri else found

    outputs = (spec("embedding", None, size), *((spec("ri", None, 1),) if ri else ()))
    scores = {} if threshold is None else {"1e-4": threshold}
    digest = f"sha256:{weights or name}"
    the_card = card(name=name, embedding_size=size, impostor_scores=scores, weights_digest=digest)
    return Embedder(FakeEngine(compute, the_card, outputs=outputs))


def jpeg(person: str, picture: int) -> bytes:
    return bytes(cv2.imencode(".jpg", crop(person, picture))[1])


def bin_content() -> tuple[list[bytes], list[bool]]:
    same = [True, False, True, False]
    pictures = [
        jpeg("a" if s or end == 0 else "b", 2 * i + end) for i, s in enumerate(same) for end in (0, 1)
    ]
    return pictures, same


def tinyface_folder(folder: Path, *, side: int = 112) -> Path:
    testing = folder / "Testing_Set"
    for person in (3, 17, 208):
        for picture in (1, 2):
            write(testing / "Gallery_Match" / f"{person}_{picture}.jpg", f"{person}", picture, side)
        write(testing / "Probe" / f"{person}_9.jpg", f"{person}", 9, side)
    # distractors are called after anything, even after somebody's number
    for name in ("3_7", "x_77"):
        write(testing / "Gallery_Distractor" / f"{name}.jpg", name, 0, side)
    return folder


def scface_folder(folder: Path) -> Path:
    for person in ("001", "002"):
        write(folder / "mugshot_frontal_cropped_all" / f"{person}_frontal.JPG", person, 0)
        for distance in (1, 2, 3):
            for camera in range(1, 9):
                where = folder / f"surveillance_cameras_distance_{distance}" / f"cam_{camera}"
                write(where / f"{person}_cam{camera}_{distance}.jpg", person, 10 * camera + distance)
    return folder


def detector_of(landmarks: NDArray[np.float32] | None) -> Detector:
    """Finds one face with these landmarks, in pixels of the picture without its margin, or nothing."""
    size = 320

    def compute(feeds: Feeds) -> dict[str, NDArray[np.float32]]:
        rows = (size // 8) ** 2
        score, box, points = np.zeros((1, rows, 1)), np.zeros((1, rows, 4)), np.zeros((1, rows, 10))
        if landmarks is not None:
            # a YuNet cell holds everything relative to its corner, in strides of 8 px
            score[0, 0] = 0.9
            side = 2.6 * (landmarks[1, 0] - landmarks[0, 0])
            box[0, 0] = (*((landmarks.mean(axis=0) + _MARGIN_PX) / 8), *np.log([side / 8] * 2))
            points[0, 0] = ((landmarks + _MARGIN_PX) / 8).ravel()
        found = {"cls_8": score, "obj_8": score, "bbox_8": box, "kps_8": points}
        for stride in (16, 32):
            count = (size // stride) ** 2
            for kind, columns in (("cls", 1), ("obj", 1), ("bbox", 4), ("kps", 10)):
                found[f"{kind}_{stride}"] = np.zeros((1, count, columns))
        return {name: value.astype(np.float32) for name, value in found.items()}

    outputs = [
        spec(f"{kind}_{stride}", 1, (size // stride) ** 2, columns)
        for kind, columns in (("cls", 1), ("obj", 1), ("bbox", 4), ("kps", 10))
        for stride in (8, 16, 32)
    ]
    engine = FakeEngine(
        compute,
        card(task="detect", head="yunet", colour="BGR", embedding_size=None),
        inputs=(spec("input", 1, 3, size, size),),
        outputs=tuple(outputs),
    )
    return Detector(engine)


def ijb_folder(folder: Path, prefix: str = "ijbc") -> Path:
    """Templates 10 and 11 show person a, 12 and 30 person b; 30 has a video of two frames."""
    pictures = [
        ("a", 10, 1),
        ("a", 11, 2),
        ("a", 11, 3),
        ("b", 12, 4),
        ("b", 30, 5),
        ("b", 30, 5),
        ("b", 30, 6),
    ]
    five, templates = [], []
    for i, (person, template, media) in enumerate(pictures):
        write(folder / "loose_crop" / f"{i + 1}.jpg", person, i, 150)
        shifted = " ".join(f"{value + i:.2f}" for value in TEMPLATE.ravel())
        five.append(f"{i + 1}.jpg {shifted} {0.9 + i / 100:.2f}")
        templates.append(f"{i + 1}.jpg {template} {media}")
    (folder / "meta").mkdir()
    (folder / "meta" / f"{prefix}_name_5pts_score.txt").write_text("\n".join(five) + "\n")
    (folder / "meta" / f"{prefix}_face_tid_mid.txt").write_text("\n".join(templates) + "\n")
    labels = ["10 11 1", "12 30 1", "10 12 0", "11 30 0"]
    (folder / "meta" / f"{prefix}_template_pair_label.txt").write_text("\n".join(labels) + "\n")
    return folder
