"""Certificates for the TLS faults, made by the openssl command: good, expired, misnamed, of a foreign CA."""

from __future__ import annotations

import ssl
import subprocess
from pathlib import Path

LEAVES = {
    "tls-good": ("ca", "IP:127.0.0.1,DNS:localhost", "2"),
    # A negative lifetime: it ended before it began.
    "tls-expired": ("ca", "IP:127.0.0.1,DNS:localhost", "-1"),
    "tls-wrong-name": ("ca", "DNS:elsewhere.example", "2"),
    "tls-unknown-ca": ("foreign", "IP:127.0.0.1,DNS:localhost", "2"),
}


def make(folder: Path) -> dict[str, ssl.SSLContext]:
    """Writes `ca.pem` and the leaves into the folder; a server context for each leaf."""
    for authority in ("ca", "foreign"):
        _openssl(
            folder,
            *("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"),
            *("-keyout", f"{authority}.key", "-out", f"{authority}.pem", "-days", "2"),
            *("-subj", f"/CN=Fault test {authority}"),
        )
    contexts = {}
    for name, (authority, names, days) in LEAVES.items():
        (folder / f"{name}.ext").write_text(f"subjectAltName={names}\nextendedKeyUsage=serverAuth\n")
        _openssl(
            folder,
            *("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"),
            *("-keyout", f"{name}.key", "-out", f"{name}.csr", "-subj", f"/CN={name}"),
        )
        _openssl(
            folder,
            *("x509", "-req", "-in", f"{name}.csr", "-CA", f"{authority}.pem", "-CAkey", f"{authority}.key"),
            *("-CAcreateserial", "-extfile", f"{name}.ext", "-days", days, "-out", f"{name}.pem"),
        )
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(folder / f"{name}.pem", folder / f"{name}.key")
        contexts[name] = context
    return contexts


def _openssl(folder: Path, *arguments: str) -> None:
    subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True, timeout=20)
