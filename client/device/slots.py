"""Two slots for releases: a new one is verified and tried in the idle slot, then one rename makes it the current one.

A crash at any moment leaves the current release as it was. The other slot keeps the release before, for `rollback`.
Every use checks signature and hashes again: a file changed on disk is never run.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Literal

from fedsite.protocol import instants, release, storage
from fedsite.protocol.errors import ConfigError, DocumentError, FedsiteError, IntegrityError, RefusalCode
from fedsite.protocol.federation import Federation
from fedsite.protocol.release import MAX_BYTES, MAX_MODEL, Manifest

Slot = Literal["a", "b"]
MANIFEST = "manifest.json"
MODEL = "model.onnx"
CURRENT = "current"  # names the slot in use


@dataclass(frozen=True, slots=True, kw_only=True)
class Installed:
    """A verified release on this device."""

    slot: Slot
    manifest: Manifest
    model: bytes


class Slots:
    """`slots/a`, `slots/b` and the file `current` that names one of them, below the site's directory."""

    def __init__(
        self, directory: Path, federation: Federation, *, clock: Callable[[], datetime] = instants.now
    ) -> None:
        self._directory = directory
        self._federation = federation
        self._clock = clock

    def install(
        self, manifest_data: bytes, model: bytes, *, expected_hash: str, self_test: Callable[[Path], None]
    ) -> Installed:
        """Put a release into the idle slot and make it current.

        Args:
            manifest_data: manifest.json as downloaded.
            model: model.onnx as downloaded.
            expected_hash: of the manifest, as the signed instruction pins it.
            self_test: tries the slot (a directory) in a process without torch; raises when an output differs.

        Raises:
            TrustError, IntegrityError, DocumentError: it is not a release of this federation, or not the one pinned.
            StorageError: the disk is full. The current release stays in every case.
        """
        manifest = release.verify(manifest_data, self._federation, self._clock(), expected_hash=expected_hash)
        release.check_model(manifest, model)
        current = self._current()
        if current is not None and self._is(current, manifest_data):
            return Installed(slot=current, manifest=manifest, model=model)
        idle: Slot = "b" if current == "a" else "a"
        folder = self._folder(idle)
        with storage.storage_errors(folder):
            shutil.rmtree(folder, ignore_errors=True)
        storage.private_directory(folder)
        storage.write_atomic(folder / MODEL, model)
        storage.write_atomic(folder / MANIFEST, manifest_data)
        try:
            self_test(folder)
        except FedsiteError:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        storage.write_atomic(self._directory / CURRENT, idle.encode("ascii"))
        return Installed(slot=idle, manifest=manifest, model=model)

    def current(self) -> Installed:
        """The release in use, verified again.

        Raises:
            ConfigError: none is installed.
            IntegrityError, TrustError: a file in the slot is not what was signed.
        """
        slot = self._current()
        if slot is None:
            raise ConfigError(
                "no release is installed at this site",
                allowed="a site that has received one",
                next_step="fedsite status; a run that ends with a release delivers it while `fedsite up` runs",
            )
        return self._open(slot)

    def other(self) -> Installed | None:
        """The release that a rollback would bring back, verified; None when there is none."""
        current = self._current()
        if current is None:
            return None
        slot: Slot = "b" if current == "a" else "a"
        return self._open(slot) if (self._folder(slot) / MANIFEST).exists() else None

    def rollback(self) -> Installed:
        """Make the other slot current.

        Raises:
            ConfigError: there is no other release. IntegrityError, TrustError: it does not verify.
        """
        found = self.other()
        if found is None:
            raise ConfigError("there is no earlier release to go back to", next_step="fedsite model status")
        storage.write_atomic(self._directory / CURRENT, found.slot.encode("ascii"))
        return found

    def _open(self, slot: Slot) -> Installed:
        folder = self._folder(slot)
        remedy = "fedsite model rollback, or ask the central team to deliver it again"
        for name in (MANIFEST, MODEL):
            if not (folder / name).exists():
                raise IntegrityError(f"slot {slot} ({folder}): {name} is missing", allowed=name, next_step=remedy)
        try:
            manifest, model = read_slot(folder, self._federation, self._clock())
        except FedsiteError as error:
            error.found = f"slot {slot} ({folder}): {error.found}"
            error.next_step = error.next_step or remedy
            if isinstance(error, DocumentError) and error.refusal is not RefusalCode.PROTOCOL_VERSION:
                # Not a document any more: it was one when it was installed.
                raise IntegrityError(error.found, allowed=error.allowed, next_step=error.next_step) from None
            raise
        return Installed(slot=slot, manifest=manifest, model=model)

    def _current(self) -> Slot | None:
        path = self._directory / CURRENT
        if not path.exists():
            return None
        text = storage.read(path).strip()
        if text == b"a":
            return "a"
        if text == b"b":
            return "b"
        raise IntegrityError(f"{path} holds {text[:20]!r}", allowed="a or b", refusal=RefusalCode.STORAGE)

    def _is(self, slot: Slot, manifest_data: bytes) -> bool:
        """True when the slot holds this very release, whole."""
        try:
            found = self._open(slot)
        except FedsiteError:
            return False
        return release.manifest_hash(manifest_data) == release.manifest_hash(
            storage.read(self._folder(slot) / MANIFEST, limit=MAX_BYTES)
        ) and bool(found.model)

    def _folder(self, slot: Slot) -> Path:
        return self._directory / "slots" / slot


def read_slot(folder: Path, federation: Federation, now: datetime) -> tuple[Manifest, bytes]:
    """The verified manifest and model of a directory.

    Raises:
        TrustError, IntegrityError, DocumentError: not what the federation signed. StorageError: not readable.
    """
    manifest = release.verify(storage.read(folder / MANIFEST, limit=MAX_BYTES), federation, now)
    model = storage.read(folder / MODEL, limit=MAX_MODEL)
    release.check_model(manifest, model)
    return manifest, model


def fetch_and_install(
    slots: Slots,
    fetch: Callable[[str, int], bytes],
    self_test: Callable[[Path], None],
    version: str,
    manifest_hash: str,
) -> Installed:
    """Download a release with the site's certificate and install it.

    Raises:
        as `Slots.install`; UnreachableError from `fetch`.
    """
    release.check_version(version)
    manifest = fetch(f"/releases/{version}/{MANIFEST}", MAX_BYTES)
    if release.manifest_hash(manifest) != manifest_hash:
        raise IntegrityError(
            f"the manifest of release {version} is not the one the instruction pins",
            allowed=manifest_hash,
            refusal=RefusalCode.RELEASE_INVALID,
        )
    model = fetch(f"/releases/{version}/{MODEL}", MAX_MODEL)
    return slots.install(manifest, model, expected_hash=manifest_hash, self_test=self_test)
