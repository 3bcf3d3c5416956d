"""Dated calibrations of devices: a folder of JSON profiles, one for each device and day."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta, timezone
from pathlib import Path

from qnad_art.device.drift import DriftModel
from qnad_art.device.profile import DeviceProfile
from qnad_art.errors import DeviceError

VARIABLE = "QNAD_DEVICE_HISTORY"
"""Environment variable with the folder in which :func:`dated` looks."""


def read_history(folder: Path) -> list[DeviceProfile]:
    """All profiles of a folder, in order of their calibration.

    Raises:
        DeviceError: a JSON file is damaged, is not a device profile, or has no date; the message
            names it.
    """
    if not folder.is_dir():
        raise DeviceError(f"{folder} is not a folder with device profiles (*.json).")
    found = []
    for path in sorted(folder.glob("*.json")):
        profile = DeviceProfile.load(path)
        try:
            found.append((calibrated_at(profile), profile))
        except DeviceError as error:
            raise DeviceError(f"{path}: {error}") from error
    return [profile for _, profile in sorted(found, key=lambda entry: entry[0])]


def dated(name: str, day: str, folder: Path | None = None) -> DeviceProfile:
    """The last calibration of a device on a day, from a folder of profiles.

    Args:
        name: name of the device, as in the profiles.
        day: as 2024-05-27.
        folder: with the profiles; the default is the one that :data:`VARIABLE` names.

    Raises:
        DeviceError: the date is invalid, or the folder or a profile of that day is missing.
    """
    try:
        wanted = date.fromisoformat(day)
    except ValueError:
        raise DeviceError(
            f"{day!r} is not a date; write {name}@2024-05-27 for the calibration of a day."
        ) from None
    if folder is None and VARIABLE not in os.environ:
        raise DeviceError(
            f"{name}@{day} needs a folder of dated device profiles: set {VARIABLE} to it. "
            f"`qnad devices export {name} FILE` writes the profile of today."
        )
    folder = folder or Path(os.environ[VARIABLE])
    mine = [profile for profile in read_history(folder) if profile.name == name]
    days = sorted({str(calibrated_at(profile).date()) for profile in mine})
    chosen = [profile for profile in mine if calibrated_at(profile).date() == wanted]
    if not chosen:
        there = f"it has {', '.join(days)}" if days else "it has none of that device"
        raise DeviceError(f"{folder} has no calibration of {name} on {day}: {there}.")
    return chosen[-1].model_copy(update={"name": f"{name}@{day}"})


def calibrated_at(profile: DeviceProfile) -> datetime:
    """When a device was calibrated; raises DeviceError if its profile does not say so."""
    try:
        found = datetime.fromisoformat(str(profile.calibrated))
    except ValueError:
        raise DeviceError(
            f"the calibration of {profile.name} is {profile.calibrated!r}, not a date such as "
            "2024-05-27 or 2024-05-27 15:45:40-03:00."
        ) from None
    return found if found.tzinfo else found.replace(tzinfo=timezone.utc)


@dataclass(frozen=True)
class History(DriftModel):
    """A measured history in place of a drift model: what the device was some time later.

    Args:
        name: under which it is registered.
        profiles: calibrations of one device, see :func:`read_history`.
    """

    name: str = "history"
    profiles: tuple[DeviceProfile, ...] = field(default=())

    def path(
        self, device: DeviceProfile, hours: Sequence[float], *, seed: int = 0
    ) -> list[DeviceProfile]:
        """The last calibration that is not later than each of the times; ``seed`` plays no part.

        Raises:
            DeviceError: the history ends before one of the times.
        """
        start = calibrated_at(device)
        known = [(calibrated_at(p), p) for p in self.profiles if calibrated_at(p) >= start]
        found = []
        for time in hours:
            until = start + timedelta(hours=time)
            before = [profile for when, profile in known if when <= until]
            if time and not (before and known[-1][0] >= until):
                raise DeviceError(
                    f"The history of {device.name} does not reach {time:g} hours after "
                    f"{device.calibrated}."
                )
            found.append(before[-1] if time else device)
        return found
