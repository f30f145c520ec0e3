"""The web console's page: what the browser is given. `orchestrator/api/console.py` serves it, and what it asks for.

No framework and no build step: `index.html`, one stylesheet, ES modules (begin with `static/js/main.js`). The chart
library alone comes from npm, into `static/vendor/` (scripts/console.sh); without it the page says so where charts would
be. Nothing in here is secret: the page is served to whoever asks, the data only to who signed in.
"""
