"""The impostor table: the quantiles it holds, the pictures it takes, the card it goes into."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from fakes import card
from onnx import helper
from onnx_files import doubling, save, tensor

from calibration.cards import change_card
from calibration.impostor_scores import (
    by_identity,
    embed,
    main,
    read_crop,
)
from calibration.score_tables import table
from edge_fr.cards import read_card, write_card
from edge_fr.embed import Embedder
from edge_fr.engine import open_engine
from edge_fr.errors import ImageError, InputError, ModelNotFoundError
from edge_fr.image import TEMPLATE
from edge_fr.models import MODELS, resolve


def people(folder: Path, count: int) -> Path:
    """Two pictures each of `count` people, plain colours; gives the CSV."""
    random = np.random.default_rng(0)
    lines = ["image,identity"]
    for number in range(2 * count):
        picture = np.empty((112, 112, 3), np.uint8)
        picture[:] = random.integers(0, 256, 3)
        cv2.imwrite(str(folder / f"{number:03}.png"), picture)
        lines.append(f"{number:03}.png,person{number // 2}")
    identities = folder / "identities.csv"
    identities.write_text("\n".join([*lines, "absent.png,nobody"]))
    return identities


def test_each_identity_gives_its_pictures_that_are_there(tmp_path: Path) -> None:
    identities = people(tmp_path, 46)
    expected = [[f"{number:03}.png", f"{number + 1:03}.png"] for number in range(0, 92, 2)]
    assert [[path.name for path in paths] for paths in by_identity(tmp_path, identities)] == expected


def test_too_few_identities_are_refused_with_what_they_come_to(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="pictures of 0 identities"):
        by_identity(tmp_path / "elsewhere", people(tmp_path, 3))
    with pytest.raises(
        InputError,
        match=r"pictures of 45 identities of .* make 990 pairs .* 1,000 pairs \(46 identities\) are needed",
    ):
        by_identity(tmp_path, people(tmp_path, 45))


def test_the_eyes_land_on_the_eyes_of_the_template(tmp_path: Path) -> None:
    eyes = ((20.0, 40.0), (50.0, 45.0))
    picture = np.zeros((80, 70, 3), np.uint8)
    for x, y in eyes:
        cv2.circle(picture, (int(x), int(y)), 3, (255, 255, 255), cv2.FILLED)
    cv2.imwrite(str(tmp_path / "face.png"), picture)
    crop = read_crop(tmp_path / "face.png", eyes)
    assert crop.shape == (112, 112, 3)
    for side, (x, y) in zip((crop[:, :56], crop[:, 56:]), TEMPLATE[:2], strict=True):
        moments = cv2.moments(side[:, :, 0])
        centre = moments["m10"] / moments["m00"], moments["m01"] / moments["m00"]
        # a drawn disc of whole pixels, magnified 1.2 times and interpolated
        np.testing.assert_allclose(centre, (x % 56 if x > 56 else x, y), atol=0.1)


def test_a_warped_crop_is_the_one_that_the_template_s_four_digits_give(tmp_path: Path) -> None:
    picture = np.random.default_rng(0).integers(0, 256, (109, 89, 3), np.uint8)
    cv2.imwrite(str(tmp_path / "noise.png"), picture)
    scale = (73.5318 - 38.2946) / (54.0 - 34.5)
    turn = (51.5014 - 51.6963) / (54.0 - 34.5)
    shift = 38.2946 - scale * 34.5 + turn * 55.5, 51.6963 - turn * 34.5 - scale * 55.5
    matrix = np.array([[scale, -turn, shift[0]], [turn, scale, shift[1]]])
    crop = read_crop(tmp_path / "noise.png", ((34.5, 55.5), (54.0, 55.5)))
    assert np.array_equal(crop, cv2.warpAffine(picture, matrix, (112, 112)))


def test_two_eyes_at_one_point_are_refused(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "face.png"), np.zeros((109, 89, 3), np.uint8))
    with pytest.raises(InputError, match=r"--eyes are both at \(30\.0, 40\.0\), expected"):
        read_crop(tmp_path / "face.png", ((30.0, 40.0), (30.0, 40.0)))


def test_what_is_no_crop_is_refused_with_the_option_that_helps(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "small.png"), np.zeros((109, 89, 3), np.uint8))
    with pytest.raises(ImageError, match=r"small\.png is \(109, 89\), expected 112x112 .* --eyes"):
        read_crop(tmp_path / "small.png", None)
    (tmp_path / "text.png").write_text("no picture")
    with pytest.raises(ImageError, match=r"text\.png is not a picture"):
        read_crop(tmp_path / "text.png", None)


def mean_colour(path: Path) -> Path:
    """An embedder that gives the mean colour of a crop."""
    return save(
        path,
        [helper.make_node("ReduceMean", ["x"], ["y"], axes=[2, 3], keepdims=0)],
        [tensor("x", "batch", 3, 112, 112)],
        [tensor("y", "batch", 3)],
        card=card(embedding_size=3),
    )


def test_the_program_writes_the_table_into_the_card(tmp_path: Path) -> None:
    model = mean_colour(tmp_path / "m.onnx")
    identities = people(tmp_path, 46)
    command = [
        "-m",
        "calibration.impostor_scores",
        str(model),
        str(tmp_path),
        "--identities",
        str(identities),
    ]
    done = subprocess.run(
        [sys.executable, *command, "--write", "plain colours", "--worst", "1"],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[1],
    )
    line, worst = done.stdout.splitlines()
    printed = json.loads(line)
    colours = np.stack([cv2.imread(str(tmp_path / f"{2 * i:03}.png"))[0, 0] for i in range(46)]).astype(float)
    colours /= np.linalg.norm(colours, axis=1, keepdims=True)
    cosines = np.sort((colours @ colours.T)[np.triu_indices(46, 1)])
    assert (printed["pairs"], printed["one_person"]) == (1035, 0)  # strangers here are as alike as anybody
    # four digits are printed
    assert printed["impostor_scores"] == {
        "5e-1": pytest.approx(cosines[-517], abs=1e-4),
        "1e-1": pytest.approx(cosines[-103], abs=1e-4),
    }
    assert float(worst.split()[0]) == pytest.approx(cosines[-1], abs=1e-4)
    written = read_card(model)
    assert written.impostor_scores == printed["impostor_scores"]
    for name in ("impostor_bands", "continuity_scores", "genuine_scores"):
        assert getattr(written, name) == printed[name]
    # it tells no ri, and 46 people are too few to say who is alike
    assert set(printed["impostor_bands"]) == {"look ri>=0", "track ri>=0"}
    assert written.impostor_data == (
        "plain colours: 46 identities, 1035 pairs, 0 more left out as one person under two names; "
        "12 drawn looks at 46 people; people alike are each one's nearest 10%"
    )
    assert open_engine(model).card == written


def test_too_few_pairs_leave_the_table_in_the_card_as_it_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = mean_colour(tmp_path / "m.onnx")
    change_card(model, impostor_scores={"1e-4": 0.25}, impostor_data="measured before")
    before = model.read_bytes()
    arguments = [str(model), str(tmp_path), "--identities", str(people(tmp_path, 45)), "--write", "few"]
    assert main(arguments) == 1
    said = capsys.readouterr()
    assert said.out == ""
    (line,) = said.err.splitlines()
    assert line.startswith(f"impostor_scores: {tmp_path} has pictures of 45 identities")
    assert model.read_bytes() == before


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (None, "cannot be read ([Errno 2]"),
        (
            b"picture,name\n1.png,A\n",
            "has the columns ['picture', 'name'], expected a CSV file in UTF-8 with",
        ),
        (b"", "has the columns [], expected a CSV file"),
        (b"image,identity\n000.png,A\n001.png\n", "line 3: image is '001.png' and identity None"),
        (b"image,identity\n000.png,\xff\n", "cannot be read ('utf-8' codec"),
        (b"image,identity\n" + b"x" * 200_000, "cannot be read (field larger than"),
    ],
)
def test_a_list_that_cannot_be_read_is_one_line_that_names_it(
    content: bytes | None, complaint: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    identities = tmp_path / "list.csv"
    if content is not None:
        identities.write_bytes(content)
    model = mean_colour(tmp_path / "m.onnx")
    assert main([str(model), str(tmp_path), "--identities", str(identities)]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"impostor_scores: --identities {identities}")
    assert complaint in line
    assert "image and identity" in line or "expected both" in line


def test_a_model_or_a_picture_that_cannot_be_used_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    identities = people(tmp_path, 46)
    model = mean_colour(tmp_path / "m.onnx")
    (tmp_path / "004.png").write_bytes(b"")
    for name, complaint in (
        (str(tmp_path / "absent.onnx"), "absent.onnx"),
        ("nonesuch", "'nonesuch' is neither a file nor a named model"),
        (str(model), "004.png is empty (0 bytes)"),
    ):
        assert main([name, str(tmp_path), "--identities", str(identities)]) == 1
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith("impostor_scores: ")
        assert complaint in line


def test_a_card_beside_the_model_takes_the_table_too(tmp_path: Path) -> None:
    model = doubling(tmp_path / "m.onnx", None)
    write_card(
        model,
        task="embed",
        colour="RGB",
        input_range=(0.0, 1.0),
        licence="MIT",
        training_data="own",
        embedding_size=4,
    )
    before = model.read_bytes()
    change_card(model, impostor_scores={"1e-1": 0.25}, impostor_data="data")
    assert (read_card(model).impostor_scores, read_card(model).impostor_data) == ({"1e-1": 0.25}, "data")
    assert model.read_bytes() == before


def test_a_named_model_is_not_written_to() -> None:
    command = ["-m", "calibration.impostor_scores", "sface", ".", "--identities", "x.csv", "--write", "data"]
    done = subprocess.run(
        [sys.executable, *command], capture_output=True, text=True, check=False, cwd=Path(__file__).parents[1]
    )
    assert done.returncode == 1
    assert "sface is a named model" in done.stderr


def test_the_table_in_the_card_of_sface_is_what_its_data_give(shared_data: Callable[[str], Path]) -> None:
    folder, identities = shared_data("celeba/half"), shared_data("celeba/identities.csv")
    try:
        embedder = Embedder(open_engine(resolve("sface")))
    except ModelNotFoundError as error:
        pytest.skip(str(error))
    vectors = embed(
        embedder, [p[0] for p in by_identity(folder, identities)][:150], ((34.5, 55.5), (54.0, 55.5))
    )
    measured = table((vectors @ vectors.T)[np.triu_indices(len(vectors), 1)])
    assert list(measured) == ["5e-1", "1e-1", "1e-2"]
    for rate, score in measured.items():
        # 11,175 of the 14.7 million pairs: ten other draws of 150 people differ by up to 0.018
        assert score == pytest.approx(MODELS["sface"].card.impostor_scores[rate], abs=0.02)
