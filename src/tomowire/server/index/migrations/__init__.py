"""Alembic migrations, from the first version of the index on. `versions/` is in the order of the revision numbers."""
