"""Sessions: one caller's container each, opened, kept, expired, and found again after a crash."""
