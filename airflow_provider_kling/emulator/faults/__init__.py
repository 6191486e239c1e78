"""What goes wrong at the emulator on request."""
