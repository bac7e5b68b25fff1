"""Small models for `scripts/kinds`: every kind of attention that a watch may meet."""
