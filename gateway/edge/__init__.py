"""HTTP connections: what clients may hold open, send and leave unread. uvicorn itself sets no such limits."""
