"""`python -m manyface.config > docs/config.md`: the reference page of the recipe."""

import sys

from manyface.config import Config, render_page

sys.stdout.write(render_page(Config))
