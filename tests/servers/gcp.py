"""Google Secret Manager's REST interface for the tests, on Google's own generated messages: what is not one of them
does not parse. Holds requests to the rules of the documentation (names, labels, annotations, checksums, etags, states)
and to a service account's signature. `gcp.py FOLDER` writes FOLDER/credentials.json and FOLDER/address.

Besides, for the tests: GET and PUT /test/NAME shows and spoils a secret, POST /test/NAME/age makes its versions older.
"""

import base64
import json
import re
import secrets
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Lock, Thread
from urllib.parse import parse_qsl, urlsplit

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from google.cloud import secretmanager_v1 as sm
from google.protobuf import json_format

PROJECT = "tokens-1"
LOCK = Lock()
PROVIDER = "//iam.googleapis.com/projects/1/locations/global/workloadIdentityPools/pool/providers/cluster"
FEDERATED = set()  # access tokens that were given for tokens of a cluster
SECRETS = {}  # id: {"secret": Secret, "versions": [SecretVersion], "data": [bytes]}
CODES = {"NOT_FOUND": 404, "ALREADY_EXISTS": 409, "ABORTED": 409, "INVALID_ARGUMENT": 400, "FAILED_PRECONDITION": 400,
         "UNAUTHENTICATED": 401}


class Refused(Exception):
    def __init__(self, status, why):
        super().__init__(why)
        self.status = status


def crc32c(data):
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = (crc >> 1) ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def parsed(kind, fields):
    """Those fields as that message of Google's; anything else is an error."""
    try:
        return kind.wrap(json_format.ParseDict(fields, kind.pb()(), ignore_unknown_fields=False))
    except json_format.ParseError as error:
        raise Refused("INVALID_ARGUMENT", str(error)) from error


def printed(message):
    return json_format.MessageToDict(type(message).pb(message), use_integers_for_enums=True)


def checked(secret):
    for key, value in secret.labels.items():
        if not re.fullmatch(r"[a-z][a-z0-9_-]{0,62}", key) or not re.fullmatch(r"[a-z0-9_-]{0,63}", value):
            raise Refused("INVALID_ARGUMENT", f"label {key}={value}")
    for key in secret.annotations:
        if not re.fullmatch(r"[A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?", key):
            raise Refused("INVALID_ARGUMENT", f"annotation {key}")


def fresh(message):
    message.etag = f'"{time.time_ns():x}"'


def match(etag, message):
    if etag and etag != message.etag:
        raise Refused("ABORTED", "the etag is another")


def found(name):
    if name not in SECRETS:
        raise Refused("NOT_FOUND", f"Secret [{name}] not found")
    return SECRETS[name]


def version_of(name, number):
    here = found(name)
    if number == "latest":
        number = len(here["versions"])
    number = int(number)
    if not 1 <= number <= len(here["versions"]):
        raise Refused("NOT_FOUND", f"Secret Version [{number}] not found")
    return here["versions"][number - 1], here["data"][number - 1]


def create(request):
    whole = parsed(sm.CreateSecretRequest, request)
    if whole.parent != f"projects/{PROJECT}" or not re.fullmatch(r"[A-Za-z0-9_-]{1,255}", whole.secret_id):
        raise Refused("INVALID_ARGUMENT", "parent or id")
    if not sm.Replication.pb(whole.secret.replication).WhichOneof("replication"):
        raise Refused("INVALID_ARGUMENT", "replication is required")
    if whole.secret_id in SECRETS:
        raise Refused("ALREADY_EXISTS", "Secret exists")
    checked(whole.secret)
    whole.secret.name = f"{whole.parent}/secrets/{whole.secret_id}"
    fresh(whole.secret)
    SECRETS[whole.secret_id] = {"secret": whole.secret, "versions": [], "data": []}
    return printed(whole.secret)


def update(name, request):
    whole = parsed(sm.UpdateSecretRequest, request)
    here = found(name)["secret"]
    match(whole.secret.etag, here)
    paths = list(whole.update_mask.paths)
    if sorted(paths) != ["annotations", "labels"]:
        raise Refused("INVALID_ARGUMENT", f"mask {paths}")
    checked(whole.secret)
    for path in paths:
        setattr(here, path, dict(getattr(whole.secret, path)))
    fresh(here)
    return printed(here)


def grow(name, data, with_sum):
    here = found(name)
    version = sm.SecretVersion(name=f"projects/{PROJECT}/secrets/{name}/versions/{len(here['versions']) + 1}", state=1)
    version.client_specified_payload_checksum = with_sum
    version.create_time = {"seconds": int(time.time()) - here.get("age", 0)}
    fresh(version)
    here["versions"].append(version)
    here["data"].append(data)
    return version


def add(name, request):
    whole = parsed(sm.AddSecretVersionRequest, request)
    payload = whole.payload
    if len(payload.data) > 65536:
        raise Refused("INVALID_ARGUMENT", "the payload is larger than 64 KiB")
    if not sm.SecretPayload.pb(payload).HasField("data_crc32c") or payload.data_crc32c != crc32c(payload.data):
        raise Refused("INVALID_ARGUMENT", "the checksum is missing or another")
    return printed(grow(name, payload.data, True))


def access(name, number):
    version, data = version_of(name, number)
    if version.state != 1:
        raise Refused("FAILED_PRECONDITION", f"Secret Version is in {version.state.name} state")
    return printed(sm.AccessSecretVersionResponse(name=version.name, payload={"data": data, "data_crc32c": crc32c(data)}))


def turn(name, number, kind, state, request):
    whole = parsed(kind, request)
    version, _ = version_of(name, number)
    match(whole.etag, version)
    if version.state == 3:
        raise Refused("FAILED_PRECONDITION", "it is destroyed")
    version.state = state
    fresh(version)
    return printed(version)


def remove(name, request):
    match(parsed(sm.DeleteSecretRequest, request).etag, found(name)["secret"])
    del SECRETS[name]
    return {}


def listed(name, request):
    whole = parsed(sm.ListSecretVersionsRequest, request)
    newest = found(name)["versions"][::-1][: whole.page_size or 25000]
    return printed(sm.ListSecretVersionsResponse(versions=newest, total_size=len(newest)))


def asked(verb, path, query, body):
    """What the documentation says of that verb and path."""
    rest = path.removeprefix(f"/v1/projects/{PROJECT}/secrets")
    if rest == path:
        raise Refused("NOT_FOUND", path)
    if verb == "POST" and rest == "":
        return create({"parent": f"projects/{PROJECT}", "secret": body, **query})
    way = re.fullmatch(r"/([A-Za-z0-9_-]+)(?:/versions(?:/(latest|\d+))?)?(:[a-zA-Z]+)?", rest)
    if not way:
        raise Refused("NOT_FOUND", path)
    name, number, action = way.groups()
    whole = f"projects/{PROJECT}/secrets/{name}"
    if "/versions" not in rest:
        if (verb, action) == ("GET", None):
            parsed(sm.GetSecretRequest, {"name": whole, **query})
            return printed(found(name)["secret"])
        if (verb, action) == ("PATCH", None):
            return update(name, {"secret": body, **query})
        if (verb, action) == ("DELETE", None):
            return remove(name, {"name": whole, **query})
        if (verb, action) == ("POST", ":addVersion"):
            return add(name, {**body, "parent": whole, **query})
    elif number is None:
        if (verb, action) == ("GET", None):
            return listed(name, {"parent": whole, **query})
    else:
        version = f"{whole}/versions/{number}"
        if (verb, action) == ("GET", ":access"):
            parsed(sm.AccessSecretVersionRequest, {"name": version, **query})
            return access(name, number)
        if (verb, action) == ("POST", ":disable"):
            return turn(name, number, sm.DisableSecretVersionRequest, 2, {**body, "name": version, **query})
        if (verb, action) == ("POST", ":destroy"):
            return turn(name, number, sm.DestroySecretVersionRequest, 3, {**body, "name": version, **query})
    raise Refused("NOT_FOUND", f"{verb} {path}")


def testing(verb, path, body):
    _, _, name, *rest = path.split("/")
    if verb == "GET":
        if name not in SECRETS:
            return {}
        here = SECRETS[name]
        last = here["versions"][-1].state == 1 if here["versions"] else False
        return {"text": here["data"][-1].decode() if last else None, "labels": dict(here["secret"].labels),
                "annotations": dict(here["secret"].annotations), "states": [version.state.value for version in here["versions"]],
                "sums": [version.client_specified_payload_checksum for version in here["versions"]],
                "replication": printed(here["secret"].replication)}
    if rest == ["age"]:
        for version in found(name)["versions"]:
            version.create_time = {"seconds": int(version.create_time.timestamp()) - body["seconds"]}
        return {}
    if name not in SECRETS:
        create({"parent": f"projects/{PROJECT}", "secretId": name, "secret": {"replication": {"automatic": {}}}})
    if "text" in body:
        grow(name, body["text"].encode(), False)
    if "disable" in body:
        SECRETS[name]["versions"][-1].state = 2
    SECRETS[name]["secret"].annotations.update(body.get("annotations", {}))
    for label in body.get("unlabel", []):
        del SECRETS[name]["secret"].labels[label]
    fresh(SECRETS[name]["secret"])
    return {}


def signed(header):
    """A service account's own token (RFC 7523, with Google's claims), or one that was got for another's."""
    if header.removeprefix("Bearer ") in FEDERATED:
        return True
    try:
        head, claims, signature = header.removeprefix("Bearer ").split(".")
        decode = lambda text: base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
        KEY.public_key().verify(decode(signature), f"{head}.{claims}".encode(), padding.PKCS1v15(), hashes.SHA256())
        claims = json.loads(decode(claims))
        good = claims["iss"] == claims["sub"] == ACCOUNT and claims["exp"] > time.time() > claims["iat"] - 60
        return good and "cloud-platform" in (claims.get("scope") or "")
    except Exception:  # whatever it is, it is no login
        return False


def exchanged(fields):
    """Google's token exchange (RFC 8693) for a pool that trusts an issuer: the token's own claims name the principal."""
    wanted = {"grant_type": "urn:ietf:params:oauth:grant-type:token-exchange", "audience": PROVIDER,
              "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
              "requested_token_type": "urn:ietf:params:oauth:token-type:access_token"}
    if any(fields.get(key) != value for key, value in wanted.items()) or "cloud-platform" not in fields.get("scope", ""):
        return 400, {"error": "invalid_request", "error_description": "canary"}
    try:
        head, claims, _ = fields["subject_token"].split(".")
        claims = json.loads(base64.urlsafe_b64decode(claims + "=" * (-len(claims) % 4)))
        if claims["sub"] != "system:serviceaccount:tokenferry:gcp-login" or "https:" + PROVIDER not in claims["aud"] \
                or claims["exp"] <= time.time():
            return 400, {"error": "invalid_grant", "error_description": "canary"}
    except Exception:  # whatever it is, it is no token
        return 400, {"error": "invalid_grant", "error_description": "canary"}
    access = secrets.token_urlsafe(24)
    FEDERATED.add(access)
    return 200, {"access_token": access, "issued_token_type": wanted["requested_token_type"], "token_type": "Bearer", "expires_in": 3600}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def serve(self):
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        url = urlsplit(self.path)
        try:
            with LOCK:
                if url.path == "/sts/v1/token":
                    status, answer = exchanged(dict(parse_qsl(body.decode())))
                elif url.path.startswith("/test/"):
                    status, answer = 200, testing(self.command, url.path, json.loads(body) if body else {})
                else:
                    fields = json.loads(body) if body else {}
                    if not signed(self.headers.get("authorization", "")):
                        raise Refused("UNAUTHENTICATED", "no login")
                    query = {key: value for key, value in parse_qsl(url.query) if key != "$alt"}
                    status, answer = 200, asked(self.command, url.path, query, fields)
        except Refused as refused:
            status = CODES[refused.status]
            answer = {"error": {"code": status, "message": f"canary {refused}", "status": refused.status}}
        text = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json; charset=UTF-8")
        self.send_header("content-length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = serve

    def log_message(self, *_):
        pass


folder = Path(sys.argv[1])
ACCOUNT = f"tokenferry@{PROJECT}.iam.gserviceaccount.com"
KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)
pem = KEY.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()).decode()
credentials = {"type": "service_account", "project_id": PROJECT, "private_key_id": "k1", "private_key": pem, "client_email": ACCOUNT,
               "client_id": "1", "token_uri": "http://127.0.0.1:1/token", "universe_domain": "googleapis.com"}
(folder / "credentials.json").write_text(json.dumps(credentials))
server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
(folder / "address.new").write_text(f"http://127.0.0.1:{server.server_port}")
(folder / "address.new").rename(folder / "address")
# The end of the test's process closes our standard input.
Thread(target=server.serve_forever, daemon=True).start()
sys.stdin.read()
