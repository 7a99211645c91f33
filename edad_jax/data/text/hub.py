# SPDX-License-Identifier: Apache-2.0
"""Whether the Hugging Face hub can be asked, decided within seconds.

The hub's own client tries many times with growing pauses before it says that there is no network,
and a user sees nothing of it. One short request first answers the same question.
"""

from __future__ import annotations

import os
import ssl
import urllib.error
import urllib.request

WAIT_SECONDS = 5.0


def is_hub_reachable() -> bool:
    """Returns whether the hub answers at all; False when HF_HUB_OFFLINE forbids to ask.

    Honours HF_ENDPOINT, HF_HUB_OFFLINE and the usual proxy variables. A certificate that this
    request does not trust counts as reachable: the hub's client may use other certificates.
    """
    if os.environ.get("HF_HUB_OFFLINE", "").strip().upper() in {"1", "ON", "YES", "TRUE"}:
        return False
    endpoint = os.environ.get("HF_ENDPOINT", "https://huggingface.co")
    request = urllib.request.Request(endpoint, method="HEAD")
    try:
        with urllib.request.urlopen(request, timeout=WAIT_SECONDS):
            return True
    except urllib.error.HTTPError:
        return True
    except urllib.error.URLError as error:
        return isinstance(error.reason, ssl.SSLError)
    except (OSError, ValueError):
        return False
