"""The model server: one model version in one container. Start reading at `server/app.py`."""
