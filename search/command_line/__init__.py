"""What a person types and sees: flags, one-line errors, tables."""
