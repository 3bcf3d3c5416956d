"""The quickstart: a complete demonstration on data that is always available."""

from qnad_art.quickstart.results import QuickstartSettings as QuickstartSettings
from qnad_art.quickstart.story import run_quickstart as run_quickstart
from qnad_art.quickstart.story import save_quickstart as save_quickstart
