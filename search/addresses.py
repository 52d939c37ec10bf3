"""A key inside an address: the run's folder would keep it, and `ps` would show it."""

import re
from urllib.parse import unquote

_USER_AND_KEY = re.compile(r"://[^/@:]*:(?!\d+/)[^@]*@|^https?://[^/]*@")
"""A user and a key in a URL. S3 secrets may contain slashes; `host:9000/` is not a user and a key."""

_KEY = re.compile(r"secret|key|token|sig|pass|pwd|cred|jwt|hmac|bearer|auth(?!ority)", re.IGNORECASE)
"""In the names of a URL's parameters, after ?, # or ;: access_key, X-Amz-Signature, sig."""


def why_refused(address: str) -> str | None:
    """What is wrong with an address that holds a key, and the way out, without repeating the key; None for any other.

    To follow the name of the field that the address was given as.
    """
    whole = unquote(address)  # an endpoint in a parameter is a URL too, with %3A for its colon
    place, *parameters = re.split("[?#;&]", whole)
    secret = [words.partition("=")[0] for words in parameters if _KEY.search(words.partition("=")[0])]
    if "://" not in place or not (_USER_AND_KEY.search(whole) or secret):
        return None
    where = f"in its parameter {secret[0][:40]}" if secret else "before the @"
    return (f"is an address ({place.partition('://')[0]}://…) with a key {where}, which would be kept in the run's "
            "folder and shown by ps. Give the address without it, and set the key in the environment "
            "(AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, GOOGLE_APPLICATION_CREDENTIALS); or download the file and "
            "give its path.")
