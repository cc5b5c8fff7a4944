from pathlib import Path

import cv2
import numpy as np
import pytest

from edge_fr.errors import ImageError
from export.training import degradations
from export.training.degradations import Recipe, view
from export.training.masks import KEY_POINTS, MaskRenderer, occlude, polygon_mask


def crop(seed: int = 0) -> np.ndarray:
    """A smooth colourful picture of a crop's size."""
    small = np.random.default_rng(seed).integers(40, 216, (9, 9, 3), dtype=np.uint8)
    return cv2.resize(small, (112, 112), interpolation=cv2.INTER_CUBIC)


def sharpness(image: np.ndarray) -> float:
    return float(cv2.Laplacian(image.astype(np.float32), cv2.CV_32F).var())


@pytest.mark.parametrize(
    "render", [polygon_mask, occlude, MaskRenderer(None)], ids=["polygon", "occluder", "renderer"]
)
def test_only_what_the_cover_marks_is_changed_and_most_of_it_is(render) -> None:  # type: ignore[no-untyped-def]
    for seed in range(20):
        image = crop(seed)
        covered, cover = render(image, np.random.default_rng(seed))
        assert covered.dtype == cover.dtype == np.uint8
        assert cover.shape == (112, 112)
        changed = np.abs(covered.astype(int) - image).max(2) > 0
        hidden = cover > 127
        assert hidden.sum() > 100
        assert changed[hidden].mean() > 0.9  # a mask's colour may meet the face's by chance
        outside = changed & (cover == 0)
        assert outside.sum() <= 4 * 70  # the ear loops of a mask, four lines a pixel wide


def test_a_mask_hides_the_mouth_and_leaves_the_eyes() -> None:
    for seed in range(50):
        _, cover = polygon_mask(crop(), np.random.default_rng(seed))
        assert cover[92, 56] == 255
        assert cover[48:52, 34:42].max() == cover[48:52, 70:78].max() == 0


def test_a_picture_of_a_mask_is_laid_on_the_key_points(tmp_path: Path) -> None:
    picture = np.zeros((100, 160, 4), np.uint8)
    picture[10:90, 20:140] = (255, 0, 0, 255)
    (tmp_path / "masks" / "templates").mkdir(parents=True)
    cv2.imwrite(str(tmp_path / "masks" / "templates" / "m.png"), picture)
    points = {"a": (20, 10), "b": (80, 10), "c": (140, 10), "d": (20, 60), "e": (80, 90), "f": (140, 60)}
    rows = "\n".join(f"mask_{k}: {x}, {y}" for k, (x, y) in points.items())
    (tmp_path / "masks" / "masks.cfg").write_text(f"[m]\ntemplate: masks/templates/m.png\n{rows}\n[m_left]\n")
    renderer = MaskRenderer(tmp_path / "masks")
    blue = 0
    for seed in range(20):
        covered, cover = renderer(np.full((112, 112, 3), 150, np.uint8), np.random.default_rng(seed))
        middle = covered[88, 56]
        assert cover[88, 56] > 200
        assert cover[int(KEY_POINTS[1][1]) - 20, 56] == 0
        blue += bool(middle[0] > 100 and middle[1] < 30 and middle[2] < 30)
    assert 3 <= blue <= 20  # half of the masks are drawn as polygons instead


def test_a_folder_without_its_list_and_a_picture_without_transparency_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"holds no masks\.cfg"):
        MaskRenderer(tmp_path)
    cv2.imwrite(str(tmp_path / "m.png"), np.zeros((9, 9, 3), np.uint8))
    (tmp_path / "t").mkdir()
    (tmp_path / "t" / "masks.cfg").write_text("[m]\ntemplate: m.png\n")
    with pytest.raises(ImageError, match="no picture with transparency"):
        MaskRenderer(tmp_path / "t")


def test_fewer_pixels_leave_less_detail() -> None:
    image = crop()
    image = degradations.noise(image, 20, np.random.default_rng(0))
    detail = [
        np.mean(
            [sharpness(degradations.low_resolution(image, side, np.random.default_rng(s))) for s in range(8)]
        )
        for side in (64, 24, 8)
    ]
    assert sharpness(image) > detail[0] > detail[1] > detail[2]


def test_blur_motion_and_darkness_do_what_they_are_called() -> None:
    image = degradations.noise(crop(), 20, np.random.default_rng(0))
    assert sharpness(degradations.blur(image, 2.0)) < 0.1 * sharpness(image)
    grain = degradations.noise(np.full((112, 112, 3), 128, np.uint8), 20, np.random.default_rng(0))
    along = degradations.motion(grain, 11, 0.0).astype(np.float32)
    # Blur along x leaves differences along y.
    assert np.abs(np.diff(along, axis=1)).mean() < 0.5 * np.abs(np.diff(along, axis=0)).mean()
    assert degradations.dark(image, 0.2, 1.0).max() <= 51


def test_jitter_moves_the_cover_with_the_picture() -> None:
    image = np.zeros((112, 112, 3), np.uint8)
    image[50:70, 50:70] = 255
    for seed in range(10):
        moved, cover = degradations.jitter(image, image[..., 0], np.random.default_rng(seed))
        np.testing.assert_array_equal(moved[..., 0], cover)
        assert not np.array_equal(moved, image)


def test_a_view_is_a_function_of_the_generator() -> None:
    renderer = MaskRenderer(None)
    for seed in range(30):
        one, two = (view(crop(), Recipe(), renderer, np.random.default_rng(seed)) for _ in range(2))
        np.testing.assert_array_equal(one.image, two.image)
        np.testing.assert_array_equal(one.cover, two.cover)


def test_a_recipe_of_clean_crops_leaves_them_alone_but_for_the_mirror() -> None:
    recipe = Recipe(clean=1, hopeless=0, mask=0, occluder=0)
    image = crop()
    seen = set()
    for seed in range(20):
        found = view(image, recipe, MaskRenderer(None), np.random.default_rng(seed)).image
        mirrored = np.array_equal(found, image[:, ::-1])
        assert mirrored or np.array_equal(found, image)
        seen.add(mirrored)
    assert seen == {True, False}


def test_shares_of_masked_and_hopeless_views_follow_the_recipe() -> None:
    recipe = Recipe(mask=0.5, hopeless=0.2)
    views = [view(crop(), recipe, MaskRenderer(None), np.random.default_rng(seed)) for seed in range(400)]
    # 400 draws: three standard deviations are 0.06 and 0.075.
    assert np.mean([v.hopeless for v in views]) == pytest.approx(0.2, abs=0.06)
    assert np.mean([v.masked for v in views if not v.hopeless]) == pytest.approx(0.5, abs=0.09)
    assert all(v.cover.max() == 255 for v in views if v.masked)


def test_a_view_tells_its_side_unless_blur_took_detail_too() -> None:
    nothing = dict.fromkeys(("clean", "hopeless", "mask", "low_resolution", "blur", "motion"), 0.0)
    masks = MaskRenderer(None)

    def side(**chances: float) -> float:
        recipe = Recipe(**{**nothing, **chances}, side_px=(16, 16))
        return view(crop(), recipe, masks, np.random.default_rng(0)).side_px

    assert side(clean=1.0) == side() == 112
    assert side(low_resolution=1.0) == pytest.approx(16)
    assert np.isnan([side(blur=1.0), side(motion=1.0, low_resolution=1.0), side(hopeless=1.0)]).all()
