"""What a program does in a session over a channel: terminals, commands and cells, as they go on."""
