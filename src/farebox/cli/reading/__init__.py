"""Reading files of usage: CSV, JSON lines and Parquet into events, as a mapping says."""
