"""Engine ``ibm-runtime`` of qnad-art: product circuits on IBM hardware."""
