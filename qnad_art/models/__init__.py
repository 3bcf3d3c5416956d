"""The networks that qnad_art knows by name, and files of their weights."""

from qnad_art.models.architectures import Architecture as Architecture
from qnad_art.models.architectures import ModelEntry as ModelEntry
from qnad_art.models.architectures import build_model as build_model
from qnad_art.models.code import find_model as find_model
from qnad_art.models.weights import load_model as load_model
from qnad_art.models.weights import load_weights as load_weights
from qnad_art.models.weights import save_weights as save_weights
