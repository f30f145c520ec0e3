"""One file a framework. `base.py` says what each must give."""
