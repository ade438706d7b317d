"""HTTP: the APIs that clients already speak, one module each, and what these have in common."""
