import installation

installation.check()
