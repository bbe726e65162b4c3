"""Worker processes: one service, one port, as many processes as there are processors."""
