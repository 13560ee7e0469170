"""A certificate authority of the tests, and the files that a web config names."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path

import trustme


@dataclass(frozen=True)
class Authority:
    """Writes certificates below ``directory``."""

    directory: Path
    authority: trustme.CA

    @property
    def file(self) -> Path:
        """The authority's own certificate."""
        file = self.directory / "ca.pem"
        self.authority.cert_pem.write_to_path(file)
        return file

    def issue(self, name: str, *identities: str) -> tuple[Path, Path]:
        """Certificate and key for ``identities``, as ``name.pem`` and ``name.key``; an older pair is replaced."""
        issued = self.authority.issue_cert(*identities)
        certificate, key = self.directory / f"{name}.pem", self.directory / f"{name}.key"
        # Beside and renamed, as those who renew certificates do it.
        for file, content in ((certificate, issued.cert_chain_pems[0]), (key, issued.private_key_pem)):
            beside = file.with_suffix(".new")
            content.write_to_path(beside)
            beside.rename(file)
        return certificate, key

    def trusting(self) -> ssl.SSLContext:
        """What a client uses that trusts this authority alone."""
        return ssl.create_default_context(cafile=str(self.file))
