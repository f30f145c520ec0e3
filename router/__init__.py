"""The gateway: carries every prediction from clients to replicas. Start reading at `server.py`."""
