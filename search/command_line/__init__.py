"""What the user types and sees: flags, one-line errors, tables."""
