"""The example models: trained where they are served, from data that ships in Python packages."""
