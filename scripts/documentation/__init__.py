"""What the site needs beside its pages: docstrings as they are written, source pages, checks, a policy for browsers."""
