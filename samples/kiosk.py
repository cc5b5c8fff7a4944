"""A kiosk's question: is this picture the person who presented the badge?

python samples/kiosk.py people.db "Grace Hopper" door.jpg     # verify
edge-fr enroll "Grace Hopper" grace.jpg --gallery people.db   # once, before
"""

import sys

from edge_fr import EdgeFrError, Recognizer


def main(gallery: str, person: str, picture: str) -> int:
    with Recognizer.open(gallery) as recognizer:
        answer = recognizer.verify(picture, person)
    if answer.status == "unrecognizable":
        print("please look at the camera again:", "; ".join(answer.reasons))
        return 2
    print(f"{answer.status}: {person}, score {answer.score:.2f}, threshold {answer.threshold:.2f}")
    return 0 if answer else 1


if __name__ == "__main__":
    try:
        sys.exit(main(*sys.argv[1:]))
    except EdgeFrError as error:
        sys.exit(f"kiosk: {error}")
