"""What the emulated vendor answers, and its control plane."""
