"""Pictures: which files and arrays are taken, how they fit a network, where align puts a face."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from edge_fr.errors import ImageError, InputError, ModelNotFoundError
from edge_fr.image import MAX_IMAGE_PIXELS, TEMPLATE, align, letterbox, read_image, similarity, to_bgr
from edge_fr.models import resolve

GOLDEN = Path(__file__).parent / "golden"
# The face of scikit-image's astronaut (a portrait by NASA, in the public domain), as YuNet places it.
LANDMARKS = np.array(
    [[(200.1, 101.8), (247.2, 102.6), (220.3, 124.7), (198.9, 143.2), (239.8, 143.9)]], np.float32
)


def astronaut() -> NDArray[np.uint8]:
    data = pytest.importorskip("skimage.data")
    return np.ascontiguousarray(data.astronaut()[:, :, ::-1])


def drawn(height: int = 60, width: int = 80) -> NDArray[np.uint8]:
    """A picture whose four corners have four colours."""
    image = np.full((height, width, 3), 128, np.uint8)
    image[: height // 2, : width // 2] = (255, 0, 0)
    image[: height // 2, width // 2 :] = (0, 255, 0)
    image[height // 2 :, : width // 2] = (0, 0, 255)
    return image


def encoded(suffix: str, image: NDArray[np.integer[Any]]) -> bytes:
    done, data = cv2.imencode(suffix, image)
    assert done
    return data.tobytes()


def with_segment(jpeg: bytes, marker: int, content: bytes) -> bytes:
    """The JPEG file with one more segment at its start."""
    return jpeg[:2] + bytes([0xFF, marker]) + struct.pack(">H", len(content) + 2) + content + jpeg[2:]


def written(folder: Path, name: str, data: bytes) -> Path:
    path = folder / name
    path.write_bytes(data)
    return path


# Reading files


def test_a_missing_file_a_folder_and_an_empty_file_are_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"no picture file at .*nobody\.jpg"):
        read_image(tmp_path / "nobody.jpg")
    with pytest.raises(ImageError, match="is a folder, expected a picture file"):
        read_image(tmp_path)
    with pytest.raises(ImageError, match=r"empty\.jpg is empty \(0 bytes\)"):
        read_image(written(tmp_path, "empty.jpg", b""))


def test_a_text_file_called_jpg_is_refused_as_no_picture(tmp_path: Path) -> None:
    path = written(tmp_path, "notes.jpg", b"hello, this is a letter")
    with pytest.raises(ImageError, match=r"notes\.jpg is not a picture, but text .*b'hello, t'"):
        read_image(path)


@pytest.mark.parametrize("kept", [0.01, 0.5, 0.9, 0.999])
def test_a_truncated_jpeg_is_refused_as_cut_off(tmp_path: Path, kept: float) -> None:
    data = encoded(".jpg", astronaut())
    path = written(tmp_path, "half.jpg", data[: int(len(data) * kept)])
    with pytest.raises(ImageError, match=r"half\.jpg is a JPEG picture that is cut off"):
        read_image(path)


def test_the_end_of_a_thumbnail_does_not_count_as_the_end_of_the_jpeg(tmp_path: Path) -> None:
    data = with_segment(encoded(".jpg", astronaut()), 0xE1, b"Exif\0\0 a thumbnail \xff\xd9")
    assert read_image(written(tmp_path, "whole.jpg", data)).shape == (512, 512, 3)
    with pytest.raises(ImageError, match="is a JPEG picture that is cut off"):
        read_image(written(tmp_path, "half.jpg", data[: len(data) // 2]))


@pytest.mark.parametrize("suffix", [".png", ".webp", ".tiff"])
def test_other_truncated_pictures_are_refused_as_damaged(tmp_path: Path, suffix: str) -> None:
    data = encoded(suffix, astronaut())
    path = written(tmp_path, f"half{suffix}", data[: len(data) // 2])
    with pytest.raises(ImageError, match="damaged"):
        read_image(path)


def test_grey_transparent_and_16_bit_pictures_become_bgr_uint8(tmp_path: Path) -> None:
    grey = np.arange(60 * 80, dtype=np.uint16).reshape(60, 80)
    bgra = np.dstack([drawn(), np.zeros((60, 80), np.uint8)])
    for name, picture, expected in (
        ("grey8.png", (grey % 256).astype(np.uint8), np.dstack([grey % 256] * 3)),
        ("grey16.png", grey * 13, np.dstack([grey * 13 >> 8] * 3)),
        ("colour16.png", drawn().astype(np.uint16) * 257, drawn()),
        ("grey16.tiff", grey * 13, np.dstack([grey * 13 >> 8] * 3)),
        ("transparent.png", bgra, drawn()),
        ("colour.bmp", drawn(), drawn()),
    ):
        image = read_image(written(tmp_path, name, encoded(Path(name).suffix, picture)))
        assert image.dtype == np.uint8, name
        assert np.array_equal(image, expected), name


def test_a_picture_of_one_pixel_and_a_very_long_one_are_readable(tmp_path: Path) -> None:
    dot = read_image(written(tmp_path, "dot.png", encoded(".png", np.full((1, 1, 3), 7, np.uint8))))
    assert dot.tolist() == [[[7, 7, 7]]]
    long = read_image(written(tmp_path, "long.jpg", encoded(".jpg", drawn(20, 20_000))))
    assert long.shape == (20, 20_000, 3)


def test_a_photograph_taken_on_its_side_is_turned_upright(tmp_path: Path) -> None:
    # One EXIF entry: tag 0x112 (orientation), type 3 (short), one value, 6 (turn 90 degrees clockwise).
    exif = b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"
    sideways = with_segment(encoded(".jpg", drawn()), 0xE1, exif)
    upright = cv2.rotate(
        read_image(written(tmp_path, "a.jpg", encoded(".jpg", drawn()))), cv2.ROTATE_90_CLOCKWISE
    )
    assert np.array_equal(read_image(written(tmp_path, "b.jpg", sideways)), upright)


def test_a_picture_with_too_many_pixels_is_refused_before_it_is_decoded(tmp_path: Path) -> None:
    # Only headers: had they been decoded first, they would be refused as damaged.
    header = struct.pack(">IIBBBBB", 10_000, 12_000, 8, 2, 0, 0, 0)
    png = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + b"IHDR" + header
    png += struct.pack(">I", zlib.crc32(b"IHDR" + header))
    jpeg = encoded(".jpg", drawn())
    at = jpeg.index(b"\xff\xc0") + 5
    assert jpeg[at : at + 4] == struct.pack(">HH", 60, 80)
    jpeg = jpeg[:at] + struct.pack(">HH", 12_000, 10_000) + jpeg[at + 4 :]
    for name, data in (("huge.png", png), ("huge.jpg", jpeg)):
        with pytest.raises(ImageError, match=f"{name} has 10000 x 12000 = 120 million pixels, .* at most 64"):
            read_image(written(tmp_path, name, data))


def test_the_pixel_limit_also_holds_for_formats_whose_header_is_not_read(tmp_path: Path) -> None:
    side = int(MAX_IMAGE_PIXELS**0.5) + 1
    bitmap = encoded(".bmp", np.zeros((side, side), np.uint8))
    with pytest.raises(ImageError, match="at most 64 million; scale it down"):
        read_image(written(tmp_path, "huge.bmp", bitmap))


# Arrays


def test_a_bgr_array_is_passed_through_without_a_copy() -> None:
    image = drawn()
    assert np.shares_memory(to_bgr(image), image)


def test_arrays_of_other_layouts_become_contiguous_bgr() -> None:
    grey = np.arange(12, dtype=np.uint8).reshape(3, 4)
    for array, expected in (
        (grey, np.dstack([grey] * 3)),
        (grey[:, :, None], np.dstack([grey] * 3)),
        (np.dstack([drawn(), drawn()[:, :, 0]]), drawn()),
        (drawn().astype(np.uint16) << 8, drawn().astype(np.uint16) << 8 >> 8),
        (drawn()[::-1, ::2, ::-1], drawn()[::-1, ::2, ::-1]),
    ):
        image = to_bgr(array)
        assert image.dtype == np.uint8
        assert image.flags.c_contiguous
        assert np.array_equal(image, expected)


def test_arrays_that_are_no_pictures_are_refused_with_the_reason() -> None:
    for array, reason in (
        (None, "got NoneType; cv2.imread gives None"),
        ([[0]], "got list"),
        (np.zeros((0, 4, 3), np.uint8), r"is empty, its shape is \(0, 4, 3\)"),
        (np.zeros((5, 6, 2), np.uint8), r"got \(5, 6, 2\)$"),
        (np.zeros((3, 40, 50), np.uint8), r"got \(3, 40, 50\); array.transpose\(1, 2, 0\)"),
        (np.zeros((1, 4, 4, 3), np.uint8), r"got \(1, 4, 4, 3\)"),
        (np.zeros((4, 4, 3), np.float32), r"got float32 \(if it spans 0..1: \(array \* 255\)"),
        (np.full((4, 4, 3), np.nan), "got float64 with NaN or infinity in it"),
        (np.zeros((4, 4, 3), np.int64), "got int64$"),
    ):
        with pytest.raises(ImageError, match=reason):
            to_bgr(array)  # type: ignore[arg-type]


# Fitting to a network input


def test_letterbox_pads_right_and_below_with_black_and_keeps_the_pixels() -> None:
    image = np.random.default_rng(0).integers(1, 256, (50, 70, 3), dtype=np.uint8)
    tensor, scale = letterbox(image, (64, 96))
    assert scale == 1.0
    assert tensor.shape == (1, 3, 64, 96)
    assert tensor.dtype == np.float32
    assert np.array_equal(tensor[0, :, :50, :70].transpose(1, 2, 0), image)
    assert not tensor[0, :, 50:].any()
    assert not tensor[0, :, :, 70:].any()


def test_letterbox_fills_an_earlier_input_again_and_leaves_nothing_of_the_picture_before() -> None:
    before, _ = letterbox(np.full((64, 96, 3), 200, np.uint8), (64, 96), input_range=(-1.0, 1.0))
    image = np.random.default_rng(0).integers(0, 256, (40, 50, 3), np.uint8)
    fresh, _ = letterbox(image, (64, 96), input_range=(-1.0, 1.0))
    again, _ = letterbox(image, (64, 96), input_range=(-1.0, 1.0), out=before)
    assert again is before
    assert np.array_equal(again, fresh)


def test_letterbox_gives_the_colour_order_and_range_of_the_card() -> None:
    image = np.full((32, 32, 3), (255, 0, 51), np.uint8)
    tensor, _ = letterbox(image, (32, 64), colour="RGB", input_range=(-1.0, 1.0))
    # float32 rounds 2/255 in its 24th bit
    assert tensor[0, :, 5, 5] == pytest.approx([-0.6, -1, 1], abs=1e-6)
    assert tensor[0, :, 5, 40] == pytest.approx([-1, -1, -1], abs=1e-6)


@pytest.mark.parametrize(("height", "width"), [(600, 500), (200, 1000), (333, 777)])
def test_a_point_of_a_scaled_down_input_maps_back_by_the_scale(height: int, width: int) -> None:
    image = np.zeros((height, width, 3), np.uint8)
    x, y = width * 3 // 4, height // 3
    cv2.rectangle(image, (x - 20, y - 20), (x + 20, y + 20), (255, 255, 255), -1)
    tensor, scale = letterbox(image, (160, 256))
    assert scale == min(160 / height, 256 / width)
    rows, columns = np.nonzero(tensor[0, 0] > 127)
    # A pixel of the input covers 1/scale of the picture; rounding its size moves its far edge by half.
    assert columns.mean() / scale == pytest.approx(x, abs=1 / scale)
    assert rows.mean() / scale == pytest.approx(y, abs=1 / scale)


def test_letterbox_takes_pictures_that_shrink_to_less_than_a_pixel() -> None:
    wide, scale = letterbox(np.full((20, 20_000, 3), 9, np.uint8), (32, 320))
    assert scale == 320 / 20_000
    assert wide[0, 0, 0, 100] == 9
    high, scale = letterbox(np.full((20_000, 20, 3), 9, np.uint8), (320, 32))
    assert scale == 320 / 20_000
    assert high[0, 0, 100, 0] == 9


# Aligning


def umeyama(source: NDArray[np.float64], target: NDArray[np.float64]) -> NDArray[np.float64]:
    """The fit as in the paper, by singular values: an independent computation of `similarity`."""
    p, q = source - source.mean(0), target - target.mean(0)
    u, s, vt = np.linalg.svd(q.T @ p / len(p))
    sign = np.diag([1.0, np.sign(np.linalg.det(u) * np.linalg.det(vt))])
    turn = u @ sign @ vt
    scale = np.trace(np.diag(s) @ sign) / p.var(axis=0).sum()
    return np.column_stack([scale * turn, target.mean(0) - scale * turn @ source.mean(0)])


def test_similarity_is_the_least_squares_fit_of_umeyama() -> None:
    rng = np.random.default_rng(1)
    # Faces of all sizes, anywhere in a frame, turned, mirrored and badly placed.
    landmarks = TEMPLATE * rng.uniform(0.1, 9, (200, 1, 1)) * rng.choice([-1, 1], (200, 1, 2))
    landmarks = landmarks + rng.normal(0, 8, (200, 5, 2)) + rng.uniform(0, 2000, (200, 1, 2))
    landmarks = landmarks.astype(np.float32)
    expected = np.stack([umeyama(k.astype(float), TEMPLATE.astype(float)) for k in landmarks])
    matrices = similarity(landmarks)
    assert matrices.dtype == np.float32
    placed = landmarks @ matrices[:, :, :2].transpose(0, 2, 1) + matrices[:, None, :, 2]
    wanted = landmarks @ expected[:, :, :2].transpose(0, 2, 1) + expected[:, None, :, 2]
    # float32 keeps 2000 px times a scale of 9 to about 0.001 px
    assert np.abs(placed - wanted).max() < 0.005


def test_similarity_brings_a_turned_and_enlarged_template_back() -> None:
    angle, scale, shift = np.radians(30), 2.5, np.array([300.0, -40.0])
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    landmarks = (scale * TEMPLATE @ turn.T + shift).astype(np.float32)
    matrix = similarity(landmarks[None])[0]
    assert matrix[:, :2] == pytest.approx(turn.T / scale, abs=1e-6)  # float32
    assert landmarks @ matrix[:, :2].T + matrix[:, 2] == pytest.approx(TEMPLATE, abs=1e-4)


def test_landmarks_without_a_fit_give_nan_and_leave_the_other_rows_alone() -> None:
    landmarks = np.concatenate([LANDMARKS] * 4)
    landmarks[1] = 50.0
    landmarks[2, 3, 0] = np.nan
    landmarks[3, 0, 1] = np.inf
    matrices = similarity(landmarks)
    assert np.isnan(matrices[1:]).all()
    assert np.array_equal(matrices[:1], similarity(LANDMARKS))


def test_no_landmarks_give_no_crops_and_a_wrong_shape_is_refused() -> None:
    assert align(drawn(), np.zeros((0, 5, 2), np.float32)).shape == (0, 112, 112, 3)
    with pytest.raises(InputError, match=r"shape \(N, 5, 2\), got \(5, 2\)"):
        align(drawn(), LANDMARKS[0])


def test_the_astronaut_is_aligned_as_in_the_golden_crop() -> None:
    golden = read_image(GOLDEN / "astronaut_112.png")
    crop = align(astronaut(), LANDMARKS)[0]
    difference = np.abs(crop.astype(int) - golden)
    # OpenCV before 4.11 rounds positions to 1/32 px: measured 3 grey levels at most, 0.11 in the mean.
    # Landmarks that are 0.02 px off make 5 and 0.25.
    assert difference.max() <= 4
    assert difference.mean() <= 0.2


def test_align_agrees_with_opencvs_own_crop_for_its_face_recognizer() -> None:
    try:
        model = resolve("sface")
    except ModelNotFoundError as error:
        pytest.skip(str(error))
    recognizer = cv2.FaceRecognizerSF.create(str(model), "")
    row = np.concatenate([np.zeros(4), LANDMARKS.ravel(), [1]]).astype(np.float32)
    expected = recognizer.alignCrop(astronaut(), row)
    # The two compute the same fit; rounding may differ by a grey level.
    assert np.abs(align(astronaut(), LANDMARKS)[0].astype(int) - expected).max() <= 1


@pytest.mark.parametrize("size", [0.2, 0.7, 1.0, 1.6, 3.0, 7.0])
def test_landmarks_land_on_the_template_whatever_the_size_of_the_face(size: float) -> None:
    centre = np.array([420.0, 410.0])
    landmarks = ((TEMPLATE - 56) @ np.array([[0.94, 0.34], [-0.34, 0.94]]) * size + centre).astype(np.float32)
    image = np.zeros((820, 840, 3), np.uint8)
    for x, y in landmarks:
        # A blob of the same size in every crop, placed to a sixteenth of a pixel.
        spot = (round(float(x) * 16), round(float(y) * 16))
        cv2.circle(image, spot, max(8, round(3 * size * 16)), (255, 255, 255), -1, cv2.LINE_AA, 4)
    crop = align(image, landmarks[None])[0, :, :, 0].astype(float)
    ys, xs = np.mgrid[:112, :112]
    for x, y in TEMPLATE:
        near = crop * ((xs - x) ** 2 + (ys - y) ** 2 < 8**2)
        # A third of a pixel: the blob's edge is drawn to whole pixels of the picture, of which a face
        # of a fifth of the size has one for five of the crop.
        slack = 0.3 if size >= 0.7 else 1.0
        assert (near * xs).sum() / near.sum() == pytest.approx(x, abs=slack)
        assert (near * ys).sum() / near.sum() == pytest.approx(y, abs=slack)


def test_a_crop_from_the_middle_of_a_large_picture_equals_a_warp_of_the_whole() -> None:
    image = np.random.default_rng(2).integers(0, 256, (700, 900, 3), dtype=np.uint8)
    for size, flag in ((1.7, cv2.INTER_LINEAR), (0.4, cv2.INTER_CUBIC)):
        landmarks = (TEMPLATE * size + (350, 250)).astype(np.float32)[None]
        whole = cv2.warpAffine(image, similarity(landmarks)[0].astype(float), (112, 112), flags=flag)
        # The warp rounds positions to 1/32 px: for noise of 255 levels that is 8 levels at most, twice.
        assert np.abs(align(image, landmarks)[0].astype(int) - whole).max() <= 16


def test_a_large_face_is_averaged_and_not_sampled() -> None:
    # One-pixel checks: sampled, they stay black and white; averaged, they are grey.
    checks = (np.indices((1000, 1000)).sum(axis=0) % 2 * 255).astype(np.uint8)
    landmarks = (TEMPLATE * 5.3 + 200).astype(np.float32)[None]
    crop = align(to_bgr(checks), landmarks)[0]
    assert crop.std() < 10
    assert crop.mean() == pytest.approx(127.5, abs=3)


def test_what_lies_outside_the_picture_is_black() -> None:
    white = np.full((100, 100, 3), 255, np.uint8)
    landmarks = np.stack([TEMPLATE + np.array([x, 0], np.float32) for x in (0, -56, 500)])
    crops = align(white, landmarks)
    assert (crops[0][:99, :99] == 255).all()
    assert (crops[0][102:] == 0).all()
    assert (crops[1][:, :54] == 0).all()
    assert (crops[1][:99, 57:] == 255).all()
    assert (crops[2] == 0).all()


def test_one_face_with_bad_landmarks_is_black_and_the_others_are_as_ever() -> None:
    landmarks = np.concatenate([LANDMARKS, np.full_like(LANDMARKS, np.nan), LANDMARKS])
    crops = align(astronaut(), landmarks)
    assert (crops[1] == 0).all()
    assert np.array_equal(crops[0], crops[2])
    assert np.array_equal(crops[:1], align(astronaut(), LANDMARKS))


@given(arrays(np.float32, (2, 5, 2), elements=st.floats(width=32)))
@example(np.stack([TEMPLATE * 1e-42, TEMPLATE * 1e-20]).astype(np.float32))
@example(np.stack([TEMPLATE * 1e-3, TEMPLATE * 1e36]).astype(np.float32))
def test_no_landmarks_whatever_stop_align(landmarks: NDArray[np.float32]) -> None:
    crops = align(drawn(), landmarks)
    assert crops.shape == (2, 112, 112, 3)
    assert crops.dtype == np.uint8
