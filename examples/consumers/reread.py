#!/usr/bin/env python3
"""Asks the API server who it is, again and again, with a token file that is rotated meanwhile.

    reread.py SERVER CA_FILE TOKEN_FILE [SECONDS_BETWEEN]

What to copy from here is `request`: the file is read for each request, which costs some microseconds, and once
more where the server says 401, in case the token was replaced between reading and sending.
"""

import json
import ssl
import sys
import time
import urllib.error
import urllib.request


def token(path):
    # White space at the ends is not part of a token, whoever wrote the file.
    with open(path, encoding="ascii") as file:
        return file.read().strip()


def request(url, context, path, body=None):
    data = None if body is None else json.dumps(body).encode()
    for attempt in ("first", "second"):
        headers = {"Authorization": "Bearer " + token(path), "Content-Type": "application/json"}
        try:
            with urllib.request.urlopen(urllib.request.Request(url, data, headers), context=context, timeout=30) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            if error.code != 401 or attempt == "second":
                raise


def main():
    server, ca, path = sys.argv[1:4]
    between = float(sys.argv[4]) if len(sys.argv) > 4 else 1.0
    context = ssl.create_default_context(cafile=ca)
    review = {"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}
    while True:
        answer = request(server + "/apis/authentication.k8s.io/v1/selfsubjectreviews", context, path, review)
        user = answer["status"]["userInfo"]
        # The API server names the token by its jti: this line changes when the token does.
        print(user["username"], *user.get("extra", {}).get("authentication.kubernetes.io/credential-id", []), flush=True)
        time.sleep(between)


if __name__ == "__main__":
    main()
