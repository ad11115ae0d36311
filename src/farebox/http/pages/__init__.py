"""The console: pages for the vendor, rendered on the server; `routes.handlers` has them all."""
