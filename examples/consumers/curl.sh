#!/bin/sh
# Asks the API server who it is, again and again, with a token that is rotated meanwhile.
#
#     curl.sh SERVER CA_FILE TARGET|FILE [SECONDS_BETWEEN]
#
# What to copy from here is `api`: the token is asked for before each request, and goes to curl through a pipe
# (--header @-): in an argument every user of the host could read it.
set -eu

server=$1 ca=$2 from=$3 between=${4:-1}

# api METHOD PATH [BODY]
api() {
    token=$(tokenferry get "$from") || return
    printf 'Authorization: Bearer %s\n' "$token" |
        curl --fail --silent --show-error --cacert "$ca" --header @- --header 'Content-Type: application/json' \
            --request "$1" ${3:+--data "$3"} "$server$2"
}

review='{"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}'
while :; do
    answer=$(api POST /apis/authentication.k8s.io/v1/selfsubjectreviews "$review")
    # The API server names the token by its jti: this line changes when the token does.
    printf '%s' "$answer" | tr -d ' \n' |
        sed 's,.*"username":"\([^"]*\)".*"authentication.kubernetes.io/credential-id":\["\([^"]*\)".*,\1 \2\n,'
    sleep "$between"
done
