"""A user without a name or a home, as `docker --user 4711` and OpenShift make one: libraries ask for both."""

import os
import pwd


def name_person() -> None:
    """Set USER and HOME where neither the environment nor the system's list of users knows them.

    PyTorch asks for the name as it is imported, W&B and Ray for the home. It is the root then, as Docker has it, where
    nothing can be written: the caches that have to be elsewhere are named by the checks of each.
    """
    try:
        person = pwd.getpwuid(os.getuid())
        name, home = person.pw_name, person.pw_dir
    except KeyError:
        name, home = f"user{os.getuid()}", "/"
    if not any(os.environ.get(variable) for variable in ("LOGNAME", "USER", "LNAME", "USERNAME")):
        os.environ["USER"] = name
    if not os.environ.get("HOME"):
        os.environ["HOME"] = home or "/"
