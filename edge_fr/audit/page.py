"""The audit as one HTML page: no scripts, no links, its pictures inside."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from html import escape

from edge_fr.audit.distance import Lens
from edge_fr.audit.drawing import histogram, picture_map, ramp, shares
from edge_fr.audit.figures import EYES_M, MEASURES, Figures
from edge_fr.audit.pictures import Pictures, Shot
from edge_fr.audit.statements import Statement, changes, limits, spoken
from edge_fr.audit.style import STYLE
from edge_fr.audit.tables import distances, key_figures
from edge_fr.quality import QualityPolicy

# What a map's darkest and brightest colour stand for.
_SCALES = {
    "eyes_px": (0.0, 48.0),
    "sharpness": (0.0, 0.3),
    "brightness": (0.0, 255.0),
    "yaw_deg": (0.0, 90.0),
    "ri": (0.0, 1.0),
}
_NOTES = {
    "eyes_px": "The line is the least that the quality gate lets through.",
    "sharpness": "How fine the finest detail is: a sharp face has 0.2 to 0.4. Left of the line is refused.",
    "brightness": "The mean of the face's middle, 0 black to 255 white; it depends on the skin as well.",
    "yaw_deg": "0 looks into the camera; outside the lines is refused. The map shows how far, not which way.",
    "ri": "What the recognizer makes of the face, 0 nothing to 1 all. Left of the line is refused.",
}


@dataclass(frozen=True, slots=True)
class About:
    """What the page says of the audit itself. `source` must hold no secrets; `policy` is the gate's."""

    camera: str
    source: str
    started_at: datetime
    models: dict[str, str] = field(default_factory=dict)
    clock: str = "file"
    fov_deg: float | None = None
    policy: QualityPolicy = field(default_factory=QualityPolicy)


def page(figures: Figures, about: About, pictures: Pictures | None = None) -> str:
    """The whole document. Without `pictures` it shows nobody."""
    height, width = figures.frame_size or (9, 16)
    lens = None if about.fov_deg is None else Lens.of(about.fov_deg, width)
    style = f"{STYLE}.map{{aspect-ratio:{width}/{height}}}"
    if pictures is not None and pictures.backdrop is not None:
        style += f".map{{background-image:url({_data(pictures.backdrop)})}}"
    parts = [
        f"<h1>Camera audit: {escape(about.camera)}</h1>",
        f"<p>{escape(f'{about.source}, {about.started_at:%Y-%m-%d %H:%M %Z}')}</p>",
        _privacy(pictures is not None),
        _trouble(figures),
        "<h2>What to change</h2>",
        _statements(changes(figures)),
        "<h2>What this camera can and cannot identify</h2>",
        _statements(limits(figures, lens)) or "<p>No face was found, so nothing can be said.</p>",
        _distances(figures, lens),
        "<h2>What was seen</h2>",
        _table(key_figures(figures, about.clock)),
        _where(figures),
        *(_measure(figures, name, about.policy) for name in MEASURES),
        "<h2>Why looks were refused</h2>",
        _refusals(figures, pictures),
        _best(pictures),
        _meaning(about),
    ]
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta http-equiv="Content-Security-Policy" '
        "content=\"default-src 'none'; img-src data:; style-src 'unsafe-inline'\">"
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>Camera audit: {escape(about.camera)}</title><style>{style}</style></head>\n"
        f"<body>{''.join(parts)}</body></html>\n"
    )


def _privacy(shows_people: bool) -> str:
    if not shows_people:
        return "<p>Made without pictures: nobody is shown.</p>"
    return (
        '<p class="warn">This page holds pictures of people. Keep it where only those who may see them can, '
        "and delete it when the camera is set up; <code>--no-pictures</code> makes it without them.</p>"
    )


def _trouble(figures: Figures) -> str:
    return f'<p class="warn">The audit ended early: {escape(figures.trouble)}</p>' if figures.trouble else ""


def _statements(statements: Sequence[Statement]) -> str:
    items = [f'<li class="{s.kind}">{escape(s.text)}<span>{escape(s.basis)}</span></li>' for s in statements]
    return f'<ul class="said">{"".join(items)}</ul>' if items else ""


def _distances(figures: Figures, lens: Lens | None) -> str:
    head, *rows = distances(figures, lens)
    parts = [_table(rows, head)]
    if lens is None:
        parts.append(
            "<p>For metres give the lens's horizontal field of view: <code>--fov DEGREES</code>.</p>"
        )
    if figures.facing_eyes_px.total:
        drawn = shares(figures.facing_accepted_px, figures.facing_eyes_px, "recognizable looks by size")
        text = (
            "Share of looks that were recognizable, by pixels between the eyes, of faces not turned away or "
            "cut off. Bars of fewer than 5 looks are left out; the line is one half."
        )
        parts.append(f"<figure>{drawn}<figcaption>{text}</figcaption></figure>")
    return "".join(parts)


def _where(figures: Figures) -> str:
    if not figures.looks:
        return ""
    drawn = picture_map(figures.accepted_map, "where in the picture looks were recognizable", 0, 1)
    scale = _scale("none", "all")
    return f"<section><h3>Where looks were recognizable</h3><figure>{drawn}{scale}</figure></section>"


def _measure(figures: Figures, name: str, policy: QualityPolicy) -> str:
    measure, counts = MEASURES[name], figures.measured[name]
    unit = f", {measure.unit}" if measure.unit else ""
    title = f"<h3>{escape(measure.title + unit)}</h3>"
    if not counts.total:
        untold = name == "ri" and figures.looks
        why = "this recognizer does not tell it" if untold else "nothing was measured"
        return f"<section>{title}<p>{why}</p></section>"
    low, high = _SCALES[name]
    least, middle, most = (f"{counts.quantile(share):.{measure.digits}f}" for share in (0.1, 0.5, 0.9))
    text = f"Half of the looks below {middle}; one in ten below {least}, one in ten above {most}."
    drawn = histogram(counts, measure.title, measure.bounds(policy))
    return (
        f"<section>{title}<div class='pair'><figure>{drawn}"
        f"<figcaption>{text} {escape(_NOTES[name])}</figcaption></figure>"
        f"<figure>{picture_map(figures.maps[name], f'{measure.title}: where in the picture', low, high)}"
        f"{_scale(f'{low:g}', f'{high:g}')}</figure></div></section>"
    )


def _scale(low: str, high: str) -> str:
    return f'<figcaption class="scale">{escape(low)}{ramp()}{escape(high)}</figcaption>'


def _refusals(figures: Figures, pictures: Pictures | None) -> str:
    if not figures.refused:
        return "<p>None was.</p>"
    parts = []
    for component, count in figures.refused.most_common():
        text = f"{count} looks, {count / figures.looks:.0%}"
        if lost := figures.lost[component]:
            text += f"; it stood against the best look at {lost} who never became recognizable"
        sample = None if pictures is None else pictures.refused.get(component)
        parts.append(f"<h3>{escape(spoken(component))}</h3><p>{escape(text)}</p>")
        parts.append(_shots(sample.kept if sample is not None else ()))
    return "".join(parts)


def _best(pictures: Pictures | None) -> str:
    if pictures is None or not pictures.best:
        return ""
    return f"<h2>The best faces</h2>{_shots(pictures.best)}"


def _shots(shots: Iterable[Shot]) -> str:
    items = []
    for shot in shots:
        text = shot.reason or f"{shot.eyes_px:.0f} px, quality {shot.quality:.2f}"
        picture = f'<img src="{_data(shot.jpeg)}" width="112" height="112" alt="a face">'
        items.append(f"<figure>{picture}<figcaption>{escape(text)}</figcaption></figure>")
    return f'<div class="shots">{"".join(items)}</div>' if items else ""


def _table(rows: Sequence[Sequence[str]], head: Sequence[str] = ()) -> str:
    top = f"<tr>{''.join(f'<th>{escape(cell)}</th>' for cell in head)}</tr>" if head else ""
    body = "".join(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in rows)
    return f"<table>{top}{body}</table>"


def _meaning(about: About) -> str:
    models = ", ".join(f"{task}: {name}" for task, name in about.models.items())
    text = (
        "A look is one face in one frame. A person is a track: somebody who went out of sight counts "
        "twice. A look is recognizable when the quality gate has nothing against it. Pixels per metre follow "
        f"from the pixels between the eyes, taking {1e3 * EYES_M:.0f} mm, an adult's; children have less "
        "and seem farther away. Faces that the detector misses, turned away or under about 12 pixels wide, "
        "are in none of these figures."
    )
    if about.fov_deg is not None:
        text += f" Distances are for a lens of {about.fov_deg:g} degrees without distortion, in its middle."
    return f'<h2>How to read this</h2><p>{escape(text)}</p><p class="small">{escape(models)}</p>'


def _data(jpeg: bytes) -> str:
    return f"data:image/jpeg;base64,{b64encode(jpeg).decode()}"
