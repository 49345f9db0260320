"""Containers through a broker, for a controller that may not speak to the engine itself."""
