"""One call, from what is asked to running code: checked, prepared, looked up, executed."""
