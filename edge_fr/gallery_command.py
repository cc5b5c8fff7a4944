"""What `edge-fr gallery check` and `threshold` do: a gallery's people, compared with each other."""

from __future__ import annotations

import argparse
import json
import sys

from edge_fr.cards import read_card
from edge_fr.gallery import Gallery, NameThreshold
from edge_fr.models import resolve

_TARGET = 0.01
_GOOD_RI, _POOR_RI = 0.8, 0.3


def check(arguments: argparse.Namespace) -> int:
    """Lists the pairs of entries who look like one person; the exit status is 1 if there are any."""
    with _opened(arguments) as gallery:
        needed = NameThreshold(gallery.card, _TARGET).look(gallery.cohort, others=gallery.cohort.mean)
        pairs = gallery.lookalikes(needed)
        people = len(gallery)
    if arguments.json:
        rows = [{"identities": [a, b], "score": round(score, 4)} for a, b, score in pairs]
        print(
            json.dumps({"people": people, "threshold": round(needed, 4), "pairs": rows}, ensure_ascii=False)
        )
        return int(bool(pairs))
    for first, second, score in pairs:
        print(f"{score:.2f}  {first}  {second}")
    if pairs:
        print(
            f"{len(pairs)} pairs of {people} people look like one person (score {needed:.2f} or more): a "
            f"face like both gets neither name; `edge-fr gallery remove PERSON` erases one of them",
            file=sys.stderr,
        )
    else:
        print(f"no two of {people} people look like one person", file=sys.stderr)
    return int(bool(pairs))


def threshold(arguments: argparse.Namespace) -> int:
    """Says which score a name takes in this gallery, what it rests on, and what it costs."""
    target = _TARGET if arguments.fpir is None else arguments.fpir
    with _opened(arguments) as gallery:
        card, cohort, templates = gallery.card, gallery.cohort, gallery.template_count
    needed = NameThreshold(card, target)
    good, poor = (needed.track(cohort, looks=2, ri=ri, others=cohort.mean) for ri in (_GOOD_RI, _POOR_RI))
    a_day = target * arguments.strangers
    if arguments.json:
        values = {
            "people": cohort.people,
            "templates": templates,
            "target_fpir": target,
            "threshold": round(good, 4),
            "threshold_of_poor_looks": round(poor, 4),
            "pairs_mean": cohort.mean,
            "pairs_spread": cohort.spread,
            "impostor_data": card.impostor_data,
            "strangers_a_day": arguments.strangers,
            "false_names_a_day": a_day,
        }
        print(json.dumps(values, ensure_ascii=False))
        return 0
    print(f"{cohort.people} people, {templates} templates")
    print(f"asked for: at most {target:.2g} of strangers' tracks get a name")
    print(f"a name takes a score of {good:.2f} from good looks, {poor:.2f} from poor ones (ri {_POOR_RI});")
    print("  more from a face that is like all people of the gallery, and at the 17th look and later")
    print(f"it rests on the card of {card.name}: {card.impostor_data or 'pairs of other people'}")
    if cohort.mean is None or cohort.spread is None:
        print(
            "  and on nothing of the gallery's own people: there are too few, so they are taken to be alike"
        )
    else:
        print(
            f"  and on the gallery's own pairs: mean score {cohort.mean:.3f}, deviation {cohort.spread:.3f}"
        )
    print(f"of {arguments.strangers:g} strangers a day, at most {a_day:.3g} get a name on average")
    return 0


def _opened(arguments: argparse.Namespace) -> Gallery:
    return Gallery.open(arguments.gallery, read_card(resolve(arguments.embedder)), read_only=True)
