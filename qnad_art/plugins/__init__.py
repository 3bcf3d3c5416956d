"""Plugins: found by entry points, imported only on demand, and checked."""

from qnad_art.plugins.discovery import load_plugin as load_plugin
from qnad_art.plugins.discovery import plugin_names as plugin_names
from qnad_art.plugins.discovery import without_plugins as without_plugins
