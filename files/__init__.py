"""Files of any room: written whole or not at all, and opened so that nothing in them is run."""

import installation

installation.check()
