"""The files of a session, over its link."""
