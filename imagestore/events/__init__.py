"""The event catalogue, the journal, the state and its fold."""
