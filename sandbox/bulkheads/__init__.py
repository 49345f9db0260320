"""What keeps one session, or one caller, from taking what is there for all."""
