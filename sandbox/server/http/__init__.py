"""The HTTP API: every operation at a path of its own, beside MCP and from the same table."""
