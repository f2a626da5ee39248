#!/bin/sh
# Asks the API server who it is, again and again, with the token that systemd loaded for this service.
set -eu

review='{"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}'
# Ends between two requests, never within one.
trap 'stop=yes' TERM
stop=
while [ -z "$stop" ]; do
    # Through a pipe: in an argument every user of the host could read it.
    answer=$(
        printf 'Authorization: Bearer %s\n' "$(cat "$CREDENTIALS_DIRECTORY/token")" |
            curl --fail --silent --show-error --cacert "$CREDENTIALS_DIRECTORY/ca.crt" --header @- \
                --header 'Content-Type: application/json' --data "$review" \
                "$SERVER/apis/authentication.k8s.io/v1/selfsubjectreviews"
    )
    # The API server names the token by its jti: this line changes when the token does.
    printf '%s' "$answer" | tr -d ' \n' |
        sed 's,.*"username":"\([^"]*\)".*"authentication.kubernetes.io/credential-id":\["\([^"]*\)".*,\1 \2\n,'
    sleep "${BETWEEN:-1}"
done
