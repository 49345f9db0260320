"""The front: MCP tools and REST over a session manager. The only importer of ``mcp``."""
