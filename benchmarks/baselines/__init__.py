"""What the project is measured against: written plainly, kept as they are, never tuned."""
