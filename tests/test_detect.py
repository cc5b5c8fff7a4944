"""The detector: heads decoded, faces of all sizes found, models that do not fit refused."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from fakes import FakeEngine, Feeds, card, spec
from numpy.typing import NDArray

from edge_fr.detect import Detector
from edge_fr.engine import Engine, ModelCard, TensorSpec, open_engine
from edge_fr.errors import CardError, EngineError, InputError, ModelNotFoundError
from edge_fr.heads import LAYOUTS, STRIDES, decode_retinaface, decode_scrfd, decode_yunet
from edge_fr.models import resolve
from edge_fr.structures import Faces, Frame

Array = NDArray[np.float32]
# Float32 sums of numbers up to 1000 px, taken in another order, differ in the fifth decimal.
DECODE_TOLERANCE_PX = 1e-3


# Fakes: engines with empty answers of the right shape, into which a face can be put


def detector_card(head: str = "yunet", **changes: Any) -> ModelCard:
    return card(task="detect", head=head, colour="BGR", embedding_size=None, **changes)


def yunet_specs(rows: Callable[[int], int | None] = lambda stride: None) -> tuple[TensorSpec, ...]:
    kinds = (("cls", 1), ("obj", 1), ("bbox", 4), ("kps", 10))
    return tuple(spec(f"{kind}_{stride}", None, rows(stride), n) for kind, n in kinds for stride in STRIDES)


def no_faces(height: int, width: int) -> dict[str, Array]:
    """What YuNet puts out for an input of that size when it sees nothing."""
    return {
        f"{kind}_{stride}": np.zeros((1, (height // stride) * (width // stride), n), np.float32)
        for kind, n in (("cls", 1), ("obj", 1), ("bbox", 4), ("kps", 10))
        for stride in STRIDES
    }


def put_face(
    outputs: dict[str, Array], width: int, box: tuple[float, float, float, float], score: float
) -> None:
    """Puts a face into YuNet's outputs for an input of that width: box xyxy, landmarks in its centre."""
    stride = 32
    centre = np.array([(box[0] + box[2]) / 2, (box[1] + box[3]) / 2])
    cell = (centre // stride).astype(int)
    row = cell[1] * (width // stride) + cell[0]
    outputs["cls_32"][0, row] = outputs["obj_32"][0, row] = score
    sides = np.array([box[2] - box[0], box[3] - box[1]])
    outputs["bbox_32"][0, row] = np.concatenate([centre / stride - cell, np.log(sides / stride)])
    outputs["kps_32"][0, row] = np.tile(centre / stride - cell, 5)


def fake_yunet(*faces: tuple[tuple[float, float, float, float], float], **fields: Any) -> FakeEngine:
    """An engine that answers with the same faces at every input size."""

    def compute(feeds: Feeds) -> dict[str, Array]:
        height, width = feeds["input"].shape[2:]
        outputs = no_faces(height, width)
        for box, score in faces:
            put_face(outputs, width, box, score)
        return outputs

    values = {
        "card": detector_card(),
        "inputs": (spec("input", None, 3, None, None),),
        "outputs": yunet_specs(),
    }
    return FakeEngine(compute, **{**values, **fields})


def fed_sizes(engine: FakeEngine) -> list[tuple[int, ...]]:
    return [feeds["input"].shape[2:] for feeds in engine.calls]


def blank(height: int, width: int) -> NDArray[np.uint8]:
    return np.zeros((height, width, 3), np.uint8)


# The real YuNet, and portraits in the public domain


@pytest.fixture(scope="module")
def yunet() -> Engine:
    return open_engine(yunet_path())


def yunet_path() -> Path:
    try:
        return resolve("yunet")
    except ModelNotFoundError as error:
        pytest.skip(str(error))


def astronaut() -> NDArray[np.uint8]:
    """NASA's portrait of Eileen Collins, 512 x 512."""
    data = pytest.importorskip("skimage.data")
    return np.ascontiguousarray(data.astronaut()[:, :, ::-1])


def hopper() -> NDArray[np.uint8]:
    """The US Navy's portrait of Grace Hopper, 600 x 512."""
    cbook = pytest.importorskip("matplotlib.cbook")
    image = cv2.imread(str(cbook.get_sample_data("grace_hopper.jpg", asfileobj=False)))
    return np.asarray(image, np.uint8)


# Where the two faces lie in their portraits, measured by eye on the enlarged picture: brow to chin,
# cheek to cheek, as detectors draw them.
PORTRAITS = ((astronaut, (178, 64, 268, 177)), (hopper, (178, 122, 356, 336)))


def drawn_scene(height: int, width: int) -> NDArray[np.uint8]:
    """A background with shades, edges and round things, and no face."""
    ys, xs = np.mgrid[:height, :width]
    image = np.dstack([90 + 60 * xs / width, 120 + 40 * ys / height, 150 - 70 * xs / width]).astype(np.uint8)
    cv2.rectangle(image, (width // 20, height // 10), (width // 6, height), (60, 70, 80), -1)
    cv2.circle(image, (width * 9 // 10, height // 8), height // 12, (190, 200, 210), -1)
    cv2.line(image, (0, height * 4 // 5), (width, height * 3 // 4), (40, 40, 50), 5)
    return image


def paste(scene: NDArray[np.uint8], portrait: int, face_px: float, centre: tuple[int, int]) -> Array:
    """Puts a portrait into the scene, its face so many pixels high around the centre; gives its box."""
    load, (x0, y0, x1, y1) = PORTRAITS[portrait]
    image, scale = load(), face_px / (y1 - y0)
    shift = np.array(centre) - scale * np.array([(x0 + x1) / 2, (y0 + y1) / 2])
    # Ears, hair and shoulders, as far as the face is wide; large faces lose them at the frame's edge.
    left, top = max(0, x0 - (x1 - x0)), max(0, y0 - (y1 - y0) // 2)
    cut = image[top : y1 + (y1 - y0) // 2, left : x1 + (x1 - x0)]
    interpolation = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    cut = np.asarray(cv2.resize(cut, None, fx=scale, fy=scale, interpolation=interpolation), np.uint8)
    at_x, at_y = np.rint(shift + scale * np.array([left, top])).astype(int)
    rows = slice(max(0, at_y), min(scene.shape[0], at_y + cut.shape[0]))
    columns = slice(max(0, at_x), min(scene.shape[1], at_x + cut.shape[1]))
    scene[rows, columns] = cut[
        rows.start - at_y : rows.stop - at_y, columns.start - at_x : columns.stop - at_x
    ]
    return (np.array([x0, y0, x1, y1]) * scale + np.tile(shift, 2)).astype(np.float32)


def iou(a: Array, b: Array) -> float:
    overlap = np.clip(np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2]), 0, None).prod()
    return float(overlap / ((a[2:] - a[:2]).prod() + (b[2:] - b[:2]).prod() - overlap))


def assert_equals_opencv(detector: Detector, image: NDArray[np.uint8], threshold: float) -> int:
    """The same faces as cv2.FaceDetectorYN in the same order; gives their number."""
    height, width = image.shape[:2]
    other = cv2.FaceDetectorYN.create(str(yunet_path()), "", (width, height), threshold, 0.3, 5000)
    rows = other.detect(image)[1]
    rows = np.zeros((0, 15), np.float32) if rows is None else np.asarray(rows)
    faces = detector.detect(image)
    assert len(faces) == len(rows)
    boxes = np.concatenate([rows[:, :2], rows[:, :2] + rows[:, 2:4]], axis=1)
    # Two runtimes compute the same network in float32: 1e-4 px and 1e-6 were measured on 27 frames.
    assert faces.boxes == pytest.approx(boxes, abs=2e-3)
    assert faces.landmarks.reshape(-1, 10) == pytest.approx(rows[:, 4:14], abs=2e-3)
    assert faces.scores == pytest.approx(rows[:, 14], abs=1e-5)
    return len(rows)


# Decoders against plain loops


def random_outputs(head: str, size: tuple[int, int], seed: int) -> list[Array]:
    """Outputs of the head's layout; scores anywhere in 0..1, and for YuNet a little beyond."""
    rng = np.random.default_rng(seed)
    layout = LAYOUTS[head]  # type: ignore[index]
    outputs = []
    for output in layout.outputs:
        shape = (1, layout.rows(output, size), output.columns)
        score = output.columns < 4
        outputs.append(
            (rng.uniform(-0.1, 1.1, shape) if score else rng.normal(0, 1, shape)).astype(np.float32)
        )
    return outputs


def assert_same_faces(faces: Faces, expected: list[tuple[list[float], float, list[list[float]]]]) -> None:
    assert len(faces) == len(expected) > 10
    assert faces.boxes == pytest.approx(np.array([box for box, _, _ in expected]), abs=DECODE_TOLERANCE_PX)
    assert faces.scores == pytest.approx([score for _, score, _ in expected], abs=1e-6)  # float32
    points = np.array([points for _, _, points in expected])
    assert faces.landmarks == pytest.approx(points, abs=DECODE_TOLERANCE_PX)


def test_yunet_is_decoded_as_by_a_plain_loop_over_its_cells() -> None:
    size, threshold = (64, 96), 0.7
    outputs = random_outputs("yunet", size, seed=0)
    expected = []
    for level, stride in enumerate(STRIDES):
        cls, obj, bbox, kps = (outputs[level + 3 * kind][0].astype(float) for kind in range(4))
        for row in range(size[0] // stride):
            for column in range(size[1] // stride):
                i = row * (size[1] // stride) + column
                score = (min(max(cls[i, 0], 0), 1) * min(max(obj[i, 0], 0), 1)) ** 0.5
                if score >= threshold:
                    x, y = (column + bbox[i, 0]) * stride, (row + bbox[i, 1]) * stride
                    w, h = np.exp(bbox[i, 2]) * stride, np.exp(bbox[i, 3]) * stride
                    points = [
                        [(column + kps[i, 2 * p]) * stride, (row + kps[i, 2 * p + 1]) * stride]
                        for p in range(5)
                    ]
                    expected.append(([x - w / 2, y - h / 2, x + w / 2, y + h / 2], score, points))
    assert_same_faces(decode_yunet(outputs, size, threshold), expected)


def test_scrfd_is_decoded_as_by_a_plain_loop_over_its_anchors() -> None:
    size, threshold = (64, 96), 0.8
    outputs = random_outputs("scrfd", size, seed=1)
    expected = []
    for level, stride in enumerate(STRIDES):
        scores, bbox, kps = (outputs[level + 3 * kind][0].astype(float) for kind in range(3))
        i = 0
        for y in range(0, size[0], stride):
            for x in range(0, size[1], stride):
                for _anchor in range(2):
                    if scores[i, 0] >= threshold:
                        left, top, right, bottom = bbox[i] * stride
                        points = [
                            [x + kps[i, 2 * p] * stride, y + kps[i, 2 * p + 1] * stride] for p in range(5)
                        ]
                        expected.append(([x - left, y - top, x + right, y + bottom], scores[i, 0], points))
                    i += 1
    assert_same_faces(decode_scrfd(outputs, size, threshold), expected)


def test_retinaface_is_decoded_as_by_a_plain_loop_over_its_priors() -> None:
    height, width = size = (64, 96)
    threshold = 0.8
    outputs = random_outputs("retinaface", size, seed=2)
    conf, loc, landms = (output[0].astype(float) for output in outputs)
    expected = []
    i = 0
    for stride, sides in ((8, (16, 32)), (16, (64, 128)), (32, (256, 512))):
        for row in range(height // stride):
            for column in range(width // stride):
                for side in sides:
                    # As in the paper's code, priors and answers are fractions of the input's sides.
                    px, py = (column + 0.5) * stride / width, (row + 0.5) * stride / height
                    pw, ph = side / width, side / height
                    if conf[i, 1] >= threshold:
                        x, y = px + loc[i, 0] * 0.1 * pw, py + loc[i, 1] * 0.1 * ph
                        w, h = pw * np.exp(loc[i, 2] * 0.2), ph * np.exp(loc[i, 3] * 0.2)
                        box = [
                            (x - w / 2) * width,
                            (y - h / 2) * height,
                            (x + w / 2) * width,
                            (y + h / 2) * height,
                        ]
                        points = [
                            [
                                (px + landms[i, 2 * p] * 0.1 * pw) * width,
                                (py + landms[i, 2 * p + 1] * 0.1 * ph) * height,
                            ]
                            for p in range(5)
                        ]
                        expected.append((box, conf[i, 1], points))
                    i += 1
    assert i == conf.shape[0]
    assert_same_faces(decode_retinaface(outputs, size, threshold), expected)


# The real network against OpenCV's detector


def test_the_astronaut_is_found_exactly_as_opencv_finds_her(yunet: Engine) -> None:
    assert assert_equals_opencv(Detector(yunet, score_threshold=0.7), astronaut(), 0.7) == 1


def test_faces_in_a_street_are_found_exactly_as_opencv_finds_them(
    yunet: Engine, shared_data: Callable[[str], Path]
) -> None:
    video = cv2.VideoCapture(str(shared_data("video/street_1080p.mp4")))
    detector = Detector(yunet, score_threshold=0.5)
    found = 0
    for index in (0, 40, 80):
        video.set(cv2.CAP_PROP_POS_FRAMES, index)
        read, frame = video.read()
        assert read
        found += assert_equals_opencv(detector, np.asarray(frame, np.uint8), 0.5)
    assert found > 15


def test_landmarks_are_in_the_order_of_the_image_from_left_to_right(yunet: Engine) -> None:
    for load, box in PORTRAITS:
        (face,) = Detector(yunet).detect(load())
        assert iou(face.box, np.array(box, np.float32)) > 0.8
        left_eye, right_eye, nose, left_mouth, right_mouth = face.landmarks
        assert left_eye[0] < nose[0] < right_eye[0]
        assert left_mouth[0] < right_mouth[0]
        assert max(left_eye[1], right_eye[1]) < nose[1] < min(left_mouth[1], right_mouth[1])


# Faces of all sizes


def faces_in(faces: Faces, box: Array) -> Faces:
    """Those whose centre lies in the box."""
    centres = (faces.boxes[:, :2] + faces.boxes[:, 2:]) / 2
    return faces[np.asarray(((centres > box[:2]) & (centres < box[2:])).all(axis=1))]


@pytest.mark.parametrize("portrait", [0, 1])
def test_a_face_that_fills_most_of_a_large_frame_and_one_of_16_px_are_both_found(
    yunet: Engine, portrait: int
) -> None:
    scene = drawn_scene(1080, 1920)
    large = paste(scene, portrait, 0.6 * 1080, (1200, 560))
    small = paste(scene, 0, 16, (300, 300))
    faces = Detector(yunet).detect(scene)
    assert len(faces) == 2
    assert max(iou(box, large) for box in faces.boxes) > 0.8
    # A pixel off on one side of a face of 16 px costs 0.06.
    assert max(iou(box, small) for box in faces.boxes) > 0.6


def test_most_faces_of_16_px_are_found_and_all_of_24_px(yunet: Engine) -> None:
    detector = Detector(yunet)
    for face_px, at_least in ((16, 12), (24, 20)):  # of 20; a face of 16 px is at the network's limit
        scene = drawn_scene(256, 512)
        placed = [
            paste(scene, place % 2, face_px, (40 + 48 * (place % 10) + place // 10, 70 + 120 * (place // 10)))
            for place in range(20)
        ]
        faces = detector.detect(scene)
        found = sum(max((iou(box, expected) for box in faces.boxes), default=0) > 0.5 for expected in placed)
        assert found >= at_least, face_px


@pytest.mark.parametrize("portrait", [0, 1])
@pytest.mark.parametrize("fraction", [0.2, 0.3, 0.4, 0.75, 0.9])
def test_a_face_is_one_face_whatever_part_of_a_large_frame_it_fills(
    yunet: Engine, fraction: float, portrait: int
) -> None:
    scene = drawn_scene(1080, 1920)
    expected = paste(scene, portrait, fraction * 1080, (960, 560))
    (face,) = faces_in(Detector(yunet).detect(scene), expected)
    assert iou(face.box, expected) > 0.8


def test_a_face_that_fills_most_of_a_small_frame_is_found(yunet: Engine) -> None:
    scene = drawn_scene(480, 640)
    expected = paste(scene, 1, 0.6 * 480, (320, 250))
    (face,) = Detector(yunet).detect(scene)
    assert iou(face.box, expected) > 0.8


def test_faces_from_a_street_are_found_when_they_fill_most_of_the_frame(
    yunet: Engine, shared_data: Callable[[str], Path]
) -> None:
    video = cv2.VideoCapture(str(shared_data("video/street_1080p.mp4")))
    frame = np.asarray(video.read()[1], np.uint8)
    detector = Detector(yunet)
    tested = 0
    for box in detector.detect(frame)[:4].boxes:
        side = float(box[3] - box[1]) / 0.6
        x, y = (box[:2] + box[2:]) / 2 - (side / 2 * 16 / 9, side / 2)
        if x < 0 or y < 0 or x + side * 16 / 9 > 1920 or y + side > 1080:
            continue
        scale = 1080 / side
        part = cv2.warpAffine(frame, np.array([[scale, 0, -x * scale], [0, scale, -y * scale]]), (1920, 1080))
        expected = (box - np.tile([x, y], 2)) * scale
        assert max(iou(found, expected) for found in detector.detect(np.asarray(part, np.uint8)).boxes) > 0.7
        tested += 1
    assert tested >= 2


def test_a_face_at_the_border_keeps_the_part_of_its_box_that_lies_outside(yunet: Engine) -> None:
    scene = drawn_scene(480, 640)
    expected = paste(scene, 0, 120, (30, 240))
    (face,) = Detector(yunet).detect(scene)
    assert expected[0] < -10
    assert face.box[0] < -1


def test_nothing_is_found_in_pictures_without_faces(yunet: Engine) -> None:
    detector = Detector(yunet)
    noise = np.random.default_rng(0).integers(0, 256, (300, 400, 3), dtype=np.uint8)
    for image in (blank(1, 1), blank(20, 3000), drawn_scene(720, 1280), noise):
        faces = detector.detect(image)
        assert len(faces) == 0
        assert faces.landmarks.shape == (0, 5, 2)


def test_frames_may_change_their_size_from_one_to_the_next(yunet: Engine) -> None:
    detector = Detector(yunet)
    now = datetime.now(timezone.utc)
    for height, width in ((512, 512), (300, 517), (777, 640), (512, 512)):
        image = np.asarray(cv2.resize(astronaut(), (width, height)), np.uint8)
        (face,) = detector(Frame(image, 0, now), Faces.empty())
        ratio = np.array([width, height] * 2) / 512
        assert iou(face.box, (np.array(PORTRAITS[0][1]) * ratio).astype(np.float32)) > 0.7


# What the engine is fed


@pytest.mark.parametrize(
    ("frame", "max_side_px", "fed"),
    [
        ((480, 640), 1920, [(480, 640)]),
        ((481, 600), 1920, [(512, 608)]),
        ((1080, 1920), 1920, [(1088, 1920), (192, 320)]),
        ((2160, 3840), 1920, [(1088, 1920), (192, 320)]),
        ((2160, 3840), None, [(2176, 3840), (384, 640)]),
        ((1080, 1920), 650, [(384, 640)]),
        ((1, 1), 1920, [(32, 32)]),
    ],
)
def test_a_frame_is_fed_at_full_size_up_to_the_bound_and_a_large_one_again_at_a_sixth(
    frame: tuple[int, int], max_side_px: int | None, fed: list[tuple[int, int]]
) -> None:
    engine = fake_yunet()
    assert len(Detector(engine, max_side_px=max_side_px).detect(blank(*frame))) == 0
    assert fed_sizes(engine) == fed


def test_a_box_of_a_scaled_down_frame_comes_back_in_pixels_of_the_frame() -> None:
    engine = fake_yunet(((100, 200, 140, 260), 0.9))
    faces = Detector(engine, max_side_px=640).detect(blank(1440, 2560))
    assert faces.boxes[0] == pytest.approx([400, 800, 560, 1040], rel=1e-5)  # float32
    assert faces.landmarks[0] == pytest.approx(np.tile([480, 920], (5, 1)), rel=1e-5)


def test_an_engine_of_fixed_size_gets_every_frame_at_that_size_and_once() -> None:
    engine = fake_yunet(
        ((100, 200, 140, 260), 0.9),
        inputs=(spec("input", 1, 3, 960, 960),),
        outputs=yunet_specs(lambda stride: (960 // stride) ** 2),
    )
    detector = Detector(engine)
    assert detector.detect(blank(1080, 1920)).boxes[0] == pytest.approx([200, 400, 280, 520], rel=1e-5)
    assert detector.detect(blank(480, 640)).boxes[0] == pytest.approx([100, 200, 140, 260], rel=1e-5)
    assert fed_sizes(engine) == [(960, 960)] * 2


def test_the_input_has_the_colours_and_range_of_the_card() -> None:
    engine = fake_yunet(card=detector_card(input_range=(-1.0, 1.0)))
    Detector(engine).detect(np.full((32, 32, 3), (0, 51, 255), np.uint8))
    assert engine.calls[0]["input"][0, :, 9, 9] == pytest.approx([-1, -0.6, 1], abs=1e-6)


# Thresholds, overlaps, two looks


def test_faces_below_the_score_threshold_are_dropped_and_at_it_kept() -> None:
    faces = [((100.0, 100.0, 140.0, 140.0), 0.75), ((300.0, 300.0, 340.0, 340.0), 0.5)]
    for threshold, count in ((0.5, 2), (0.51, 1), (0.75, 1), (0.76, 0)):
        assert len(Detector(fake_yunet(*faces), score_threshold=threshold).detect(blank(480, 640))) == count


def test_of_two_boxes_that_overlap_the_better_one_stays_and_the_best_comes_first() -> None:
    engine = fake_yunet(
        ((200, 200, 300, 300), 0.7), ((240, 200, 340, 300), 0.8), ((400, 300, 500, 400), 0.9)
    )  # the first two overlap by an IoU of 60/140
    assert Detector(engine).detect(blank(480, 640)).scores.tolist() == pytest.approx([0.9, 0.8])
    assert len(Detector(engine, nms_threshold=0.5).detect(blank(480, 640))) == 3


def test_each_look_answers_for_the_faces_it_is_good_at() -> None:
    def compute(feeds: Feeds) -> dict[str, Array]:
        height, width = feeds["input"].shape[2:]
        outputs = no_faces(height, width)
        if width == 1920:
            put_face(outputs, width, (100, 100, 300, 300), 0.8)  # also seen at a sixth
            put_face(outputs, width, (1000, 300, 1100, 400), 0.9)  # too small for a sixth
            put_face(outputs, width, (400, 400, 800, 900), 0.9)  # a part of a large face
        else:
            put_face(outputs, width, (18, 18, 48, 48), 0.7)
            put_face(outputs, width, (250, 100, 262, 112), 0.9)  # 72 px: the full look's business
            put_face(outputs, width, (70, 60, 140, 150), 0.9)  # 540 px
        return outputs

    engine = fake_yunet()
    engine.compute = compute
    expected = np.array([[100, 100, 300, 300], [420, 360, 840, 900], [1000, 300, 1100, 400]])
    for times in (1, 2):  # twice the size is scaled down to the same input
        faces = Detector(engine).detect(blank(times * 1080, times * 1920))
        assert sorted(faces.boxes.round().tolist()) == (times * expected).tolist()


# What does not fit is refused


def test_a_model_for_another_task_is_refused() -> None:
    with pytest.raises(CardError, match="is a model for 'embed', expected one for 'detect'"):
        Detector(FakeEngine(dict))


def test_bounds_that_make_no_sense_are_refused() -> None:
    for arguments, reason in (
        ({"score_threshold": 0.0}, "score_threshold is 0.0, expected more than 0"),
        ({"score_threshold": 60}, "score_threshold is 60, .* at most 1"),
        ({"nms_threshold": 1.5}, "nms_threshold is 1.5"),
        ({"max_side_px": 0}, "max_side_px is 0, expected at least 32, or None"),
    ):
        with pytest.raises(InputError, match=reason):
            Detector(fake_yunet(), **arguments)


@pytest.mark.parametrize(
    "inputs",
    [
        (spec("input", None, 3, 100, 640),),
        (spec("input", 4, 3, None, None),),
        (spec("input", None, None, None, 3),),
        (spec("input", None, 3, None, None), spec("im_info", 1, 3)),
        (TensorSpec("input", (1, 3, 640, 640), np.dtype(np.uint8)),),
    ],
)
def test_an_engine_whose_input_is_no_picture_is_refused(inputs: tuple[TensorSpec, ...]) -> None:
    with pytest.raises(CardError, match=r"fake takes input .*expected one float32 input of shape \(1, 3, "):
        Detector(fake_yunet(inputs=inputs))


def scrfd_specs(*columns: int) -> tuple[TensorSpec, ...]:
    return tuple(spec(f"{440 + i}", None, n) for i, n in enumerate(columns))


@pytest.mark.parametrize(
    ("head", "outputs"),
    [
        ("yunet", yunet_specs()[1:]),
        ("yunet", scrfd_specs(1, 1, 1, 4, 4, 4, 10, 10, 10)),
        ("yunet", (*yunet_specs()[:11], spec("kps_32", None, None, 8))),
        ("yunet", (*yunet_specs()[:11], spec("kps_32"))),
        ("scrfd", scrfd_specs(1, 1, 1, 4, 4, 4)),  # SCRFD without landmarks
        ("scrfd", scrfd_specs(*[1] * 5, *[4] * 5, *[10] * 5)),  # five strides
        ("scrfd", yunet_specs()),
        ("retinaface", scrfd_specs(2, 4)),
        ("retinaface", (spec("a", 1, None, 2), spec("b", 1, None, 4), spec("c", 1, None, None))),
    ],
)
def test_outputs_that_do_not_fit_the_head_are_refused(head: str, outputs: tuple[TensorSpec, ...]) -> None:
    with pytest.raises(CardError, match=f"the outputs of fake do not fit the head '{head}' of its card: got"):
        Detector(fake_yunet(card=detector_card(head), outputs=outputs))


def test_rows_that_do_not_fit_a_fixed_input_size_are_refused() -> None:
    inputs = (spec("input", 1, 3, 320, 320),)
    with pytest.raises(CardError, match=r"for an input of 320 x 320: got .*expected cls_8 \(1600, 1\)"):
        Detector(fake_yunet(inputs=inputs, outputs=yunet_specs(lambda stride: (640 // stride) ** 2)))


def test_scrfd_and_retinaface_outputs_are_found_by_their_columns() -> None:
    size = (64, 96)
    for head, by_stride, decode in (
        ("scrfd", [0, 3, 6, 1, 4, 7, 2, 5, 8], decode_scrfd),
        ("retinaface", [1, 0, 2], decode_retinaface),
    ):
        outputs = random_outputs(head, size, seed=3)
        named = {f"{440 + i}": outputs[i] for i in by_stride}
        engine = FakeEngine(
            lambda feeds, named=named: named,  # type: ignore[misc]
            detector_card(head),
            (spec("input", None, 3, None, None),),
            tuple(spec(name, *array.shape) for name, array in named.items()),
        )
        # Overlaps are all kept, so that NMS only sorts by score.
        faces = Detector(engine, score_threshold=0.8, nms_threshold=1.0).detect(blank(*size))
        expected = decode(outputs, size, 0.8)
        assert faces.boxes == pytest.approx(expected.boxes[np.argsort(-expected.scores, kind="stable")])


def test_a_retinaface_that_leaves_its_means_to_the_caller_is_refused() -> None:
    engine = fake_yunet(card=detector_card("retinaface", input_range=(-123.0, 151.0)))
    with pytest.raises(CardError, match=r"another mean from each colour.*expected \(0, 255\)"):
        Detector(engine)


def test_an_answer_of_another_size_than_the_input_is_an_engine_error() -> None:
    engine = fake_yunet()
    engine.compute = lambda feeds: no_faces(640, 640)
    with pytest.raises(
        EngineError, match=r"output 'cls_8' has shape \(1, 6400, 1\) .*expected 4800 rows of 1"
    ):
        Detector(engine).detect(blank(480, 640))


def test_a_box_of_infinite_size_is_an_engine_error() -> None:
    engine = fake_yunet()

    def compute(feeds: Feeds) -> dict[str, Array]:
        outputs = no_faces(480, 640)
        put_face(outputs, 640, (100, 100, 140, 140), 0.9)
        outputs["bbox_32"][outputs["bbox_32"] != 0] = 300.0
        return outputs

    engine.compute = compute
    with pytest.raises(EngineError, match="gave a box that is not finite"):
        Detector(engine).detect(blank(480, 640))


# Several pictures at once


def test_pictures_of_several_sizes_give_together_what_each_gives_alone(yunet: Engine) -> None:
    pictures = [
        astronaut(),
        hopper(),
        blank(200, 300),
        astronaut()[:, ::-1],
        cv2.resize(hopper(), (512, 512)),
    ]
    detector = Detector(yunet)
    for one, many in zip(pictures, detector.detect_many(pictures), strict=True):  # type: ignore[arg-type]
        alone = detector.detect(one)  # type: ignore[arg-type]
        # Batches of another size sum in another order, in single precision.
        np.testing.assert_allclose(many.boxes, alone.boxes, rtol=0, atol=0.01)
        np.testing.assert_allclose(many.landmarks, alone.landmarks, rtol=0, atol=0.01)
        np.testing.assert_allclose(many.scores, alone.scores, rtol=0, atol=1e-4)
    assert detector.detect_many([]) == []


def test_pictures_of_one_size_share_a_call_up_to_eight_and_each_gets_its_own_faces() -> None:
    def compute(feeds: Feeds) -> dict[str, Array]:
        tensor = feeds["input"]
        parts = []
        for picture in tensor:  # a face whose size is the picture's grey level
            outputs = no_faces(*tensor.shape[2:])
            side = max(1.0, float(picture.mean()))
            put_face(outputs, tensor.shape[3], (10, 10, 10 + side, 10 + side), 0.9)
            parts.append(outputs)
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    engine = FakeEngine(
        compute, detector_card(), (spec("input", None, 3, None, None),), outputs=yunet_specs()
    )
    greys = list(range(20, 110, 10))
    pictures = [np.full((96, 128, 3), grey, np.uint8) for grey in greys]
    found = Detector(engine).detect_many([*pictures, blank(64, 64)])
    sides = [float(faces.boxes[0, 2] - faces.boxes[0, 0]) for faces in found[:-1]]
    assert sides == pytest.approx(greys, abs=1e-3)
    assert [feeds["input"].shape[0] for feeds in engine.calls] == [8, 1, 1]


@pytest.mark.parametrize("batch", [1, None])
def test_an_engine_that_takes_one_picture_or_mixes_their_rows_gets_one_at_a_time(batch: int | None) -> None:
    outputs = yunet_specs()
    if batch is None:  # InsightFace's files: any batch goes in, rows without a picture's number come out
        outputs = tuple(spec(s.name, None, s.shape[2]) for s in outputs)
    engine = fake_yunet(inputs=(spec("input", batch, 3, None, None),), outputs=outputs)
    Detector(engine).detect_many([blank(64, 64)] * 3)
    assert [feeds["input"].shape[0] for feeds in engine.calls] == [1, 1, 1]
