"""A session as a Jupyter Server, at ``/jupyter/{session_id}/``."""
