"""What a log, an error or a record may show of a text: no key, no signature, no password, no content.

Every function that hides a secret is here.
"""

from __future__ import annotations

import hashlib
import html
import logging
import re
from collections.abc import Mapping
from typing import Final
from urllib.parse import unquote_plus, urlsplit, urlunsplit

_QUERY = re.compile(r"(?<=\S)\?(?:[\w%~.\[-]|[^\s\"'<>?=]*=)[^\s\"'<>]*")
_USER = re.compile(
    r"""(https?:\\*/\\*/) [^\s"'<>/?\#\\]* @              # also a token alone
    | (:\\*/\\*/) [^\s"'<>/?\#\\@:]* : [^\s"'<>/?\#\\]* @  # s3://conn@bucket names a connection
    | (?<![:/\\\w])(//) [^\s"'<>/?\#\\@]* @             # without a scheme""",
    re.IGNORECASE | re.VERBOSE,
)
_BASE64 = re.compile(
    r"(?<=;base64,)[^\s\"'<>]+|[A-Za-z0-9+/=_%\\-]{120,}|[A-Za-z0-9+]{48,}|[A-Za-z0-9+/]{24,}={1,2}(?![\w=])"
)
_BYTES = re.compile(r"""\bb'(?:[^'\\\n]|\\.){16,}'?|\bb"(?:[^"\\\n]|\\.){16,}"?""")
_BARE_USER = re.compile(r"^[^\s/@:]+(?::[^\s/@]*)?@(?=[\w.-]+(?:[:/]|$))")
"""``TOKEN@host/x`` and ``KEY:SECRET@host``, where a whole value begins with it."""
_SECRET_NAMES: Final = (
    r"x-amz-(?:signature|credential|security-token)|x-goog-(?:signature|credential)|x-oss-(?:signature|credential)"
    r"|q-(?:signature|ak)|signature|sig|kssecret|cachekey|awsaccesskeyid|googleaccessid|ossaccesskeyid|key-pair-id"
    r"|access[_-]?key(?:[_-]?id)?|secret[_-]?(?:access[_-]?)?key|(?:client[_-]?)?secret|(?:x-)?(?:api|account|auth)[_-]?key"
    r"|(?:access|refresh|session|id|auth|security)[_-]?token|token|passw(?:or)?d|passphrase|pwd"
)
_PARAMETER = re.compile(
    rf"""(?:(?<![\w-])|(?<=%3F)|(?<=%26))({_SECRET_NAMES})
    (["']\s{{0,3}}:\s{{0,3}}["']|["']?\s{{0,3}}=\s{{0,3}}["']?|%3D
    |:\s{{0,3}}(?=[^\s"'&<>,;)\]}}]{{8}})(?=[^\s"'&<>,;)\]}}]{{0,60}}[0-9]))  # prose has none
    ([^\s"'&<>,;)\]}}]{{4,}})""",
    re.IGNORECASE | re.VERBOSE,
)
_AUTHORIZATION = re.compile(
    r"\b(Bearer|Basic)(\s+|:)(?=\S{0,60}(?-i:[0-9A-Z=]))([\w.~+/=-]{8,})", re.IGNORECASE
)
_HEADER = re.compile(
    r"""\b((?:proxy-)?authorization|(?:set-)?cookie)(["']?\s{0,3}[:=]\s{0,3}["']?)
    (?=[^\r\n"']{0,60}[0-9])([^\r\n"']{4,})""",
    re.IGNORECASE | re.VERBOSE,
)
_TOKEN = re.compile(
    r"\b(eyJ[\w-]{8})[\w-]*\.[\w-]{8,}(?:\.[\w-]*)?|(-----BEGIN [A-Z ]{0,30}PRIVATE KEY-----)[^-]+"
)
"""A JSON Web Token, and a private key."""
_TAG = re.compile(r"<(/?[a-z0-9]*+)[^<>]*+>", re.IGNORECASE)
_NEVER_SHOWN: Final = ("script", "style")
_SURELY_CONTENT: Final = 120  # characters
_SHORTEST_SECRET: Final = 5  # characters; Airflow masks no shorter ones
_LONGEST_MESSAGE: Final = 500
_LONGEST_READ: Final = 20_000
"""Characters of a text that are read for a message."""
_LONGEST = 60  # characters of a value that a message quotes
_SIGNATURES: Final = tuple(
    (signed_by, re.compile(parameters, re.IGNORECASE))
    for signed_by, parameters in {
        "x-amz-signature": r"x-amz-.*",  # S3
        "x-goog-signature": r"x-goog-.*",  # Google Cloud Storage
        "x-oss-signature": r"x-oss-.*",
        "q-signature": r"q-.*",  # COS
        # older S3, Google Cloud Storage and OSS; CloudFront
        "signature": r"(aws|oss)?accesskeyid|googleaccessid|signature|expires|policy|key-pair-id"
        r"|(x-amz-)?security-token",
        "sig": r"sig|s[etvrp]|spr|sip|ske|skt|sks|skv|skoid|sktid",  # Azure
        "kssecret": r"ks(secret|time)|cachekey",  # the vendor's CDN
        "token": r"token|expires",
    }.items()
)
"""Per way to sign a URL: the query parameter that tells it, and those that differ at each signing
while the picture does not. Elsewhere such a parameter may well choose the picture, and counts."""


def hide_secrets(text: str) -> str:
    """The text without what gives access or is content; everything else stays as it is.

    Passwords and tokens in URLs, queries that may be signed, keys by their name, base64 and bytes are hidden.
    """
    text = _HEADER.sub(r"\1\2…", _AUTHORIZATION.sub(r"\1\2…", _USER.sub(r"\1\2\3…@", text)))
    text = _PARAMETER.sub(r"\1\2…", _TOKEN.sub(r"\1\2…", text))
    text = _BYTES.sub("b'…'", _QUERY.sub("?…", text))
    return _BASE64.sub(_without_content, text)


def _without_content(found: re.Match[str]) -> str:
    """What stands for a run of letters that looks like base64; a checksum in hexadecimal is none."""
    run = found[0]
    if "/" in run and run == run.lower() and not set("+=%\\") & set(run):
        return run  # a path: of so many characters of base64 some are capitals
    mixed = run != run.lower() and run != run.upper() and any(map(str.isdigit, run))
    return "…" if len(run) >= _SURELY_CONTENT or run.endswith("=") or mixed else run


def secrets_in(text: str) -> list[str]:
    """The passwords, tokens and signatures in a text, for a masker that looks for them elsewhere."""
    found = [match[3] for match in _PARAMETER.finditer(text[:_LONGEST_READ])]
    for match in _USER.finditer(text[:_LONGEST_READ]):
        user = match[0].rpartition("/")[2].removesuffix("@")
        found += [user, *user.split(":", 1)]
    return [each for each in dict.fromkeys(found) if len(each) >= _SHORTEST_SECRET]


def clean(text: str, key: str = "") -> str:
    """One line of bounded length that any log can hold: no key, signed query, password or base64."""
    if key:
        text = text.replace(key, "***")
    text = hide_secrets(text[:_LONGEST_READ])
    text = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return text if len(text) <= _LONGEST_MESSAGE else text[: _LONGEST_MESSAGE - 1] + "…"


class SecretsFilter(logging.Filter):
    """Hides secrets in the records of a logger, such as urllib3's line for each request."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Hide it in the record's whole text; the record is always kept."""
        record.msg, record.args = hide_secrets(record.getMessage()), None
        return True


def hide_secrets_in_logs_of(name: str) -> None:
    """Hide secrets in all that a logger of another library writes.

    :param name: of the logger.
    """
    logger = logging.getLogger(name)
    if not any(isinstance(each, SecretsFilter) for each in logger.filters):
        logger.addFilter(SecretsFilter())


def logger(name: str) -> logging.Logger:
    """The logger of a module of this package, which hides secrets in all that it writes.

    :param name: of the module.
    """
    hide_secrets_in_logs_of(name)
    return logging.getLogger(name)


def excerpt(body: bytes, key: str = "") -> str:
    """A few readable words of an answer that is not the JSON it should be."""
    if not body.strip():
        return "an empty answer"
    text = body[:_LONGEST_READ].decode("utf-8", "replace")
    if "<" in text:
        text = _text_of_markup(text).strip() or "markup without text"
    return clean(text, key)


def _text_of_markup(text: str) -> str:
    """What a browser would show, in one pass whatever the markup."""
    pieces: list[str] = []
    hidden_until, end = "", 0
    for tag in _TAG.finditer(text):
        name = tag[1].lower()
        if not hidden_until:
            pieces.append(text[end : tag.start()])
            hidden_until = f"/{name}" if name in _NEVER_SHOWN else ""
        elif name == hidden_until:
            hidden_until = ""
        end = tag.end()
    if not hidden_until:
        pieces.append(text[end:])
    shown_text = " ".join(pieces)
    try:
        return html.unescape(shown_text)
    except ValueError:  # a character's number with thousands of digits
        return shown_text


def shown(value: object) -> str:
    """A value as a message may show it: short, no picture's content, no signature of a URL."""
    match value:
        case str() if value[:5].lower() == "data:":
            return f"a data URI of {len(value):,} characters"
        case str() if "://" in value[:_LONGEST]:
            return _without_secrets(value)
        case str() if value[:2] in ("b'", 'b"'):
            return f"bytes that were made text, {len(value):,} characters"
        case str() if len(value) > 2 * _LONGEST and not any(map(str.isspace, value[:_LONGEST])):
            return f"{len(value):,} characters without a space"  # most likely base64
        case str():
            return _quoted(_BARE_USER.sub("…@", hide_secrets(value[:_LONGEST_READ])), len(value))
        case None:
            return "null"
        case bool():
            return str(value).lower()
        case int() if abs(value) >= 10**_LONGEST:
            return "a number with very many digits"
        case int() | float():
            return repr(value)
        case Mapping():
            return "an empty object" if not value else f"an object with {len(value)} field(s)"
        case list() | tuple():
            return "an empty list" if not value else f"a list of {len(value)}"
        case _:
            return f"a Python {type(value).__name__}"


def _without_secrets(url: str) -> str:
    address, *query = url.split("?", 1)
    scheme, _, rest = address.partition("://")
    host, slash, path = rest.partition("/")
    user, at, host = host.rpartition("@")
    if ":" in user or (user and scheme.lower() in ("http", "https")):  # s3://conn@bucket names a connection
        user = "…"
    shown_url = _quoted(hide_secrets(f"{scheme}://{user}{at}{host}{slash}{path}"))
    return f"{shown_url} (its query not shown)" if query else shown_url


def _quoted(text: str, length: int = 0) -> str:
    """:param length: characters of the whole value, where they are more."""
    if max(len(text), length) <= _LONGEST:
        return repr(text)
    return f"{text[:_LONGEST]!r}… ({max(len(text), length):,} characters)"


def bare_url(url: str) -> str:
    """A URL, or what stands in its place, without user, query and fragment."""
    return url.rsplit("@", 1)[-1].partition("?")[0].partition("#")[0]


def unsigned(url: str) -> str:
    """A URL without the query parameters that sign it, so that signing again changes nothing."""
    parts = urlsplit(url)
    pairs = [(unquote_plus(pair.partition("=")[0]), pair) for pair in parts.query.split("&")]
    names = {name.lower() for name, _ in pairs}
    signing = [parameters for signed_by, parameters in _SIGNATURES if signed_by in names]
    query = "&".join(pair for name, pair in pairs if not any(each.fullmatch(name) for each in signing))
    return urlunsplit((parts.scheme, parts.netloc, parts.path, query, ""))


def key_mark(api_key: str, salt: str) -> str:
    """Tells whether two API keys are the same, and nothing else about them.

    It is 40 bits of a hash, so that even a guessed key cannot be confirmed with it: countless keys have the
    same mark.

    :param salt: what the mark belongs to; the same key has another mark elsewhere.
    """
    person = b"kling api key"
    salted = hashlib.sha256(salt.encode()).digest()[: hashlib.blake2b.SALT_SIZE]
    return hashlib.blake2b(api_key.encode(), digest_size=5, salt=salted, person=person).hexdigest()
