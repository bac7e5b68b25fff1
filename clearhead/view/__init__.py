"""The interactive page that `clearhead view` opens, and its server, which needs the extra `view`."""
