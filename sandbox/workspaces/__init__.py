"""Named workspaces: what is kept of ``/workspace`` from one session of a principal to its next."""
