"""Where a session's history is kept, behind Protocols: in memory here, durable stores obey the same ones."""
