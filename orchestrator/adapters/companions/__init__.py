"""What runs beside the cluster to be looked at: Prometheus and Grafana. Nothing that serves rests on any of it.

`kinds.py` says what a companion is, `companion.py` keeps one of them: in a container (`containers.py`, its image from
`images.py`) or as a detached program (`programs.py`). `prometheus.py` and `grafana.py` say what the two run with.
"""
