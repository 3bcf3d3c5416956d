"""Data sets by name, and data sets from folders of images."""

from qnad_art.datasets.dataset import Dataset as Dataset
from qnad_art.datasets.dataset import load_dataset as load_dataset
