"""Loads devices by name: snapshots of IBM devices, plugins, JSON files, the ideal device."""

from __future__ import annotations

import re
import warnings
from importlib.metadata import files, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from qnad_art.device.drift import TYPICAL
from qnad_art.device.history import dated
from qnad_art.device.profile import DeviceProfile
from qnad_art.errors import ArtifactError, CacheWarning, DeviceError, PluginError, UnknownNameError
from qnad_art.files.atomic import cache_directory, read_json, write_json
from qnad_art.plugins.discovery import call_plugin, find_plugin, find_plugins, plugin_names

if TYPE_CHECKING:
    from qiskit.providers import BackendV2

DeviceLike: TypeAlias = "str | Path | DeviceProfile | BackendV2"
"""What :func:`load_device` accepts: a name, a JSON file, a profile, or a Qiskit backend."""
_SNAPSHOTS = "ibm_*"
"""Name of :func:`snapshot` as a plugin."""
_CALIBRATION = re.compile(r"fake_provider/backends/(\w+)/conf_")
_WITHOUT_GATES = {
    *("ibm_almaden", "ibm_armonk", "ibm_boeblingen", "ibm_burlington", "ibm_cambridge"),
    *("ibm_essex", "ibm_johannesburg", "ibm_kyoto", "ibm_london", "ibm_poughkeepsie"),
    *("ibm_rochester", "ibm_singapore"),
}
"""Snapshots of devices that lack a gate which the circuits need; most are older than the sx."""
_CACHE_VERSION = 3
"""Version 2 added the readout durations, version 3 the crosstalk models by gate."""


def device_names() -> list[str]:
    """Names that :func:`load_device` accepts: ``ideal``, snapshots of IBM devices, plugins'.

    A plugin for every name of a pattern is listed as the pattern, but for the IBM devices.
    """
    return sorted({*plugin_names("device"), *_snapshot_names()} - {_SNAPSHOTS})


def load_device(device: DeviceLike) -> DeviceProfile:
    """Load a profile by name (``ibm_nairobi``), from a JSON file or from a Qiskit backend.

    A profile is returned as it is. A name or file may end in a factor that scales the noise, as in
    ``ibm_nairobi*0.1`` (see :meth:`DeviceProfile.scaled`), or in changes to single sources of noise
    and to the crosstalk model, as in ``ibm_nairobi[readout=0,zz=0.95,crosstalk=echoed]`` or
    ``ibm_nairobi[readout=symmetric]`` (see :meth:`DeviceProfile.changed`). ``[drift=day,seed=1]``
    is the device a day after its calibration (see :mod:`qnad_art.device.drift`), and
    ``ibm_nairobi@2024-05-27`` a calibration from a folder of dated profiles (see
    :mod:`qnad_art.device.history`).

    Raises:
        UnknownNameError: the name does not exist; the message lists the valid ones.
        PluginError: the plugin that registered the name is broken.
        DeviceError: the file or backend does not describe a usable device, or the factor is not a
            number.
    """
    if isinstance(device, DeviceProfile):
        return device
    if not isinstance(device, (str, Path)):
        return DeviceProfile.from_backend(device)
    if str(device).endswith("]"):
        base, _, changes = str(device)[:-1].rpartition("[")
        return _changed(load_device(base), changes)
    base, times, factor = str(device).rpartition("*")
    if times:
        return load_device(base).scaled(_factor(factor))
    if str(device).endswith(".json"):
        return DeviceProfile.load(device)
    name = str(device).replace("fake_", "ibm_", 1)
    if "@" in name:
        base, _, day = name.partition("@")
        return dated(base, day)
    if not any(plugin.answers_to(name) for plugin in find_plugins("device")):
        raise UnknownNameError("device", name, device_names())
    profile = call_plugin("device", name, lambda factory: factory(name))
    if not isinstance(profile, DeviceProfile):
        fault = f"it returned a {type(profile).__name__}, not a DeviceProfile"
        raise PluginError(find_plugin("device", name), fault)
    return profile


def _changed(device: DeviceProfile, text: str) -> DeviceProfile:
    """``device`` with the changes ``readout=0,crosstalk=echoed,drift=day,seed=1``."""
    factors: dict[str, float] = {}
    changes: dict[str, Any] = {}
    drift: dict[str, str] = {}
    for part in text.split(","):
        name, _, value = (piece.strip() for piece in part.partition("="))
        if name == "crosstalk":
            changes["crosstalk_model"] = value
        elif (name, value) == ("readout", "symmetric"):
            changes["symmetric_readout"] = True
        elif name in ("drift", "seed"):
            drift[name] = value
        else:
            factors[name] = _factor(value)
    if factors or changes or not drift:
        device = device.changed(factors, **changes)
    if not drift:
        return device
    if "drift" not in drift or not drift.get("seed", "0").isdecimal():
        raise DeviceError(
            f"[{text}] does not say how long the device drifts, or has a seed that is not a whole "
            "number from 0; write for example [drift=day,seed=1]."
        )
    return TYPICAL.drifted(device, drift["drift"], seed=int(drift.get("seed", "0")))


def _factor(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise DeviceError(
            f"{text!r} is not a noise factor; write a number, as in ibm_nairobi*0.1 or "
            "ibm_nairobi[readout=0]."
        ) from None


def ideal(name: str = "ideal") -> DeviceProfile:
    """:meth:`DeviceProfile.ideal` as a device plugin."""
    return DeviceProfile.ideal()


def snapshot(name: str) -> DeviceProfile:
    """Snapshot of an IBM device by name; a cached one is read again without Qiskit."""
    entry = f"{name}-{version('qiskit-ibm-runtime')}-{_CACHE_VERSION}.json"
    cached = cache_directory() / "device" / entry
    if re.fullmatch(r"ibm_\w+", name) and cached.is_file():
        profile = _read_cached(cached)
        if profile is not None:
            return profile
    from qnad_art.device.backends import fake_backends

    snapshots = fake_backends()
    if name not in snapshots:
        raise UnknownNameError("device", name, device_names())
    profile = DeviceProfile.from_backend(snapshots[name]()).model_copy(update={"name": name})
    try:
        write_json(cached, {"hash": profile.hash, "profile": profile.model_dump(mode="json")})
    except OSError as error:
        warnings.warn(
            f"Cannot write the cache entry {cached}: {error}.", CacheWarning, stacklevel=3
        )
    return profile


def _snapshot_names() -> set[str]:
    """From the list of files that qiskit-ibm-runtime was installed with: nothing is imported."""
    found = (_CALIBRATION.search(str(file)) for file in files("qiskit-ibm-runtime") or ())
    return {f"ibm_{match[1]}" for match in found if match} - _WITHOUT_GATES


def _read_cached(path: Path) -> DeviceProfile | None:
    """The profile in a cache entry. If the entry is damaged: a warning and ``None``."""
    try:
        entry = read_json(path)
        profile = DeviceProfile.from_dict(entry["profile"], source=str(path))
        if profile.hash == entry["hash"]:
            return profile
        fault = "it fails its checksum"
    except (ArtifactError, DeviceError, KeyError, TypeError) as error:
        fault = str(error)
    message = f"Cache entry {path} is damaged ({fault}); reading the device again."
    warnings.warn(message, CacheWarning, stacklevel=4)
    return None
