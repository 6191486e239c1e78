"""The routes of the emulated vendor, and the control plane."""
