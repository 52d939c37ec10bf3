"""Files of any room: written whole or not at all, and opened without running code in them."""

import installation

installation.check()
