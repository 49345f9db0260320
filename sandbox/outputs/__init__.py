"""What code shows: collected within bounds, made plain, its secrets taken out."""
