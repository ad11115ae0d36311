"""One file a verb: one transaction that reads, decides and writes."""
