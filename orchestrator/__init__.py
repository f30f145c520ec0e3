"""The control plane: decides what should run and makes it so. Start reading at `core/reconcile.py`."""
