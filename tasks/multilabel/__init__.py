"""Several labels a picture."""
