"""What is measured: each embeds items under a load and says how that went."""
