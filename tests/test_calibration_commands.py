"""python -m calibration quantize and compare, as a user runs them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import drawn_people
import numpy as np
import onnx
import onnxruntime
import pytest
import skimage.data
from fakes import card
from numpy.typing import NDArray
from onnx import helper
from onnx_files import save, small_recognizer, tensor

from calibration.__main__ import main
from calibration.convert import as_input, load, ready_for_int8
from calibration.drift import drift
from calibration.quantize import to_int8
from calibration.strata import FACES, stratify
from edge_fr.cards import read_card
from edge_fr.embed import Embedder, Embeddings
from edge_fr.engine import open_engine
from edge_fr.errors import InputError
from edge_fr.image import read_image


@pytest.fixture
def face(tmp_path: Path) -> Path:
    return small_recognizer(tmp_path / "face.onnx")


@pytest.fixture
def crops(tmp_path: Path) -> Path:
    for i in range(30):
        drawn_people.write(tmp_path / "crops" / f"{i:02d}.png", f"person {i}", 1)
    return tmp_path / "crops"


def quantize(face: Path, crops: Path, out: Path, *more: str) -> int:
    options = ["--faces", str(crops), "--aligned", "-o", str(out), *more]
    return main(["quantize", str(face), *options])


@pytest.mark.parametrize(
    ("options", "name", "precision"),
    [
        (("--precision", "int8", "--target", "cpu"), "face-int8-cpu", "int8"),
        (("--precision", "int8", "--target", "tensorrt"), "face-int8-tensorrt", "int8"),
        (("--precision", "fp16", "--target", "tensorrt"), "face-fp16", "fp16"),
    ],
)
def test_quantize_writes_a_model_with_its_card(
    face: Path,
    crops: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    options: tuple[str, ...],
    name: str,
    precision: str,
) -> None:
    out = tmp_path / "small.onnx"
    assert quantize(face, crops, out, *options) == 0
    said = capsys.readouterr()
    assert "warning: 30 faces, expected at least 300" in said.err
    assert "clean 12, low_resolution 7, blur_noise_jpeg 4, masked 4, dark_or_turned 3" in said.err
    made, original = read_card(out), read_card(face)
    assert (made.name, made.precision) == (name, precision)
    assert made.weights_digest == original.weights_digest
    assert (made.verdict, made.report_digest, made.results) == (None, None, {})  # nothing is known of it yet
    assert made.calibration_digest is not None
    assert made.calibration_digest.startswith("sha256:")
    before, after = (Embedder(open_engine(path, unproven=True)) for path in (face, out))
    pictures = np.stack([drawn_people.crop("somebody else", i) for i in range(8)])
    found = drift(before.embed(pictures), after.embed(pictures))
    # two layers of 8 bits, see test_quantize.py; the first crops of this set reach the ends of the range
    assert found.mean_cosine > 0.99


def test_a_calibration_set_may_be_of_other_strata(
    face: Path, crops: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ("--precision", "int8", "--target", "cpu")
    digests = []
    for more in ((), ("--strata", "clean=1")):
        out = tmp_path / f"{len(more)}.onnx"
        assert quantize(face, crops, out, *options, *more) == 0
        digests.append(read_card(out).calibration_digest)
    assert "\nclean 30\n" in capsys.readouterr().err
    assert digests[0] != digests[1]


def test_the_same_command_writes_the_same_file(face: Path, crops: Path, tmp_path: Path) -> None:
    files = [tmp_path / "one.onnx", tmp_path / "two.onnx"]
    for file in files:
        assert quantize(face, crops, file, "--precision", "int8", "--target", "cpu") == 0
    assert files[0].read_bytes() == files[1].read_bytes()


def test_compare_prints_every_stratum(
    face: Path, crops: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "small.onnx"
    assert quantize(face, crops, out, "--precision", "int8", "--target", "cpu") == 0
    capsys.readouterr()
    assert main(["compare", str(face), str(out), "--faces", str(crops), "--aligned"]) == 0
    said = capsys.readouterr()
    assert "was calibrated on these very pictures" in said.err
    rows = [line.split() for line in said.out.splitlines()]
    assert [row[0] for row in rows[1:]] == [
        "clean",
        "low_resolution",
        "blur_noise_jpeg",
        "masked",
        "dark_or_turned",
    ]
    assert all(0.9 < float(row[2]) <= 1 and row[4] == "-" for row in rows[1:])


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (("--keep", "nothing"), "nothing are no layers of the model, which are conv, fc"),
        (("--count", "0"), "--count is 0"),
        (("--count", "5"), "5 pictures leave"),
        (("--strata", "small=1"), "'small' is none of clean, low_resolution"),
    ],
)
def test_what_cannot_be_done_is_said(
    face: Path,
    crops: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    options: tuple[str, ...],
    complaint: str,
) -> None:
    out = tmp_path / "small.onnx"
    assert quantize(face, crops, out, "--precision", "int8", "--target", "cpu", *options) == 1
    assert complaint in capsys.readouterr().err
    assert not out.exists()


def test_a_folder_s_faces_that_fail_the_gate_and_pictures_without_one_are_told(
    face: Path, tmp_path: Path, pulled: Callable[[str], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    pulled("yunet")
    photographs = tmp_path / "photographs"
    photographs.mkdir()
    small = cv2.resize(skimage.data.astronaut()[:, :, ::-1], (88, 88), interpolation=cv2.INTER_AREA)
    cv2.imwrite(str(photographs / "far_away.png"), small)
    cv2.imwrite(str(photographs / "wall.png"), np.full((200, 200, 3), 90, np.uint8))
    options = ("--precision", "int8", "--target", "cpu", "-o", str(tmp_path / "small.onnx"))
    assert main(["quantize", str(face), "--faces", str(photographs), *options]) == 1
    said = capsys.readouterr().err.splitlines()
    assert said[0] == "no face found in 1 pictures, such as wall.png"
    assert said[1].startswith("warning: 1 faces did not pass the quality gate and were left out: ")
    assert "inter eye distance 1" in said[1]
    assert said[2].endswith("photographs gave no face that passes the quality gate")


def test_a_person_whom_the_results_are_measured_on_is_not_calibrated_on(
    face: Path, crops: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    drawn_people.write(crops / "Ada_0001.png", "Ada", 1)
    (tmp_path / "tests.csv").write_text("Ada\n")
    options = ("--precision", "int8", "--target", "cpu", "--not-these", str(tmp_path / "tests.csv"))
    assert quantize(face, crops, tmp_path / "small.onnx", *options) == 1
    assert "1 of 31 pictures must not be calibrated on" in capsys.readouterr().err
    assert not (tmp_path / "small.onnx").exists()


def test_a_small_model_is_not_made_smaller_and_no_model_is_overwritten(
    face: Path, crops: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "small.onnx"
    options = ("--precision", "int8", "--target", "cpu")
    assert quantize(face, crops, out, *options) == 0
    assert quantize(out, crops, tmp_path / "smaller.onnx", *options) == 1
    assert "is int8 already; give the fp32 file" in capsys.readouterr().err
    assert quantize(face, crops, face, *options) == 1
    assert "is the model itself, which would be lost" in capsys.readouterr().err
    assert read_card(face).precision == "fp32"


def test_a_file_whose_graph_is_damaged_is_refused(
    face: Path, crops: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content = bytearray(face.read_bytes())
    content[20:60] = b"\xff" * 40  # inside the graph: the metadata behind it are whole
    face.write_bytes(content)
    assert quantize(face, crops, tmp_path / "small.onnx", "--precision", "int8", "--target", "cpu") == 1
    assert "is damaged or not an ONNX file" in capsys.readouterr().err


def test_a_detector_is_calibrated_on_whole_pictures(
    crops: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rng = np.random.default_rng(0)
    stored = {"w": rng.normal(0, 0.1, (1, 3, 3, 3)).astype(np.float32), "b": np.zeros(1, np.float32)}
    detector = save(
        tmp_path / "detector.onnx",
        [
            helper.make_node("Conv", ["x", "w", "b"], ["y"], name="conv", pads=[1] * 4),
            helper.make_node("Relu", ["y"], ["z"]),
        ],
        [tensor("x", "batch", 3, "height", "width")],
        [tensor("z", "batch", 1, "height", "width")],
        constants=stored,
        card=card(name="detector", task="detect", head="yunet", colour="BGR", embedding_size=None),
    )
    out = tmp_path / "small.onnx"
    arguments = ["--faces", str(crops), "--size", "64x96", "--precision", "int8", "--target", "tensorrt"]
    assert main(["quantize", str(detector), *arguments, "-o", str(out)]) == 0
    assert "warning: 30 pictures, expected at least 300" in capsys.readouterr().err
    assert read_card(out).name == "detector-int8-tensorrt"
    assert "QuantizeLinear" in {node.op_type for node in onnx.load(out).graph.node}


def embeddings(
    vectors: NDArray[np.float32], ri: list[float] | None = None, mask: list[float] | None = None
) -> Embeddings:
    column = [None if values is None else np.float32(values) for values in (ri, mask)]
    return Embeddings(vectors, column[0], column[1], np.ones(len(vectors), np.float32))


def test_drift_is_what_its_fields_say() -> None:
    turned = np.radians([0.0, 10.0, 20.0])
    before = np.tile(np.float32([1, 0]), (3, 1))
    after = np.stack([np.cos(turned), np.sin(turned)], axis=1).astype(np.float32)
    found = drift(
        embeddings(before, [0.1, 0.5, 0.9], [0.0, 0.5, 1.0]),
        embeddings(after, [0.1, 0.9, 0.5], [0.0, 0.4, 0.8]),
    )
    assert found.faces == 3
    assert found.mean_cosine == pytest.approx(np.cos(turned).mean(), abs=1e-6)
    assert found.p1_cosine == pytest.approx(np.percentile(np.cos(turned), 1), abs=1e-6)
    assert found.ri_spearman == pytest.approx(0.5)
    assert found.mask_shift == pytest.approx(0.1, abs=1e-6)
    assert found.worst_mask_shift == pytest.approx(0.2, abs=1e-6)
    assert drift(embeddings(before), embeddings(after)).ri_spearman is None
    with pytest.raises(InputError, match="only one of the two models gives ri"):
        drift(embeddings(before, [0.1, 0.5, 0.9]), embeddings(after))
    with pytest.raises(InputError, match=r"shape \(3, 2\) and \(2, 2\)"):
        drift(embeddings(before), embeddings(after[:2]))


def test_sface_keeps_its_answers_in_both_flavours(
    shared_data: Callable[[str], Path], pulled: Callable[[str], Path]
) -> None:
    faces = shared_data("celeba/aligned112")
    model, own = load(pulled("sface"))
    files = sorted(faces.glob("*.jpg"))
    known = stratify([read_image(file) for file in files[:3000:75]], FACES)
    other = stratify([read_image(file) for file in files[3000:4500:75]], FACES, seed=1)
    level, ranges = ready_for_int8(model, own, known)

    batches = [batch for some in other.batches(as_input(own)).values() for batch in some]

    def vectors(network: onnx.ModelProto) -> NDArray[np.float32]:
        content, providers = network.SerializeToString(), ["CPUExecutionProvider"]
        session = onnxruntime.InferenceSession(content, providers=providers)
        found = np.concatenate([session.run(None, {"data": batch})[0] for batch in batches])
        return np.asarray(found / np.linalg.norm(found, axis=1, keepdims=True), np.float32)

    expected = vectors(model)
    for target in ("tensorrt", "cpu"):
        cosines = (expected * vectors(to_int8(level, ranges, target=target))).sum(axis=1)
        # With 300 faces to calibrate on it is .993 and more in every stratum; 40 leave out some tails.
        assert cosines.mean() > 0.985, target
