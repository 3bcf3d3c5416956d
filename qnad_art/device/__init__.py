"""Device profiles: the calibration data of quantum processors, where it comes from, its names."""

from qnad_art.device.catalogue import device_names as device_names
from qnad_art.device.catalogue import load_device as load_device
from qnad_art.device.profile import DEFAULT_DEVICE as DEFAULT_DEVICE
from qnad_art.device.profile import DeviceProfile as DeviceProfile
from qnad_art.device.profile import Edge as Edge
from qnad_art.device.profile import Qubit as Qubit
