"""A court's finding as JSON, as lines for the terminal, and as one HTML page that needs nothing else."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from html import escape
from typing import Any

from calibration.court import Bounds, Finding, Trial, better
from calibration.court_plots import plots
from calibration.strata import CalibrationSet
from edge_fr.engine import ModelCard

Json = dict[str, Any]

_DIGITS = 5


@dataclass(frozen=True)
class Case:
    """What the court looked at: the original's card, the flavour, the faces of both sets, and the title of
    the labelled faces, if any."""

    original: ModelCard
    target: str
    calibrated: CalibrationSet
    judged: CalibrationSet
    dataset: str | None


def to_json(case: Case, finding: Finding, bounds: Bounds) -> Json:
    """All that was found, figures rounded to five digits."""
    front = better(finding.trials)
    found: Json = {
        "verdict": finding.verdict,
        "reason": finding.reason,
        "model": {"name": case.original.name, "weights_digest": case.original.weights_digest},
        "target": case.target,
        "timed": "by turns with the original, one face at a time on one thread of this machine's CPU"
        if case.target == "cpu"
        else "not here: on the device, by edge-fr bench",
        "calibrated_on": _faces(case.calibrated),
        "judged_on": _faces(case.judged),
        "labelled_faces": case.dataset,
        "bounds": asdict(bounds),
        "chosen": finding.trials.index(finding.chosen),
        "trials": [{**_trial(trial), "pareto": trial in front} for trial in finding.trials],
        "harms": [asdict(harm) for harm in finding.harms],
    }
    rounded: Json = _rounded(found)
    return rounded


def written(report: Json) -> tuple[bytes, str]:
    """The report's file, and its digest for the model's card: "sha256:..."."""
    content = (json.dumps(report, indent=1, allow_nan=False) + "\n").encode()
    return content, f"sha256:{hashlib.sha256(content).hexdigest()}"


def lines(report: Json) -> Iterator[str]:
    """The Pareto table and the verdict; the whole names of what was kept are in the report."""
    yield (
        f"{'':2}{'float':>6} {'MB':>6} {'ms':>7} {'times':>6} {'mean cos':>9} {'p1 cos':>8} {'ri rank':>8} "
        f"{'mask auc':>9} {'tar':>8}  kept"
    )

    def cell(value: float | None, width: int, form: str) -> str:
        return f"{'-' if value is None else format(value, form):>{width}}"

    for number, trial in enumerate(report["trials"]):
        worst = trial["worst"]
        mark = ">" if number == report["chosen"] else " "
        mark += "*" if trial["pareto"] else " "
        speed = f"{cell(trial['ms'], 7, '.2f')} {cell(trial['speedup'], 6, '.2f')}"
        masks = cell(_minus(trial["mask_auc_drop"]), 9, "+.4f")
        yield (
            f"{mark}{trial['float_share']:6.0%} {trial['size_bytes'] / 1e6:6.1f} {speed} "
            f"{worst['mean_cosine']:9.4f} {worst['p1_cosine']:8.4f} {cell(worst['ri_spearman'], 8, '.4f')} "
            f"{masks} {cell(_minus(worst['tar_drop']), 8, '+.4f')}  "
            f"{_kept(trial['kept'])}"
        )
    yield "> chosen; * nothing as near to the original has less in floating point; figures: worst stratum"
    yield f"{report['verdict']}: {report['reason']}"


def to_html(report: Json, digest: str) -> bytes:
    """The page: no scripts, no links, plots inside."""
    rows = [
        "<!doctype html><html lang='en'><head><meta charset='utf-8'>",
        f"<title>{_text(report['model']['name'])} in INT8: {_text(report['verdict'])}</title>",
        f"<style>{_STYLE}</style></head><body>",
        f"<h1>{_text(report['model']['name'])} in INT8 for {_text(report['target'])}</h1>",
        f"<p class='{report['verdict']}'><b>{report['verdict']}</b>: {_text(report['reason'])}</p>",
        *(_picture(title, data) for title, data in plots(report).items()),
        "<h2>What was looked at</h2>",
        _table(
            ["", ""],
            [
                *_flat({key: report[key] for key in ("model", "target", "timed", "labelled_faces")}),
                *_flat({"calibrated on": report["calibrated_on"], "judged on": report["judged_on"]}),
                ("sha256 of this report as JSON, in the model's card", digest),
            ],
        ),
        "<h2>Bounds</h2>",
        _table(list(report["bounds"]), [list(report["bounds"].values())]),
        f"<h2>Trials</h2><p>Chosen: number {_text(report['chosen'])}.</p>",
    ]
    for number, trial in enumerate(report["trials"]):
        rows.append(f"<h3>Number {number}: {_text(', '.join(trial['kept']) or 'every layer in 8 bits')}</h3>")
        plain = {
            key: value for key, value in trial.items() if key not in ("strata", "worst", "tar_drops", "kept")
        }
        rows.append(_table(list(plain), [list(plain.values())]))
        stratum = next(iter(trial["strata"].values()))
        body = [[name, *figures.values()] for name, figures in trial["strata"].items()]
        rows.append(
            _table(["stratum", *stratum], [*body, ["worst", "", *_in(trial["worst"], list(stratum)[1:])]])
        )
        if trial["tar_drops"]:
            rows.append(
                _table(
                    ["condition", "tar_drop"],
                    [*trial["tar_drops"].items(), ("worst", trial["worst"]["tar_drop"])],
                )
            )
    if report["harms"]:
        rows.append("<h2>Harm of each layer</h2>")
        rows.append(_table(list(report["harms"][0]), [list(harm.values()) for harm in report["harms"]]))
    rows.append("</body></html>\n")
    return "\n".join(rows).encode()


_STYLE = (
    "body{font:15px/1.5 sans-serif;max-width:64rem;margin:2rem auto;padding:0 1rem;color:#222}"
    "table{border-collapse:collapse;margin:.5rem 0 1.5rem;font-size:13px}"
    "td,th{border:1px solid #ccc;padding:.2rem .5rem;text-align:left;overflow-wrap:anywhere}"
    "td{font-variant-numeric:tabular-nums}img{max-width:100%}"
    ".passed,.refused{padding:.6rem 1rem;border-left:6px solid}"
    ".passed{border-color:#009E73;background:#eefaf5}.refused{border-color:#D55E00;background:#fdf1ea}"
)


def _trial(trial: Trial) -> Json:
    strata = {name: asdict(drift) for name, drift in trial.cost.strata.items()}

    def least(name: str) -> float | None:
        values = [drift[name] for drift in strata.values() if drift[name] is not None]
        return min(values, default=None)

    def greatest(name: str) -> float | None:
        values = [drift[name] for drift in strata.values() if drift[name] is not None]
        return max(values, default=None)

    return {
        "kept": list(trial.kept),
        "float_share": trial.float_share,
        "size_bytes": trial.cost.size_bytes,
        "original_ms": trial.cost.original_ms,
        "ms": trial.cost.ms,
        "speedup": trial.cost.speedup,
        "mask_auc_drop": trial.cost.mask_auc_drop,
        "strata": strata,
        "tar_drops": dict(trial.tar_drops),
        "worst": {
            **{name: least(name) for name in ("mean_cosine", "p1_cosine", "ri_spearman")},
            **{name: greatest(name) for name in ("mask_shift", "worst_mask_shift")},
            "tar_drop": max(trial.tar_drops.values(), default=None),
        },
        "breaches": [str(breach) for breach in trial.breaches],
    }


def _faces(pictures: CalibrationSet) -> Json:
    return {
        "digest": pictures.digest,
        "faces": {name: len(crops) for name, crops in pictures.strata.items()},
    }


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return round(value, _DIGITS)
    if isinstance(value, Mapping):
        return {key: _rounded(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_rounded(inner) for inner in value]
    return value


def _kept(layers: list[str]) -> str:
    return f"{len(layers)}, last {layers[-1]}" if layers else "none"


def _minus(value: float | None) -> float | None:
    return None if value is None else -value


def _in(values: Json, names: list[str]) -> list[Any]:
    return [values[name] for name in names]


def _text(value: object) -> str:
    """A value as the page shows it, and as the JSON has it."""
    if value is None:
        return "-"
    if isinstance(value, list):
        return escape("; ".join(str(one) for one in value)) or "-"
    return escape(str(value))


def _flat(values: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{before}{key} ")
        else:
            yield f"{before}{key}", value


def _table(head: list[str], rows: list[Any]) -> str:
    top = "".join(f"<th>{_text(name.replace('_', ' '))}</th>" for name in head)
    body = "".join("<tr>" + "".join(f"<td>{_text(v)}</td>" for v in row) + "</tr>" for row in rows)
    return f"<table><tr>{top}</tr>{body}</table>"


def _picture(title: str, png: bytes) -> str:
    return f"<img alt='{escape(title)}' src='data:image/png;base64,{base64.b64encode(png).decode()}'>"
