"""The link: one framed byte stream to the supervisor of a container, with many streams in it."""
