"""The steps from one version of the tables to the next, run by Alembic."""

HEAD = "0020"
"""The version that this program needs: the last step's."""
