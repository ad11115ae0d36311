"""Usage events as they come in: CloudEvents, read, checked and named."""
