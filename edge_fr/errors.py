"""Every exception that edge_fr raises on purpose, in one tree.

    EdgeFrError
    ├── InputError (ValueError)          an argument, picture or array that cannot be used
    │   └── ImageError                   a picture that cannot be read, or is no picture
    ├── MissingDependencyError (ImportError)   an optional library is absent; says how to install it
    ├── ModelError                       a model file or what it computes
    │   ├── ModelNotFoundError           not in the cache; says how to pull or copy it
    │   ├── CardError                    the model card is missing, broken, or does not fit the task
    │   └── EngineError                  the engine cannot open, or its output is not usable (NaN, shape)
    ├── SourceError                      a camera, stream, file or folder
    │   ├── SourceOpenError              it could not be opened
    │   └── SourceReadError              it broke off before its end
    ├── GalleryError                     the people database
    │   ├── GalleryFileError             the file is damaged, read-only, locked or not a gallery
    │   ├── GalleryModelError            it was enrolled with another recognizer
    │   ├── UnknownIdentityError (KeyError)    nobody of that name is enrolled
    │   └── EnrollmentError              the picture was refused; carries the reasons
    └── EventError                       an event could not be written
        ├── DeliveryError                a receiver did not confirm an event; it is sent again
        └── RefusedError                 a receiver will never take an event; it is set aside

A message says what was wrong, what came, what was expected, and the command to run next.
"""

from __future__ import annotations


def install_command(extra: str = "") -> str:
    """How to install this package, which no package index has, with an optional part of it or without."""
    what = f"'.[{extra}]'" if extra else "."
    return f"pip install {what} in the checkout of edge_fr"


def upgrade_command() -> str:
    """How to bring a newer edge_fr in place of this one."""
    return f"git pull and {install_command()}"


class EdgeFrError(Exception):
    """Base of all errors of this package; catch it to catch them all."""


class InputError(EdgeFrError, ValueError):
    """An argument, picture or array that cannot be used."""


class ImageError(InputError):
    """A picture that cannot be read, or is no picture."""


class MissingDependencyError(EdgeFrError, ImportError):
    """An optional library is absent; the message holds the install command."""


class ModelError(EdgeFrError):
    """A model file, or what it computes, is not usable."""


class ModelNotFoundError(ModelError):
    """A named model is not in the cache."""


class CardError(ModelError):
    """A model card is missing, broken, or does not fit the task."""


class EngineError(ModelError):
    """An engine cannot open, or its output is not usable."""


class SourceError(EdgeFrError):
    """A camera, stream, file or folder failed."""


class SourceOpenError(SourceError):
    """A source could not be opened."""


class SourceReadError(SourceError):
    """A source broke off before its end."""


class GalleryError(EdgeFrError):
    """The people database cannot do what was asked."""


class GalleryFileError(GalleryError):
    """The gallery file is damaged, read-only, locked or not a gallery."""


class GalleryModelError(GalleryError):
    """The gallery was enrolled with another recognizer."""


class UnknownIdentityError(GalleryError, KeyError):
    """Nobody of that name is enrolled."""

    def __str__(self) -> str:
        return Exception.__str__(self)  # KeyError would print the repr of the message


class EnrollmentError(GalleryError):
    """A picture was refused for enrolment; the message lists why."""


class EventError(EdgeFrError):
    """An event could not be written."""


class DeliveryError(EventError):
    """A receiver did not confirm an event; it is sent again.

    `retry_after_s` is the pause that the receiver asked for. `answered` says that the receiver was
    reached and did not want the event now.
    """

    def __init__(self, message: str, *, retry_after_s: float | None = None, answered: bool = False) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s
        self.answered = answered


class RefusedError(EventError):
    """A receiver will never take an event; the outbox counts it and sets it aside."""
