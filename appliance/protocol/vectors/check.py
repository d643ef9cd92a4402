#!/usr/bin/env python3
"""Reads every test vector with CBOR and COSE written by others, and with none of this project's code.

    pip install cbor2 cryptography pycose pycddl
    python3 check.py

Written from SPEC.md alone: cbor2 decodes, cryptography does P-256, AES-GCM, HKDF and X.509, and pycose, a second
COSE implementation, verifies every COSE_Sign1 and opens every COSE_Encrypt0 and COSE_Encrypt that is accepted;
pycddl finds whatever is accepted in the grammar of bwc.cddl.
A case passes when the verdict is the one that stands in the file: the same fields where it is accepted,
the same reason where it is refused. Nothing is passed over: each case is judged. Ends with `N passed, M failed`;
exit status 1 where M is not 0.
"""

import hashlib
import json
import re
import sys
from pathlib import Path

import cbor2
from cryptography import x509
from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.keywrap import InvalidUnwrap, aes_key_unwrap
from cryptography.x509.oid import ExtendedKeyUsageOID
from pycddl import Schema
from pycose.algorithms import EcdhEsA256KW
from pycose.headers import Algorithm as CoseAlgorithm
from pycose.keys import EC2Key, SymmetricKey
from pycose.keys.curves import P256
from pycose.messages import CoseMessage

HERE = Path(__file__).resolve().parent
KEYS = json.loads((HERE / "keys.json").read_text())

# SPEC.md, "Limits".
MANIFEST_BYTES, PAGE_BYTES, RECEIPT_BYTES = 48 * 1024, 48 * 1024, 4 * 1024
KEY_LIST_BYTES, HEADER_BYTES, PROOF_BYTES = 32 * 1024, 16 * 1024, 12 * 1024
LOGBOOK_HEAD_BYTES, COUNTERSIGNATURE_BYTES = 12 * 1024, 4 * 1024
FOOTAGE_BYTES, SEGMENT_BYTES, FRAME_BYTES = 4 * 1024 * 1024, 4 * 1024 * 1024 + 64, 64 * 1024
RECORDING_SEGMENTS, CHAIN_CERTIFICATES, CHAIN_BYTES = 1 << 22, 4, 8 * 1024

ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
EVIDENCE = x509.ObjectIdentifier("1.3.6.1.4.1.59999.1.1")
USAGES = {
    "repeater": ExtendedKeyUsageOID.CLIENT_AUTH,
    "archive": ExtendedKeyUsageOID.SERVER_AUTH,
    "camera": ExtendedKeyUsageOID.SERVER_AUTH,
    "device": EVIDENCE,
}


class Refused(Exception):
    """The reason, as in SPEC.md, "Reasons"."""


def need(condition, reason):
    if not condition:
        raise Refused(reason)


def sha256(data):
    return hashlib.sha256(data).digest()


# ---------------------------------------------------------------- CBOR: one item, and nothing after it


def one_item(data, reason="malformed"):
    try:
        value = cbor2.loads(data)
    except Exception:
        raise Refused(reason) from None
    # No CBOR item begins with another: where one byte less is an item too, something follows it.
    try:
        cbor2.loads(data[:-1])
    except Exception:
        return value
    raise Refused(reason)


# A reader of a field: takes a CBOR value, gives the JSON of `fields`, or refuses the form.


def uint(bits):
    def read(value):
        need(type(value) is int and 0 <= value < 1 << bits, "malformed")
        return value

    return read


def sint(bits):
    def read(value):
        need(type(value) is int and -(1 << bits - 1) <= value < 1 << bits - 1, "malformed")
        return value

    return read


def boolean(value):
    need(type(value) is bool, "malformed")
    return value


def text(value):
    need(type(value) is str, "malformed")
    return value


def name(value):
    need(type(value) is str and re.fullmatch(r"(?!\.)[A-Za-z0-9._-]{1,64}", value), "malformed")
    return value


def octets(length=None):
    def read(value):
        need(type(value) is bytes and length in (None, len(value)), "malformed")
        return value.hex()

    return read


def one_of(*names):
    def read(value):
        need(type(value) is int and 0 <= value < len(names), "malformed")
        return names[value]

    return read


def several(item):
    def read(value):
        need(type(value) is list, "malformed")
        return [item(v) for v in value]

    return read


def row(*items):
    def read(value):
        need(type(value) is list and len(value) >= len(items), "malformed")
        return [item(v) for item, v in zip(items, value)]

    return read


def table(fields, optional=()):
    """A map with the keys of `fields`, {key: (name, reader)}; other keys are passed over."""

    def read(value):
        need(type(value) is dict, "malformed")
        out = {}
        for key, (field, reader) in fields.items():
            if value.get(key) is not None:
                out[field] = reader(value[key])
            else:
                need(field in optional, "malformed")
        return out

    return read


DIGEST, TIME = octets(32), uint(64)
RANGE = row(uint(64), uint(64))
CAMERA = row(name, octets(16))
RECORDING = row(CAMERA, uint(64))
CLASS = one_of("routine", "flagged", "urgent")

MANIFEST = table(
    {
        1: ("version", uint(16)),
        2: ("recording", RECORDING),
        3: ("index", uint(32)),
        4: ("previous", DIGEST),
        5: ("header", row(DIGEST, uint(32))),
        6: ("segments", several(row(uint(64), uint(32), DIGEST))),
        7: ("captured_from", TIME),
        8: ("captured_to", TIME),
        9: ("class", CLASS),
        10: ("policy", table({1: ("k", uint(8)), 2: ("sites", several(name))})),
        11: ("end", row(uint(64), one_of("stopped", "interrupted"))),
        12: ("clock_unset", boolean),
        13: ("clock_offset_ms", sint(64)),
    },
    optional=("previous", "end", "clock_offset_ms"),
)
HELD = table(
    {
        1: ("number", uint(64)),
        2: ("manifest", DIGEST),
        3: ("index", uint(32)),
        4: ("bytes", uint(64)),
        5: ("receipted", several(RANGE)),
        6: ("erased", several(RANGE)),
    }
)
PAGE = table(
    {
        1: ("version", uint(16)),
        2: ("camera", CAMERA),
        3: ("number", uint(64)),
        4: ("page", uint(32)),
        5: ("pages", uint(32)),
        6: ("next_recording", uint(64)),
        7: ("held", several(HELD)),
        8: ("released", several(row(RANGE, DIGEST))),
        9: ("overwritten", several(RANGE)),
        10: ("made", TIME),
    }
)
RECEIPT = table(
    {
        1: ("version", uint(16)),
        2: ("site", name),
        3: ("epoch", octets(16)),
        4: ("recording", RECORDING),
        5: ("header", DIGEST),
        6: ("segments", several(DIGEST)),
        7: ("verdict", one_of("stored", "expired")),
        8: ("signed", TIME),
        9: ("manifests", several(DIGEST)),
    }
)
STATE = one_of("active", "retired", "revoked")
KEY_LIST = table(
    {
        1: ("version", uint(16)),
        2: ("number", uint(64)),
        3: (
            "receipt_keys",
            several(table({1: ("site", name), 2: ("public_key", octets()), 3: ("state", STATE)})),
        ),
        4: (
            "recipients",
            several(
                table({1: ("role", one_of("archive", "escrow")), 2: ("public_key", octets()), 3: ("state", STATE)})
            ),
        ),
        5: ("void_epochs", several(row(name, octets(16)))),
        6: ("suspended", several(name)),
    }
)
PRIVATE = table(
    {
        1: ("content_key", octets(32)),
        2: ("media_type", text),
        3: ("officer", text),
        4: ("case", text),
        5: ("position", row(sint(32), sint(32))),
        6: ("muted", boolean),
    },
    optional=("media_type", "officer", "case", "position", "muted"),
)
OBJECT = table({1: ("object", octets())})
REPEATER = row(name, uint(16))
HEAD = row(octets(16), uint(64), DIGEST)
LOGBOOK_HEAD = table(
    {1: ("version", uint(16)), 2: ("repeater", REPEATER), 3: ("head", HEAD), 4: ("signed", TIME)}
)
COUNTERSIGNATURE = table(
    {
        1: ("version", uint(16)),
        2: ("site", name),
        3: ("repeater", REPEATER),
        4: ("head", HEAD),
        5: ("told", TIME),
        6: ("signed", TIME),
    }
)
VERDICT = one_of("signed", "behind", "forked", "refused", "unavailable")
REASON = one_of(
    "wrong-digest", "bad-signature", "unknown-recipient", "not-my-site", "malformed", "not-wanted", "store-failed",
    "version",
)
VERSIONS = several(uint(16))
MESSAGES = {
    1: (
        "repeater-hello",
        table(
            {
                1: ("versions", VERSIONS),
                2: ("software", text),
                3: ("key_list", octets()),
                4: ("now", TIME),
                5: ("docked", boolean),
                6: ("now_error_ms", uint(64)),
            },
            optional=("key_list", "now_error_ms"),
        ),
    ),
    2: (
        "camera-hello",
        table(
            {
                1: ("versions", VERSIONS),
                2: ("software", text),
                3: ("proof", octets()),
                4: ("incarnation", octets(16)),
                5: ("key_list", uint(64)),
                6: ("now", TIME),
                7: ("battery_percent", uint(8)),
                8: ("charging", boolean),
                9: ("free_bytes", uint(64)),
                10: ("firmware", text),
            },
            optional=("now", "battery_percent", "charging"),
        ),
    ),
    3: (
        "archive-hello",
        table(
            {
                1: ("versions", VERSIONS),
                2: ("software", text),
                3: ("key_list", octets()),
                4: ("site", name),
                5: ("epoch", octets(16)),
                6: ("now", TIME),
            },
            optional=("key_list",),
        ),
    ),
    4: ("inventory", OBJECT),
    5: ("want-manifests", table({1: ("number", uint(64)), 2: ("from_index", uint(32))})),
    6: ("manifest", OBJECT),
    7: ("pull", table({1: ("digest", DIGEST), 2: ("offset", uint(64))})),
    8: ("bytes", table({1: ("length", uint(64))})),
    9: ("release", table({1: ("receipts", several(octets()))})),
    10: (
        "released",
        table({1: ("number", uint(64)), 2: ("digests", several(DIGEST)), 3: ("refused", several(DIGEST))}),
    ),
    16: ("offer", OBJECT),
    17: ("want", table({1: ("manifest", DIGEST), 2: ("digests", several(DIGEST)), 3: ("grant", uint(32))})),
    18: ("put", table({1: ("manifest", DIGEST), 2: ("digest", DIGEST)})),
    19: ("receipt", OBJECT),
    20: ("busy", table({1: ("about", DIGEST), 2: ("class", CLASS), 3: ("retry_after_ms", uint(64))})),
    21: ("refused", table({1: ("about", DIGEST), 2: ("reason", REASON), 3: ("text", text)})),
    35: ("logbook-head", OBJECT),
    36: (
        "countersignature",
        table(
            {1: ("about", DIGEST), 2: ("verdict", VERDICT), 3: ("signature", octets()), 4: ("text", text)},
            optional=("signature",),
        ),
    ),
    62: ("unsupported", table({1: ("number", uint(16))})),
    63: ("error", table({1: ("code", uint(32)), 2: ("text", text)})),
}

# ---------------------------------------------------------------- keys and certificates


def on_curve(point):
    try:
        return bool(ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), point))
    except ValueError:
        return False


def public_key(point):
    need(len(point) == 65 and point[0] == 4, "invalid")
    return ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), point)


def key_id(point):
    return sha256(point)[:16]


def private_key(key):
    return ec.derive_private_key(int(KEYS["keys"][key]["scalar"], 16), ec.SECP256R1())


def point_of(key):
    return bytes.fromhex(KEYS["keys"][key]["public"])


def identity(leaf):
    """The role and the URN of exactly one URI."""
    try:
        names = list(leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value)
    except x509.ExtensionNotFound:
        names = []
    need(len(names) == 1 and isinstance(names[0], x509.UniformResourceIdentifier), "signer: san")
    word = r"(?!\.)[A-Za-z0-9._-]{1,64}"
    urn = re.fullmatch(rf"urn:bwc:(repeater:{word}:(?:0|[1-9][0-9]*)|(?:archive|camera|device):{word})", names[0].value)
    need(urn, "signer: san")
    return names[0].value.split(":")[2], names[0].value


def signed_by(certificate, issuer):
    try:
        certificate.verify_directly_issued_by(issuer)
        return issuer.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except (ValueError, TypeError, InvalidSignature, x509.ExtensionNotFound):
        return False


def check_revocation(path, anchor, revocation):
    """Every certificate of the path stands in no list of its issuer, and every issuer has a list."""
    lists = [x509.load_der_x509_crl(bytes.fromhex(c)) for c in KEYS["revocation-lists"][revocation]]
    for certificate, issuer in zip(path, path[1:] + [anchor]):
        own = [c for c in lists if c.is_signature_valid(issuer.public_key()) and c.issuer == issuer.subject]
        need(own, "signer: revocation_unknown")
        found = any(c.get_revoked_certificate_by_serial_number(certificate.serial_number) for c in own)
        need(not found, "signer: revoked")


def verify_chain(ders, role, root="root", revocation=None):
    """The leaf's URN and key point. No dates, and revocation lists only of that name: evidence is judged so."""
    fits = 1 <= len(ders) <= CHAIN_CERTIFICATES and sum(map(len, ders)) <= CHAIN_BYTES
    need(fits, "signer: chain_too_long")
    try:
        leaf, *issuers = [x509.load_der_x509_certificate(d) for d in ders]
    except ValueError:
        raise Refused("signer: malformed") from None
    issuers.append(x509.load_der_x509_certificate(bytes.fromhex(KEYS["roots"][root])))
    anchor, at, usable, path = issuers[-1], leaf, issuers[:-1], [leaf]
    while not signed_by(at, anchor):
        following = next((i for i in usable if signed_by(at, i)), None)
        need(following is not None, "signer: unknown_ca")
        usable.remove(following)
        path.append(following)
        at = following
    if revocation:
        check_revocation(path, anchor, revocation)
    key = leaf.public_key()
    need(isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, ec.SECP256R1), "signer: algorithm")
    need(isinstance(leaf.signature_hash_algorithm, SHA256), "signer: algorithm")
    try:
        usages = list(leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value)
    except x509.ExtensionNotFound:
        usages = []
    need(USAGES[role] in usages, "signer: wrong_usage")
    found, urn = identity(leaf)
    need(found == role, "signer: wrong_role")
    return urn, key.public_numbers(), leaf


def point(numbers):
    return b"\x04" + numbers.x.to_bytes(32, "big") + numbers.y.to_bytes(32, "big")


# ---------------------------------------------------------------- COSE


def tagged(data, tag, parts):
    value = one_item(data)
    need(isinstance(value, cbor2.CBORTag) and value.tag == tag, "malformed")
    need(type(value.value) is list and len(value.value) == parts, "malformed")
    return value.value


def header_map(protected):
    need(type(protected) is bytes, "malformed")
    value = one_item(protected) if protected else {}
    need(type(value) is dict and 2 not in value, "malformed")
    return value


def sign1(data, limit):
    """The parts of a COSE_Sign1 in its one allowed encoding, not verified yet."""
    need(len(data) <= limit, "too-long")
    protected, unprotected, payload, signature = parts = tagged(data, 18, 4)
    headers = header_map(protected)
    need(headers.get(1) == -7 and unprotected == {}, "malformed")
    need(type(payload) is bytes and type(signature) is bytes, "malformed")
    # Two-byte lengths and the like: the shortest form is the only one.
    need(b"\xd2" + cbor2.dumps(parts) == data, "malformed")
    return headers, protected, payload, signature


def verify_sign1(data, parts, kind, key_point):
    _, protected, payload, signature = parts
    need(len(signature) == 64, "bad-signature")
    r, s = int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:], "big")
    need(s <= ORDER // 2, "bad-signature")
    to_sign = cbor2.dumps(["Signature1", protected, kind.encode(), payload])
    try:
        public_key(key_point).verify(encode_dss_signature(r, s), to_sign, ec.ECDSA(SHA256()))
    except InvalidSignature:
        raise Refused("bad-signature") from None
    message = CoseMessage.decode(data)
    message.external_aad = kind.encode()
    message.key = EC2Key(crv=P256, x=key_point[1:33], y=key_point[33:])
    assert message.verify_signature(), "pycose says otherwise"
    return payload


def evidence(data, kind, limit, revocation=None, role="device"):
    """The payload, and who signed: a device's serial, a repeater's station and number."""
    parts = sign1(data, limit)
    chain = parts[0].get(33)
    chain = [chain] if type(chain) is bytes else chain
    good = type(chain) is list and len(chain) <= CHAIN_CERTIFICATES and all(type(c) is bytes for c in chain)
    need(good, "malformed")
    urn, numbers, _ = verify_chain(chain, role, revocation=revocation)
    return verify_sign1(data, parts, kind, point(numbers)), urn.split(":", 3)[3]


def statement(data, kind, limit, find):
    """The payload of what a key of the list or the root signed; `find` gives the key's point for its id."""
    parts = sign1(data, limit)
    kid = parts[0].get(4)
    need(type(kid) is bytes and len(kid) == 16, "malformed")
    return verify_sign1(data, parts, kind, find(kid))


def encrypt0(data, key, aad, iv):
    need(len(data) <= SEGMENT_BYTES, "too-long")
    protected, unprotected, ciphertext = tagged(data, 16, 3)
    need(header_map(protected).get(1) == 3, "malformed")
    need(type(unprotected) is dict and unprotected.get(5) == iv and type(ciphertext) is bytes, "malformed")
    structure = cbor2.dumps(["Encrypt0", protected, aad])
    try:
        plain = AESGCM(key).decrypt(iv, ciphertext, structure)
    except InvalidTag:
        raise Refused("unopened") from None
    message = CoseMessage.decode(data)
    message.external_aad, message.key = aad, SymmetricKey(k=key)
    assert message.decrypt() == plain, "pycose says otherwise"
    return plain


def encrypt(data):
    """The parts of a header, its form checked without a key."""
    need(len(data) <= HEADER_BYTES, "too-long")
    protected, unprotected, ciphertext, recipients = parts = tagged(data, 96, 4)
    need(header_map(protected).get(1) == 3 and type(unprotected) is dict, "malformed")
    need(type(unprotected.get(5)) is bytes and len(unprotected[5]) == 12, "malformed")
    need(type(ciphertext) is bytes and type(recipients) is list and 1 <= len(recipients) <= 8, "malformed")
    for recipient in recipients:
        need(type(recipient) is list and len(recipient) == 3, "malformed")
        inner, outer, wrapped = recipient
        need(header_map(inner).get(1) == -31 and type(outer) is dict, "malformed")
        ephemeral = outer.get(-1)
        need(type(ephemeral) is dict and (ephemeral.get(1), ephemeral.get(-1)) == (2, 1), "malformed")
        need(all(type(ephemeral.get(c)) is bytes and len(ephemeral[c]) == 32 for c in (-2, -3)), "malformed")
        need(on_curve(b"\x04" + ephemeral[-2] + ephemeral[-3]), "malformed")
        need(type(wrapped) is bytes and len(wrapped) == 40, "malformed")
        need(type(outer.get(4)) is bytes and len(outer[4]) == 16, "malformed")
    return parts


def open_header(data, recording, key):
    protected, unprotected, ciphertext, recipients = encrypt(data)
    kid = key_id(point_of(key))
    mine = next((r for r in recipients if r[1][4] == kid), None)
    need(mine is not None, "not-a-recipient")
    inner, outer, wrapped = mine
    ephemeral = public_key(b"\x04" + outer[-1][-2] + outer[-1][-3])
    secret = private_key(key).exchange(ec.ECDH(), ephemeral)
    context = cbor2.dumps([-5, [None, None, None], [None, None, None], [256, inner]])
    kek = HKDF(algorithm=SHA256(), length=32, salt=None, info=context).derive(secret)
    aad = cbor2.dumps(recording)
    try:
        content = aes_key_unwrap(kek, wrapped)
        plain = AESGCM(content).decrypt(unprotected[5], ciphertext, cbor2.dumps(["Encrypt", protected, aad]))
    except (InvalidUnwrap, InvalidTag):
        raise Refused("unopened") from None
    pycose_opens(data, kid, aad, key, plain)
    return PRIVATE(one_item(plain))


def pycose_opens(data, kid, aad, key, plain):
    message = CoseMessage.decode(data)
    message.external_aad = aad
    mine = next(r for r in message.recipients if r.uhdr and kid in r.uhdr.values())
    at = point_of(key)
    mine.key = EC2Key(crv=P256, x=at[1:33], y=at[33:], d=bytes.fromhex(KEYS["keys"][key]["scalar"]))
    assert mine.get_attr(CoseAlgorithm) is EcdhEsA256KW
    assert message.decrypt(mine) == plain, "pycose says otherwise"


# ---------------------------------------------------------------- what SPEC.md says of each object's contents


def ascending(ranges):
    joined = all(a[1] + 1 < b[0] for a, b in zip(ranges, ranges[1:]))
    return joined and all(f <= t for f, t in ranges)


def rising(ranges):
    """Ascending and apart; they may touch."""
    return all(a[1] < b[0] for a, b in zip(ranges, ranges[1:]))


def check_manifest(b):
    seqs = [s[0] for s in b["segments"]]
    digests = [s[2] for s in b["segments"]] + [b["header"][0]]
    end, sites, k = b.get("end"), b["policy"]["sites"], b["policy"]["k"]
    good = (
        len(seqs) <= 64
        and all(later == seq + 1 for seq, later in zip(seqs, seqs[1:]))
        and all(seq < RECORDING_SEGMENTS for seq in seqs)
        and all(0 < s[1] <= SEGMENT_BYTES for s in b["segments"])
        and 0 < b["header"][1] <= HEADER_BYTES
        and len(set(digests)) == len(digests)
        and (b["index"] == 0) == ("previous" not in b)
        and (end is None or (seqs[-1] + 1 if seqs else 0) <= end[0] <= RECORDING_SEGMENTS)
        and len(set(sites)) == len(sites) <= 8
        and 1 <= k <= len(sites)
    )
    need(good, "invalid")


def check_page(b):
    of_segments = [r for h in b["held"] for r in (h["receipted"], h["erased"])]
    good = (
        1 <= b["pages"] <= 256
        and b["page"] < b["pages"]
        and len(b["held"]) <= 256
        and all(len(r) <= 256 and ascending(r) for r in of_segments + [b["overwritten"]])
        and all(to < RECORDING_SEGMENTS for ranges in of_segments for _, to in ranges)
        and len(b["released"]) <= 256
        and all(f <= t for (f, t), _ in b["released"])
        and rising([[h["number"]] * 2 for h in b["held"]])
        and rising([r for r, _ in b["released"]])
    )
    need(good, "invalid")


def check_key_list(b):
    lists = [b["receipt_keys"], b["recipients"], b["void_epochs"], b["suspended"]]
    need(all(len(entries) <= 128 for entries in lists), "invalid")
    keys = [k["public_key"] for k in b["receipt_keys"] + b["recipients"]]
    for key in keys:
        need(len(key) == 130 and key.startswith("04") and on_curve(bytes.fromhex(key)), "invalid")
    active = [r for r in b["recipients"] if r["state"] == "active"]
    need(len(active) <= 8, "invalid")
    need(len(set(keys)) == len(keys), "invalid")


def of_version_1(payload):
    """A payload's map, once its version is known: what a later one holds besides is not judged."""
    value = one_item(payload)
    need(type(value) is dict, "malformed")
    need(uint(16)(value.get(1)) == 1, "version")
    return value


def open_manifest(data):
    payload, signer = evidence(data, "bwc/manifest/1", MANIFEST_BYTES)
    body = MANIFEST(of_version_1(payload))
    check_manifest(body)
    need(body["recording"][0][0] == signer, "wrong-camera")
    return body


def open_page(data):
    payload, signer = evidence(data, "bwc/inventory/1", PAGE_BYTES)
    body = PAGE(of_version_1(payload))
    check_page(body)
    need(body["camera"][0] == signer, "wrong-camera")
    return body


def open_key_list(data):
    def find(kid):
        need(kid == key_id(point_of("root")), "not-the-root")
        return point_of("root")

    body = KEY_LIST(of_version_1(statement(data, "bwc/key-list/1", KEY_LIST_BYTES, find)))
    check_key_list(body)
    return body


def by_a_site(data, kind, limit, keys):
    """The payload of what a receipt key of the list signed, and whose key that is."""
    owner = {}

    def find(kid):
        for key in keys["receipt_keys"]:
            at = bytes.fromhex(key["public_key"])
            if key_id(at) == kid:
                need(key["state"] != "revoked", "revoked-key")
                owner["site"] = key["site"]
                return at
        raise Refused("unknown-key")

    return statement(data, kind, limit, find), owner


def open_receipt(data, keys):
    payload, owner = by_a_site(data, "bwc/receipt/1", RECEIPT_BYTES, keys)
    body = RECEIPT(of_version_1(payload))
    need(len(body["segments"]) <= 64 and len(body["manifests"]) <= 64, "invalid")
    need(body["site"] == owner["site"], "wrong-site")
    need([body["site"], body["epoch"]] not in keys["void_epochs"], "void-epoch")
    return body


def open_head(data):
    payload, signer = evidence(data, "bwc/logbook-head/1", LOGBOOK_HEAD_BYTES, role="repeater")
    body = LOGBOOK_HEAD(of_version_1(payload))
    need(body["head"][1] > 0, "invalid")
    need("{}:{}".format(*body["repeater"]) == signer, "wrong-repeater")
    return body


def open_countersignature(data, keys):
    payload, owner = by_a_site(data, "bwc/countersignature/1", COUNTERSIGNATURE_BYTES, keys)
    body = COUNTERSIGNATURE(of_version_1(payload))
    need(body["head"][1] > 0, "invalid")
    need(body["site"] == owner["site"], "wrong-site")
    return body


def covers(receipt, recording, header, kind, digest):
    same = receipt["recording"] == recording and receipt["header"] == header
    return same and digest in receipt[kind]


# ---------------------------------------------------------------- one judge a kind


def data_of(case):
    data = bytes.fromhex(case["bytes"])
    return data.ljust(case.get("pad_to", 0), b"\0")


def raw_recording(shown):
    """A recording's id as CBOR has it, from the JSON of `given`."""
    (serial, incarnation), number = shown
    return [[serial, bytes.fromhex(incarnation)], number]


def named(case, data):
    digest = case["given"].get("digest")
    need(digest is None or digest == sha256(data).hex(), "wrong-digest")


def judge_certificate(case):
    given = case["given"]
    urn, numbers, leaf = verify_chain([bytes.fromhex(c) for c in case["chain"]], given["role"], given["root"])
    ms = lambda at: int(at.timestamp()) * 1000  # noqa: E731
    return {
        "identity": urn,
        "public_key": point(numbers).hex(),
        "not_before": ms(leaf.not_valid_before_utc),
        "not_after": ms(leaf.not_valid_after_utc),
    }


def judge_segment(case):
    given = case["given"]
    key, seq = bytes.fromhex(given["content_key"]), given["seq"]
    aad = cbor2.dumps([raw_recording(given["recording"]), seq, given["last"]])
    iv, protected = seq.to_bytes(12, "big"), bytes.fromhex("a10103")

    def seal(footage):
        structure = cbor2.dumps(["Encrypt0", protected, aad])
        sealed = AESGCM(key).encrypt(iv, footage, structure)
        return cbor2.dumps(cbor2.CBORTag(16, [protected, {5: iv}, sealed]))

    if "footage_zeros" in given:
        need(given["footage_zeros"] <= FOOTAGE_BYTES, "too-long")
        sealed = seal(bytes(given["footage_zeros"]))
        return {"length": len(sealed), "digest": sha256(sealed).hex()}
    data = data_of(case)
    named(case, data)
    footage = encrypt0(data, key, aad, iv)
    assert seal(footage) == data, "seals otherwise"
    return {"footage": footage.hex(), "length": len(data), "digest": sha256(data).hex()}


def judge_header(case):
    given, data = case["given"], data_of(case)
    named(case, data)
    ids = [r[1][4].hex() for r in encrypt(data)[3]]
    fields = {"recipients": ids, "digest": sha256(data).hex()}
    if given.get("key_list"):
        listed = open_key_list(bytes.fromhex(given["key_list"]))["recipients"]
        known = [r for r in listed if key_id(bytes.fromhex(r["public_key"])).hex() in ids]
        need(known, "unknown-recipient")
        fields["alarm"] = not any((r["role"], r["state"]) == ("archive", "active") for r in known)
    if given.get("key"):
        fields["private"] = open_header(data, raw_recording(given["recording"]), given["key"])
    return fields


def judge_manifest(case):
    data = data_of(case)
    return {**open_manifest(data), "digest": sha256(data).hex()}


def judge_inventory_page(case):
    return open_page(data_of(case))


def judge_inventory(case):
    pages = [open_page(bytes.fromhex(p)) for p in case["pages"]]
    need(pages, "invalid")
    same = ("camera", "number", "pages", "next_recording")
    alike = all(p[f] == pages[0][f] for p in pages for f in same)
    need(alike and [p["page"] for p in pages] == list(range(pages[0]["pages"])), "invalid")
    whole = {kind: sum((p[kind] for p in pages), []) for kind in ("held", "released", "overwritten")}
    need(rising([[h["number"]] * 2 for h in whole["held"]]), "invalid")
    need(rising([r for r, _ in whole["released"]]) and ascending(whole["overwritten"]), "invalid")
    fates = {}
    for page in pages:
        spans = [("held", h["number"], h["number"]) for h in page["held"]]
        spans += [("released", f, t) for (f, t), _ in page["released"]]
        spans += [("overwritten", f, t) for f, t in page["overwritten"]]
        for fate, first, last in spans:
            for number in range(first, last + 1):
                need(number not in fates, "invalid")
                fates[number] = fate
    need(sorted(fates) == list(range(pages[0]["next_recording"])), "invalid")
    return {"number": pages[0]["number"], "fates": [fates[n] for n in sorted(fates)]}


def judge_key_list(case):
    offered, known = open_key_list(data_of(case)), case["given"].get("known")
    if known:
        known = open_key_list(bytes.fromhex(known))
        need(offered["number"] >= known["number"], "older")
        need(offered["number"] != known["number"] or offered == known, "forked")
    return offered


def judge_receipt(case):
    given, data = case["given"], data_of(case)
    receipt = open_receipt(data, open_key_list(bytes.fromhex(given["key_list"])))
    for kind, asked in (("segments", given["segment"]), ("manifests", given["manifest"])):
        covered = asked is None or covers(receipt, given["recording"], given["header"], kind, asked)
        need(covered, "not-covered")
    return {**receipt, "digest": sha256(data).hex()}


def judge_release(case):
    given = case["given"]
    keys, receipts = open_key_list(bytes.fromhex(given["key_list"])), []
    for receipt in case["receipts"]:
        try:
            receipts.append(open_receipt(bytes.fromhex(receipt), keys))
        except Refused:
            continue
    if "manifests" in given:
        return judge_papers(given, keys, receipts)
    manifest = open_manifest(bytes.fromhex(given["manifest"]))
    sites, needed = satisfied(manifest, keys, receipts, "segments", given["segment"])
    return {"sites": sorted(sites), "needed": needed}


def satisfied(manifest, keys, receipts, kind, digest):
    """The sites that speak for it, and how many of the policy's had to."""
    recording, header, policy = manifest["recording"], manifest["header"][0], manifest["policy"]
    sites = {r["site"] for r in receipts if covers(r, recording, header, kind, digest)}
    left = [s for s in policy["sites"] if s not in keys["suspended"]]
    needed = max(1, min(policy["k"], len(left)))
    need(len(sites & set(policy["sites"])) >= needed, "too-few-receipts")
    return sites, needed


def judge_papers(given, keys, receipts):
    """Header and manifests go: finished, every segment erased, every manifest receipted."""
    manifests = [(open_manifest(bytes.fromhex(m)), sha256(bytes.fromhex(m)).hex()) for m in given["manifests"]]
    end = next((body["end"] for body, _ in manifests if "end" in body), None)
    need(end, "not-ended")
    segments = [s for body, _ in manifests for s in body["segments"]]
    need(len(segments) == end[0], "wrong-count")
    need(all(s[2] in given["erased"] for s in segments), "segments-here")
    for body, digest in manifests:
        _, needed = satisfied(body, keys, receipts, "manifests", digest)
    return {"manifests": len(manifests), "needed": needed}


def judge_device_proof(case):
    revocation = case["given"].get("revocation")
    payload, serial = evidence(data_of(case), "bwc/hello/1", PROOF_BYTES, revocation)
    need(payload.hex() == case["given"]["exporter"], "wrong-binding")
    return {"serial": serial}


def judge_recording(case):
    manifests = [(open_manifest(bytes.fromhex(m)), sha256(bytes.fromhex(m)).hex()) for m in case["manifests"]]
    manifests.sort(key=lambda m: m[0]["index"])
    first, previous = manifests[0][0], None
    for index, (body, digest) in enumerate(manifests):
        same = (body["recording"], body["header"]) == (first["recording"], first["header"])
        need(body["index"] == index and body.get("previous") == previous and same, "broken-chain")
        previous = digest
    end = next((b["end"] for b, _ in manifests if "end" in b), None)
    need(end, "not-ended")
    need(case["header"] is not None, "missing-header")
    header = bytes.fromhex(case["header"])
    need(sha256(header).hex() == first["header"][0], "wrong-digest")
    recording = raw_recording(first["recording"])
    key = bytes.fromhex(open_header(header, recording, case["given"]["key"])["content_key"])
    entries = [s for body, _ in manifests for s in body["segments"]]
    need(len(entries) == end[0], "wrong-count")
    segments = {sha256(bytes.fromhex(s)).hex(): bytes.fromhex(s) for s in case["segments"]}
    footage = b""
    for seq, entry in enumerate(entries):
        need(entry[0] == seq, "broken-chain")
        need(entry[2] in segments, "missing-segment")
        last = end[1] == "stopped" and seq + 1 == end[0]
        footage += encrypt0(segments[entry[2]], key, cbor2.dumps([recording, seq, last]), seq.to_bytes(12, "big"))
    return {"footage": footage.hex(), "segments": end[0]}


def judge_logbook_head(case):
    data, known = data_of(case), case["given"]["known"]
    body = open_head(data)
    incarnation, entries, chain_hash = body["head"]
    if known and known[-1][0] == incarnation:
        need(entries >= known[-1][1], "behind")
        need(entries > known[-1][1] or chain_hash == known[-1][2], "forked")
    else:
        need(all(incarnation != before[0] for before in known), "behind")
    return {**body, "digest": sha256(data).hex()}


def judge_countersignature(case):
    given = case["given"]
    body = open_countersignature(data_of(case), open_key_list(bytes.fromhex(given["key_list"])))
    head = open_head(bytes.fromhex(given["head"]))
    same = (body["repeater"], body["head"], body["told"]) == (head["repeater"], head["head"], head["signed"])
    need(same, "not-covered")
    return body


def read_message(data):
    value = one_item(data)
    need(type(value) is list and len(value) == 2, "malformed")
    number = uint(16)(value[0])
    if number not in MESSAGES:
        return {"number": number, "message": "unknown", "body": {}}
    title, reader = MESSAGES[number]
    body = reader(value[1])
    texts = (body.get("software", ""), body.get("firmware", ""), body.get("text", ""))
    fits = (
        len(body.get("versions", [])) <= 16
        and all(len(t.encode()) <= 1024 for t in texts)
        and len(body.get("receipts", [])) <= 12
        and (title != "released" or len(body["digests"]) + len(body["refused"]) <= 1024)
        and (title != "want" or len(body["digests"]) <= 65)
    )
    need(fits, "limit")
    return {"number": number, "message": title, "body": body}


def judge_message(case):
    return read_message(data_of(case))


def judge_frame(case):
    rest, messages = data_of(case), []
    while rest:
        need(len(rest) >= 4, "truncated")
        length = int.from_bytes(rest[:4], "big")
        need(length <= FRAME_BYTES, "too-long")
        need(len(rest) >= 4 + length, "truncated")
        messages.append(read_message(rest[4 : 4 + length]))
        rest = rest[4 + length :]
    return {"messages": messages}


JUDGES = {
    "certificate": judge_certificate,
    "segment": judge_segment,
    "header": judge_header,
    "manifest": judge_manifest,
    "inventory-page": judge_inventory_page,
    "inventory": judge_inventory,
    "key-list": judge_key_list,
    "receipt": judge_receipt,
    "release": judge_release,
    "device-proof": judge_device_proof,
    "recording": judge_recording,
    "logbook-head": judge_logbook_head,
    "countersignature": judge_countersignature,
    "message": judge_message,
    "frame": judge_frame,
}


def check_keys():
    """Every key is what keys.json says it is made from."""
    for key, value in KEYS["keys"].items():
        scalar = sha256(f"bwc test key: {key}".encode())
        assert value["scalar"] == scalar.hex(), key
        numbers = private_key(key).public_key().public_numbers()
        assert point(numbers).hex() == value["public"], key
        assert key_id(point(numbers)).hex() == value["id"], key


# ---------------------------------------------------------------- bwc.cddl

# Kind -> the rules of the whole object, its protected header and its payload.
GRAMMAR = {
    "segment": ("segment", "a256gcm", None),
    "header": ("header", "a256gcm", None),
    "manifest": ("manifest-object", "evidence-protected", "manifest"),
    "inventory-page": ("inventory-object", "evidence-protected", "inventory"),
    "device-proof": ("proof-object", "evidence-protected", None),
    "receipt": ("receipt-object", "statement-protected", "receipt"),
    "key-list": ("key-list-object", "statement-protected", "key-list"),
    "logbook-head": ("logbook-head-object", "evidence-protected", "logbook-head"),
    "countersignature": ("countersignature-object", "statement-protected", "countersignature"),
}
CDDL = (HERE.parent / "bwc.cddl").read_text()
SCHEMAS = {}


def in_grammar(rule, data):
    if rule not in SCHEMAS:
        SCHEMAS[rule] = Schema(f"start = {rule}\n{CDDL}")
    SCHEMAS[rule].validate_cbor(data)  # raises


def follow_grammar(kind, case):
    if kind in GRAMMAR and "bytes" in case:
        whole, protected, payload = GRAMMAR[kind]
        parts = cbor2.loads(data_of(case)).value
        in_grammar(whole, data_of(case))
        in_grammar(protected, parts[0])
        if payload:
            in_grammar(payload, parts[2])
    elif kind == "message" and case["fields"]["message"] != "unknown":
        in_grammar("message", data_of(case))


def passes(kind, case):
    if case["expect"] == "accept":
        expected = ("accepted", case["fields"])
    else:
        expected = ("refused", case["reason"])
    try:
        found = ("accepted", JUDGES[kind](case))
        if found == expected:
            follow_grammar(kind, case)
    except Refused as refused:
        found = ("refused", str(refused))
    except Exception as wrong:  # another library or the grammar says otherwise
        found = ("disputed", f"{type(wrong).__name__}: {wrong}"[:300])
    if found == expected:
        return True
    print(f"FAILED {kind}: {case['name']}:\n  expected {expected}\n  found    {found}")
    return False


def main():
    check_keys()
    files = sorted(p for p in HERE.glob("*.json") if p.stem != "keys")
    unread = {p.stem for p in files} ^ set(JUDGES)
    assert not unread, f"kinds without file or judge: {unread}"
    passed = failed = 0
    for file in files:
        cases = json.loads(file.read_text())["cases"]
        good = sum(passes(file.stem, case) for case in cases)
        print(f"{file.stem}: {good} of {len(cases)}")
        passed, failed = passed + good, failed + len(cases) - good
    print(f"{passed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
