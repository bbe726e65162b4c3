"""pagewalk's service: simulated kernels behind HTTP and a websocket of their events."""
