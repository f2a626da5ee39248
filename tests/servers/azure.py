"""Azure Key Vault's REST interface for secrets (api-version 2025-07-01) and Entra ID's token endpoint for the tests, over
TLS. No generated messages of Microsoft's hold a wrong request off, so each one is held here to the documented API: verb,
path, api-version, headers, every key of the body and its type, limits, states, and the login that was handed out.

`azure.py FOLDER` writes FOLDER/ca.pem, FOLDER/assertion (a cluster's token), FOLDER/secret and FOLDER/address.

Besides, for the tests: GET and PUT /test/secrets/NAME shows and spoils a secret, DELETE /test/secrets/NAME purges it, PUT
/test/answers/NAME has its requests answered otherwise, PUT /test/entra sets what the login trusts.
"""

import json
import re
import secrets
import ssl
import sys
import time
from datetime import datetime, timedelta, timezone
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from pathlib import Path
from threading import Lock, Thread
from urllib.parse import parse_qs, parse_qsl, urlsplit

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from joserfc import jwt
from joserfc.jwk import KeySet, RSAKey

VERSION = "2025-07-01"
RESOURCE = "https://vault.test"
TENANT, CLIENT, IDENTITY = "11111111-2222-3333-4444-555555555555", "66666666-7777-8888-9999-000000000000", "identity-key"
FEDERATED = {"iss": "https://cluster.test", "sub": "system:serviceaccount:tokenferry:azure-login", "aud": "api://AzureADTokenExchange"}
LOCK = Lock()
SECRETS, DELETED, ANSWERS = {}, {}, {}  # name: [version], the last one in use
ENTRA = {"federated": True, "trusted": FEDERATED, "keys": {}, "error": None, "resource": RESOURCE, "logins": 0}
LOGINS = {}


class Refused(Exception):
    def __init__(self, status, code, why, inner=None, headers=None):
        super().__init__(why)
        error = {"code": code, "message": f"canary {why}"}
        if inner:
            error["innererror"] = {"code": inner}
        self.status, self.body, self.headers = status, {"error": error}, headers or {}


def bad(why):
    return Refused(400, "BadParameter", why)


def typed(body, kinds, required=()):
    """That object has no key but these, each of its type."""
    if not isinstance(body, dict):
        raise bad("no object")
    for key, value in body.items():
        kind = kinds.get(key)
        if kind is None or not isinstance(value, kind) or kind is int and isinstance(value, bool):
            raise bad(f"property {key}")
    for key in required:
        if key not in body:
            raise bad(f"{key} is missing")


def checked(body):
    attributes, tags = body.get("attributes", {}), body.get("tags", {})
    typed(attributes, {"enabled": bool, "exp": int, "nbf": int})
    typed(tags, dict.fromkeys(tags, str))
    if len(tags) > 15 or any(len(text) > 256 for pair in tags.items() for text in pair):
        raise bad("tags")
    return attributes, tags


def shown(name, version, value=True):
    keys = ["id", "attributes", "tags"] + (["value"] if value else [])
    whole = {**version, "id": f"{ADDRESS}/secrets/{name}/{version['id']}"}
    return {key: whole[key] for key in keys}


def made(value, attributes, tags):
    now = int(time.time())
    attributes = {"enabled": True, **attributes, "created": now, "updated": now, "recoveryLevel": "Recoverable+Purgeable", "recoverableDays": 90}
    return {"id": secrets.token_hex(16), "value": value, "attributes": attributes, "tags": tags}


def found(name):
    if name not in SECRETS:
        raise Refused(404, "SecretNotFound", f"A secret with (name/id) {name} was not found in this key vault.")
    return SECRETS[name]


def put(name, body):
    typed(body, {"value": str, "tags": dict, "contentType": str, "attributes": dict}, ["value"])
    attributes, tags = checked(body)
    if len(body["value"].encode()) > 25000:
        raise bad("the value is longer than 25k")
    if name in DELETED:
        raise Refused(409, "Conflict", f"Secret {name} is currently in a deleted but recoverable state", "ObjectIsDeletedButRecoverable")
    version = made(body["value"], attributes, tags)
    SECRETS.setdefault(name, []).append(version)
    return shown(name, version)


def get(name, number):
    version = next((version for version in found(name) if version["id"] == number), None) if number else found(name)[-1]
    if version is None:
        raise Refused(404, "SecretNotFound", "no such version")
    if not version["attributes"]["enabled"]:
        raise Refused(403, "Forbidden", "Operation get is not allowed on a disabled secret.", "SecretDisabled")
    return shown(name, version)


def patch(name, number, body):
    typed(body, {"tags": dict, "contentType": str, "attributes": dict})
    attributes, tags = checked(body)
    version = next((version for version in found(name) if version["id"] == number), None)
    if version is None:
        raise Refused(404, "SecretNotFound", "no such version")
    version["attributes"].update(attributes, updated=int(time.time()))
    if "tags" in body:
        version["tags"] = tags
    return shown(name, version, False)


def listed(name, query):
    most = int(query.pop("maxresults", 25))
    if not 1 <= most <= 25:
        raise bad("maxresults")
    start = int(query.pop("$skiptoken", 0))
    versions = sorted(found(name), key=lambda version: version["id"])
    rest = f"{ADDRESS}/secrets/{name}/versions?api-version={VERSION}&$skiptoken={start + most}"
    return {"value": [shown(name, version, False) for version in versions[start:start + most]],
            "nextLink": rest if start + most < len(versions) else None}


def delete(name):
    versions = found(name)
    DELETED[name] = SECRETS.pop(name)
    return {"recoveryId": f"{ADDRESS}/deletedsecrets/{name}", "deletedDate": int(time.time()),
            "scheduledPurgeDate": int(time.time()) + 90 * 86400, **shown(name, versions[-1], False)}


def vault(verb, path, query, headers, body):
    way = re.fullmatch(r"/secrets/([0-9a-zA-Z-]{1,127})(?:/(versions|[0-9a-f]{32})?)?", path)
    if not way:
        raise Refused(404, "NotFound", path)
    name, part = way.group(1).lower(), way.group(2)
    if name in ANSWERS:
        return None
    if query.pop("api-version", None) != VERSION:
        raise bad("api-version")
    login = headers.get("authorization", "").removeprefix("Bearer ")
    if LOGINS.get(login, 0) < time.time():
        if body:
            raise bad("a body came before the login")
        challenge = f'Bearer authorization="{ADDRESS}/{TENANT}", resource="{ENTRA["resource"]}"'
        raise Refused(401, "Unauthorized", "no login", headers={"www-authenticate": challenge})
    if headers.get("accept") != "application/json":
        raise bad("accept")
    if verb in ("PUT", "PATCH"):
        if headers.get("content-type") != "application/json":
            raise bad("content-type")
        body = json.loads(body)
    elif body:
        raise bad(f"{verb} has a body")
    if (verb, part) == ("PUT", None):
        answer = put(name, body)
    elif verb == "PATCH" and part not in (None, "versions"):
        answer = patch(name, part, body)
    elif (verb, part) == ("GET", "versions"):
        answer = listed(name, query)
    elif verb == "GET":
        answer = get(name, part)
    elif (verb, part) == ("DELETE", None):
        answer = delete(name)
    else:
        raise Refused(405, "MethodNotAllowed", f"{verb} {path}")
    if query:
        raise bad(f"query {query}")
    return answer


def federated(assertion):
    try:
        claims = jwt.decode(assertion, KeySet.import_key_set(ENTRA["keys"]), algorithms=["RS256", "ES256"]).claims
    except Exception:  # whatever it is, it is no token of the cluster
        raise entra(400, 50027, "invalid JWT token")
    if claims["exp"] < time.time():
        raise entra(401, 700024, "Client assertion is not within its valid time range")
    if isinstance(claims["aud"], list) and len(claims["aud"]) == 1:
        claims["aud"] = claims["aud"][0]
    if not ENTRA["federated"] or any(claims.get(key) != value for key, value in ENTRA["trusted"].items()):
        raise entra(401, 700213, "No matching federated identity record found for presented assertion subject")


def entra(status, code, why):
    refused = Refused(status, "", "")
    refused.body = {"error": "invalid_client", "error_codes": [code], "error_description": f"AADSTS{code}: canary {why}"}
    return refused


def handed_out():
    ENTRA["logins"] += 1
    token = f"login-{secrets.token_urlsafe(40)}"
    LOGINS[token] = time.time() + 3600
    return token


def login(headers, body):
    if ENTRA["error"]:
        status, code = ENTRA["error"]
        raise entra(status, code, "as the test wants it")
    if headers.get("content-type") != "application/x-www-form-urlencoded":
        raise entra(400, 900144, "content-type")
    form = {key: value for key, [value] in parse_qs(body.decode(), strict_parsing=True).items()}
    if form.pop("grant_type", None) != "client_credentials" or form.pop("scope", None) != f"{RESOURCE}/.default":
        raise entra(400, 70011, "grant or scope")
    if form.pop("client_id", None) != CLIENT:
        raise entra(400, 700016, "Application was not found in the directory")
    if form.keys() == {"client_assertion", "client_assertion_type"}:
        if form["client_assertion_type"] != "urn:ietf:params:oauth:client-assertion-type:jwt-bearer":
            raise entra(400, 90002, "assertion type")
        federated(form["client_assertion"])
    elif form != {"client_secret": SECRET}:
        raise entra(401, 7000215, "Invalid client secret provided")
    return {"token_type": "Bearer", "expires_in": 3599, "ext_expires_in": 3599, "access_token": handed_out()}


def identity(headers, query):
    """App Service's endpoint for managed identities."""
    if headers.get("x-identity-header") != IDENTITY or query.get("api-version") != "2019-08-01" or query.get("resource") != RESOURCE:
        raise Refused(400, "invalid_request", "identity")
    return {"access_token": handed_out(), "expires_on": str(int(time.time()) + 3600), "token_type": "Bearer", "resource": RESOURCE}


def testing(verb, path, body):
    _, _, kind, *rest = path.split("/")
    if kind == "entra":
        if verb == "PUT":
            ENTRA.update(json.loads(body))
            if ENTRA.pop("forget", False):
                LOGINS.clear()
        return ENTRA
    name = rest[0].lower()
    if kind == "answers":
        ANSWERS[name] = json.loads(body)
        return {}
    if verb == "DELETE":
        DELETED.pop(name, None)
    elif verb == "PUT":
        fields = json.loads(body)
        if "text" in fields:
            SECRETS.setdefault(name, []).append(made(fields["text"], {}, {}))
        if "tags" in fields:
            SECRETS[name][-1]["tags"].update(fields["tags"])
        SECRETS[name][-1]["attributes"].update(fields.get("attributes", {}))
    versions = SECRETS.get(name)
    if not versions:
        return {"deleted": name in DELETED}
    last = versions[-1]
    return {"text": last["value"] if last["attributes"]["enabled"] else None, "tags": last["tags"], "attributes": last["attributes"],
            "enabled": [version["attributes"]["enabled"] for version in versions]}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def serve(self):
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        url, headers = urlsplit(self.path), {key.lower(): value for key, value in self.headers.items()}
        query, more = dict(parse_qsl(url.query)), {}
        try:
            with LOCK:
                if url.path.startswith("/test/"):
                    status, answer = 200, testing(self.command, url.path, body)
                elif (self.command, url.path) == ("POST", f"/{TENANT}/oauth2/v2.0/token"):
                    status, answer = 200, login(headers, body)
                elif (self.command, url.path) == ("GET", "/identity"):
                    status, answer = 200, identity(headers, query)
                else:
                    status, answer = 200, vault(self.command, url.path, query, headers, body)
        except Refused as refused:
            status, answer, more = refused.status, refused.body, refused.headers
        if answer is None:
            other = ANSWERS[url.path.split("/")[2].lower()]
            status, more, text = other["status"], other["headers"], other["body"].encode()
        else:
            text = json.dumps(answer).encode()
            more.setdefault("content-type", "application/json; charset=utf-8")
        self.send_response(status)
        for name, value in more.items():
            self.send_header(name, value)
        self.send_header("content-length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = serve

    def log_message(self, *_):
        pass


def certified(folder):
    """A CA, and a certificate of it for this machine."""
    now = datetime.now(timezone.utc)

    def one(subject, issuer, key, signer, more):
        name = lambda text: x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])
        builder = x509.CertificateBuilder().subject_name(name(subject)).issuer_name(name(issuer)).public_key(key.public_key())
        builder = builder.serial_number(x509.random_serial_number()).not_valid_before(now - timedelta(hours=1))
        builder = builder.not_valid_after(now + timedelta(days=2))
        for extension, critical in more:
            builder = builder.add_extension(extension, critical)
        return builder.sign(signer, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)

    root, own = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    (folder / "ca.pem").write_bytes(one("tests", "tests", root, root, [(x509.BasicConstraints(ca=True, path_length=None), True)]))
    names = x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))])
    pem = own.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (folder / "server.pem").write_bytes(pem + one("vault", "tests", own, root, [(names, False)]))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "server.pem")
    return context


folder = Path(sys.argv[1])
KEY = RSAKey.generate_key(2048, {"kid": "tests"})
ENTRA["keys"] = {"keys": [KEY.as_dict(private=False)]}
SECRET = secrets.token_urlsafe(30)
now = int(time.time())
for name, end in [("assertion", now + 86400), ("ended", now - 100)]:
    (folder / name).write_text(jwt.encode({"alg": "RS256", "kid": "tests"}, {**FEDERATED, "iat": now - 200, "exp": end}, KEY))
(folder / "secret").write_text(SECRET + "\n")
server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
server.handle_error = lambda *_: None  # a client that does not trust us says so itself
# The handshake is the business of each connection's own thread.
server.socket = certified(folder).wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
ADDRESS = f"https://127.0.0.1:{server.server_port}"
(folder / "address.new").write_text(ADDRESS)
(folder / "address.new").rename(folder / "address")
# The end of the test's process closes our standard input.
Thread(target=server.serve_forever, daemon=True).start()
sys.stdin.read()
