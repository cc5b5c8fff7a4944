"""What a camera answers over HTTP: with a password of any kind, and a certificate that is checked."""

from __future__ import annotations

import hashlib
import http.client
import ssl
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit, urlunsplit

from edge_fr.errors import InputError, SourceOpenError

_HASHES = {"MD5": "md5", "SHA": "sha1", "SHA-256": "sha256"}


class Web:
    """One camera's web server; connecting and each read may take `timeout_s`.

    User and password are those of `url`; they go to its host alone. `certificate` is what is trusted in
    place of the machine's authorities (`trusting`).
    """

    def __init__(self, url: str, *, certificate: Path | None, timeout_s: float) -> None:
        parts = urlsplit(url)
        self.url = urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))
        passwords = urllib.request.HTTPPasswordMgrWithDefaultRealm()
        if parts.username is not None:
            user, password = unquote(parts.username), unquote(parts.password or "")
            passwords.add_password(
                None, urlunsplit(urlsplit(self.url)._replace(path="/", query="")), user, password
            )
        self._timeout_s = timeout_s
        self._opener = urllib.request.build_opener(
            urllib.request.HTTPSHandler(context=trusting(certificate)),
            _Basic(passwords),
            _Digest(passwords),
        )

    def open(self, url: str) -> http.client.HTTPResponse:
        """The answer, its body still to be read. Raises SourceOpenError with the bare reason."""
        try:
            answer: http.client.HTTPResponse = self._opener.open(url, timeout=self._timeout_s)
        except urllib.error.HTTPError as error:
            error.close()
            hint = "; is the user or the password wrong?" if error.code == 401 else ""
            raise SourceOpenError(f"the camera answered {error.code} {error.reason}{hint}") from error
        except urllib.error.URLError as error:
            raise SourceOpenError(_why(error.reason)) from error
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise SourceOpenError(_why(error)) from error
        return answer


def trusting(certificate: Path | None) -> ssl.SSLContext:
    """Whom to believe: the machine's authorities (or those of SSL_CERT_FILE), and a certificate has to name
    the host; or nobody but the `certificate`, a PEM file with the camera's own or that of who signed it,
    whatever name is in it. InputError when it holds none."""
    context = ssl.create_default_context()
    if certificate is None:
        return context
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False  # cameras' own certificates name a serial number, or nothing
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    try:
        context.load_verify_locations(certificate)
    except OSError as error:  # ssl.SSLError is one
        raise InputError(
            f"{certificate} holds no certificate ({error.strerror or error}), expected PEM: `openssl "
            "s_client -connect HOST:PORT </dev/null | openssl x509 -out camera.pem` writes a camera's"
        ) from error
    return context


def untrusted(reason: str) -> str:
    """What is said of a certificate that is not believed."""
    return (
        f"its certificate is not trusted ({reason}); for a camera that made its own, `certificate` names a "
        "PEM file of it: `openssl s_client -connect HOST:PORT </dev/null | openssl x509 -out camera.pem`"
    )


def _why(error: object) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return untrusted(error.verify_message)
    return str(error) or type(error).__name__


class _Basic(urllib.request.HTTPBasicAuthHandler):
    """Closes the refusal that asks for a password."""

    def http_error_401(self, req: Any, fp: Any, code: int, msg: str, headers: Any) -> Any:
        fp.close()
        return super().http_error_401(req, fp, code, msg, headers)


class _Digest(urllib.request.HTTPDigestAuthHandler):
    """The same, with digests of passwords in UTF-8, and SHA-256."""

    def http_error_401(self, req: Any, fp: Any, code: int, msg: str, headers: Any) -> Any:
        fp.close()
        return super().http_error_401(req, fp, code, msg, headers)

    def get_algorithm_impls(self, algorithm: str) -> Any:
        if algorithm.upper() not in _HASHES:
            raise ValueError(f"the camera asks for a digest by {algorithm!r}, expected {', '.join(_HASHES)}")

        def digest(text: str) -> str:
            return hashlib.new(_HASHES[algorithm.upper()], text.encode()).hexdigest()

        keyed: Callable[[str, str], str] = lambda secret, data: digest(f"{secret}:{data}")  # noqa: E731
        return digest, keyed
