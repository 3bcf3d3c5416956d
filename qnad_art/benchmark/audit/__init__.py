"""What must hold before a figure of robustness is believed."""
