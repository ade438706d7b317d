"""What the service does with a request, whatever dialect it came in."""
