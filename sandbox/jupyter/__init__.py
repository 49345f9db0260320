"""What runs inside Jupyter: a provisioner of its kernels, and an extension of its server."""
