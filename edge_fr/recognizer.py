"""The kiosk's one object: still pictures in, answers with reasons out."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from types import TracebackType
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from edge_fr.decide import UNKNOWN_RI, doubts, named, rivals
from edge_fr.detect import Detector
from edge_fr.embed import Embedder
from edge_fr.enrolment import Look, Sorted, fused, of_one_person, once_each
from edge_fr.errors import EnrollmentError, ImageError, InputError, UnknownIdentityError
from edge_fr.gallery import Gallery, NameThreshold, genuine_bound, normalized_identity, score_threshold
from edge_fr.image import align, read_image, to_bgr
from edge_fr.networks import Networks, open_networks
from edge_fr.quality import QualityGate, QualityPolicy, Recognizability, usual_policy
from edge_fr.structures import Candidate, Decision, Face, Faces, Frame, Refusal, Status

Picture = str | Path | NDArray[np.generic]
_OWN_FMR = 0.01  # a picture that one stranger in 100 would match is not taken for another of the same person
_COME_CLOSER = "come closer and look at the camera"


class Identification(NamedTuple):
    """One face of a picture and who it is."""

    face: Face
    decision: Decision


@dataclass(frozen=True, slots=True)
class Verification:
    """Whether the largest face of a picture is the person claimed.

    "unrecognizable" means that the picture does not allow an answer; `reasons` say why, in words, and `codes`
    for programs. `score` is None then. `face` is the one that was looked at, None if there is none.
    """

    status: Literal["match", "no match", "unrecognizable"]
    score: float | None
    threshold: float
    reasons: tuple[str, ...] = ()
    codes: tuple[str, ...] = ()
    face: Face | None = None

    def __bool__(self) -> bool:
        return self.status == "match"


@dataclass(frozen=True, slots=True)
class Enrollment:
    """What became of each picture: kept ones by name, refused ones with the reason."""

    identity: str
    kept: tuple[str, ...]
    refused: tuple[tuple[str, str], ...]


class Recognizer:
    """Finds, judges, identifies, verifies and enrolls faces in still pictures.

    A picture is a path or an array (BGR; grey, BGRA and 16-bit are converted). What the detector scores
    lower than `quality.min_score` is no face. The first call is as fast as the others: opening runs both
    models once. Close it, or use it as a context manager.

    Safe for use from several threads, such as the handlers of a server: pictures are read side by side, and
    the faces of one after the other are found, embedded and searched for. `enroll` takes its turn picture by
    picture, so that nobody is enrolled twice and a door does not wait for all of them.

        with Recognizer.open("people.db", create=True) as recognizer:
            recognizer.enroll("Grace Hopper", ["grace.jpg"])
            print(recognizer.verify("door.jpg", "Grace Hopper"))
    """

    def __init__(
        self,
        detector: Detector,
        embedder: Embedder,
        gallery: Gallery,
        *,
        recognizability: Recognizability | None = None,
        quality: QualityPolicy | None = None,
        enrollment: QualityPolicy | None = None,
        target_fpir: float = 0.01,
        target_fmr: float = 1e-4,
        margin: float = 0.05,
    ) -> None:
        gallery.require_model(embedder.card)
        self._detector = detector
        self._embedder = embedder
        self.gallery = gallery
        quality = quality or usual_policy(recognizability)
        self._min_score = quality.min_score
        self._gate = QualityGate(quality, recognizability=recognizability)
        self._enrollment_gate = QualityGate(
            enrollment or QualityPolicy.enrollment(), recognizability=recognizability
        )
        self._target_fpir = target_fpir
        self._names = NameThreshold(embedder.card, target_fpir)
        self._claims = NameThreshold(embedder.card, target_fmr)
        self._own_score = score_threshold(embedder.card, _OWN_FMR, 1).score
        self._margin = margin
        self._lock = threading.RLock()  # of one picture's way through the models, or into the gallery

    @classmethod
    def open(
        cls,
        gallery: str | Path = ":memory:",
        networks: Networks | None = None,
        *,
        create: bool = False,
        target_fpir: float = 0.01,
        target_fmr: float = 1e-4,
    ) -> Recognizer:
        """Opens the gallery; `create` makes one where there is none.

        `networks` are what `open_networks` returns for models or a device of your choice (None: for its
        own). `target_fpir`: the share of strangers that `identify` may give a name. `target_fmr`: the share
        of impostors that `verify` may accept, of people like those who are enrolled.
        """
        networks = networks or open_networks()
        networks.run_once()
        card = networks.embedder.card
        return cls(
            networks.detector,
            networks.embedder,
            Gallery.open(gallery, card, create=create or str(gallery) == ":memory:"),
            recognizability=networks.recognizability,
            target_fpir=target_fpir,
            target_fmr=target_fmr,
        )

    def analyze(self, picture: Picture) -> Faces:
        """All faces, largest first, with crops, quality, refusals, and embeddings of the usable ones."""
        return self._analyze(picture, self._gate)

    def identify(self, picture: Picture) -> tuple[Identification, ...]:
        """Who is in the picture: one answer a face, largest face first."""
        faces = self.analyze(picture)
        with self._lock:
            return tuple(Identification(face, self._decide(face)) for face in faces)

    def verify(self, picture: Picture, identity: str) -> Verification:
        """Whether the largest face is `identity`; UnknownIdentityError if nobody of that name is enrolled.

        "no match" is said of a face that looks less like the person than 19 in 20 such pictures of the person
        would; between that and "match" the picture is "unrecognizable": a better one may match.
        """
        template = fused(self.gallery.templates(identity))
        faces = self.analyze(picture)
        if len(faces) == 0:
            threshold = self._claims.claim(self.gallery.cohort)
            return Verification("unrecognizable", None, threshold, ("no face found",), ("no_face",))
        face = faces[0]
        if face.embedding is None:
            threshold = self._claims.claim(self.gallery.cohort, ri=face.ri)
            return _unrecognizable(face, threshold, face.refusals)
        others = (self.gallery.search(face.embedding[None], k=1).others or (None,))[0]
        threshold = self._claims.claim(self.gallery.cohort, ri=face.ri, others=others)
        score = float(template @ face.embedding)
        if score >= threshold:
            return Verification("match", score, threshold, face=face)
        if face.ri is not None and face.ri < UNKNOWN_RI:
            doubt = Refusal("recognizability", face.ri, UNKNOWN_RI, "at least", detail=_COME_CLOSER)
            return _unrecognizable(face, threshold, (doubt,))
        if score >= genuine_bound(self._embedder.card, face.ri):
            doubt = Refusal("score", score, threshold, "at least", detail=_COME_CLOSER)
            return _unrecognizable(face, threshold, (doubt,))
        return Verification("no match", score, threshold, face=face)

    def enroll(
        self, identity: str, pictures: Picture | Iterable[Picture], *, force: bool = False
    ) -> Enrollment:
        """Adds each picture that shows one good face; EnrollmentError when none of them does.

        What is kept of a face is the template of its crop and the mirror image of that, see
        `Embedder.templates`: a search for the same picture scores a little less than 1.

        Refused, with the reason: no face, several faces, a face too poor to keep, the same picture once more,
        one that wears a mask, a face that is someone else's who is enrolled, and one that does not look like
        this identity's other pictures, or like most of those that are given; `force` keeps the last three.
        """
        identity = normalized_identity(identity)
        if isinstance(pictures, (str, Path, np.ndarray)):
            pictures = [pictures]
        if not isinstance(pictures, Iterable):
            raise InputError(
                f"pictures are a path, an array of NumPy, or several of them, got {type(pictures).__name__}"
            )
        looks: list[Look] = []
        refused: list[tuple[str, str]] = []
        for number, picture in enumerate(pictures, 1):
            name = str(picture) if isinstance(picture, (str, Path)) else f"picture {number}"
            try:
                look = self._one_good_look(name, picture)
                if not force:
                    self._refuse_mask(look.face)
            except (EnrollmentError, ImageError) as error:
                refused.append((name, str(error)))
                continue
            looks.append(look)
        with self._lock:  # who is enrolled must not change between the comparison and the entry
            own = self._own_templates(identity)
            looks, twins = once_each(looks, own)
            refused += twins
            if not force:
                looks, others = self._of_nobody_else(identity, looks)
                refused += others
                looks, others = of_one_person(identity, looks, own, self._own_score)
                refused += others
            if looks:
                templates = np.stack([look.template for look in looks])
                qualities, sources = [look.face.worth for look in looks], [look.name for look in looks]
                self.gallery.add(identity, templates, qualities=qualities, sources=sources)
        if not looks and (len(own) == 0 or len(twins) < len(refused) or not refused):
            reasons = "; ".join(f"{name}: {reason}" for name, reason in refused) or "no picture given"
            raise EnrollmentError(f"{identity!r} was not enrolled: {reasons}")
        return Enrollment(identity, tuple(look.name for look in looks), tuple(refused))

    def close(self) -> None:
        """Closes the gallery, after the call that is under way."""
        with self._lock:
            self.gallery.close()

    def __enter__(self) -> Recognizer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _analyze(self, picture: Picture, gate: QualityGate) -> Faces:
        image = to_bgr(picture) if isinstance(picture, np.ndarray) else read_image(picture)
        frame = Frame(image, 0, datetime.now(timezone.utc))
        with self._lock:
            faces = self._detector(frame, Faces.empty())
            faces = faces[faces.scores >= self._min_score]  # a still has no track for a weak face to continue
            widths, heights = (faces.boxes[:, 2:] - faces.boxes[:, :2]).T
            faces = faces[np.argsort(-widths * heights, kind="stable")]
            faces = faces.with_(crops=align(image, faces.landmarks))
            return gate.confirm(self._embedder(frame, gate(frame, faces)))

    def _decide(self, face: Face) -> Decision:
        if face.embedding is None:
            threshold = self._names.look(self.gallery.cohort, ri=face.ri)
            return Decision(
                "unrecognizable", None, (), threshold, 0, self._target_fpir, refusals=face.refusals
            )
        candidates, threshold = self._search(face.embedding, face.ri)
        identity = named(candidates, threshold, self._margin)
        doubt: tuple[Refusal, ...] = ()
        if identity is None:
            doubt = rivals(candidates, threshold, self._margin) or doubts(face.ri, UNKNOWN_RI)
        status: Status = "known" if identity is not None else "unrecognizable" if doubt else "unknown"
        return Decision(
            status,
            identity,
            candidates,
            threshold,
            1,
            self._target_fpir,
            doubt,
            ri=face.ri,
            mask_prob=face.mask_prob,
        )

    def _search(
        self, embedding: NDArray[np.float32], ri: float | None
    ) -> tuple[tuple[Candidate, ...], float]:
        """The best candidates for a look, and the score that a name takes."""
        matches = self.gallery.search(embedding[None])
        others = (matches.others or (None,))[0]
        return matches[0], self._names.look(self.gallery.cohort, ri=ri, others=others)

    def _one_good_look(self, name: str, picture: Picture) -> Look:
        faces = self._analyze(picture, self._enrollment_gate)
        if len(faces) == 0:
            raise EnrollmentError("no face found; use a picture with one face, looking at the camera")
        if len(faces) > 1:
            raise EnrollmentError(f"{len(faces)} faces found; crop the picture to the one person meant")
        face = faces[0]
        if face.embedding is None:
            raise EnrollmentError(f"not good enough to keep: {', '.join(map(str, face.refusals))}")
        assert face.crop is not None  # it was embedded from it
        return Look(name, face, self._embedder.templates(face.crop[None])[0])

    def _refuse_mask(self, face: Face) -> None:
        if face.masked:
            raise EnrollmentError(
                f"wears a mask ({face.mask_prob:.0%} sure); take it off, or give force=True or --force to "
                f"keep it all the same"
            )

    def _of_nobody_else(self, identity: str, looks: list[Look]) -> Sorted:
        """The looks that are not like somebody else who is enrolled."""
        kept: list[Look] = []
        refused: list[tuple[str, str]] = []
        for look in looks:
            candidates, threshold = self._search(look.template, look.face.ri)
            best = candidates[0] if candidates else None
            if best is None or best.identity == identity or best.score < threshold:
                kept.append(look)
                continue
            reason = f"looks like {best.identity!r}, who is enrolled (score {best.score:.2f}, threshold "
            reason += f"{threshold:.2f}); give force=True or --force to keep it all the same"
            refused.append((look.name, reason))
        return kept, refused

    def _own_templates(self, identity: str) -> NDArray[np.float32]:
        try:
            return self.gallery.templates(identity)
        except UnknownIdentityError:
            return np.zeros((0, self._embedder.card.embedding_size or 0), np.float32)


def _unrecognizable(face: Face, threshold: float, refusals: tuple[Refusal, ...]) -> Verification:
    codes = tuple(refusal.component for refusal in refusals)
    return Verification("unrecognizable", None, threshold, tuple(map(str, refusals)), codes, face)
