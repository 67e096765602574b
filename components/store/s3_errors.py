"""What S3 answered when it did not do what was asked, and the error that tells a person."""

import re
from dataclasses import dataclass
from typing import Any

from components.errors import ConfigError, RcgError, StoreError, StoreRefusedError

_TRANSIENT_CODES = frozenset(
    [
        "ConditionalRequestConflict",
        "InternalError",
        "OperationAborted",
        "RequestTimeout",
        "ServiceUnavailable",
        "SlowDown",
        "Throttling",
        "ThrottlingException",
        "TooManyRequestsException",
    ]
)

_KEY = ("S3 does not accept the access key", "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (or AWS_PROFILE)")
_TOKEN = ("the S3 credentials have expired", "renew them (AWS_SESSION_TOKEN, `aws sso login`), then run it again")
_REGION = ("the bucket is in another region", "set AWS_DEFAULT_REGION to the bucket's region")
_CAUSES = {
    "NoSuchBucket": ("the bucket does not exist", "create it, or correct the bucket's name and AWS_ENDPOINT_URL_S3"),
    "InvalidBucketName": ("the bucket's name is not valid", "correct s3://bucket/prefix"),
    "AccessDenied": (
        "S3 refuses access",
        "allow this key s3:ListBucket on the bucket and s3:GetObject, s3:PutObject, s3:DeleteObject, "
        "s3:AbortMultipartUpload on the prefix",
    ),
    "NoCredentials": ("there are no S3 credentials", _KEY[1]),
    "UntrustedCertificate": (
        "the S3 server's TLS certificate is not trusted",
        "set AWS_CA_BUNDLE to a file with the certificate of who signed it",
    ),
    "InvalidAccessKeyId": _KEY,
    "SignatureDoesNotMatch": ("S3 does not accept the secret key", "correct AWS_SECRET_ACCESS_KEY"),
    "ExpiredToken": _TOKEN,
    "TokenRefreshRequired": _TOKEN,
    "InvalidToken": _TOKEN,
    "AuthorizationHeaderMalformed": _REGION,
    "IllegalLocationConstraintException": _REGION,
    "PermanentRedirect": _REGION,
    "NotImplemented": (
        "the S3 server lacks what this needs",
        "use a server with conditional writes and multipart uploads (AWS S3, MinIO, versitygw), or a newer version",
    ),
    "RequestTimeTooSkewed": ("this machine's clock and the S3 server's differ", "set the clock (NTP) of both machines"),
}
_STATUS_CODES = {301: "PermanentRedirect", 401: "AccessDenied", 403: "AccessDenied", 501: "NotImplemented"}


@dataclass(eq=False)
class S3Error(Exception):
    """One request that did not succeed. `status` is None when no answer came, 0 when nothing was asked."""

    status: int | None
    code: str
    """S3's name for the reason; "" when the answer had no body."""
    detail: str

    @property
    def is_absent(self) -> bool:
        return self.status == 404 and self.code in ("", "404", "NotFound", "NoSuchKey", "NoSuchVersion")

    @property
    def is_conflict(self) -> bool:
        return self.status == 412

    @property
    def is_beyond_end(self) -> bool:
        return self.status == 416

    @property
    def is_transient(self) -> bool:
        """May the same request succeed later?"""
        if self.code in _CAUSES or self.status in _STATUS_CODES:
            return False
        return self.status is None or self.status >= 500 or self.status == 429 or self.code in _TRANSIENT_CODES

    @property
    def is_unnamed(self) -> bool:
        """A refusal without a body (the answer to a HEAD): a GET would say why."""
        return self.status in (301, 400, 401, 403) and self.code not in _CAUSES

    @property
    def is_denial(self) -> bool:
        return self.code == "AccessDenied"


def explain(failure: S3Error, what: str, where: str) -> RcgError:
    """The error for a person: ConfigError for what settings mend, StoreError for what time may mend."""
    code = failure.code if failure.code in _CAUSES else _STATUS_CODES.get(failure.status or 0, failure.code)
    if code in _CAUSES:
        cause, fix = _CAUSES[code]
        return ConfigError(f"{cause}: cannot {what}", got=f"{where}: {failure.detail}", fix=fix)
    if failure.status is None:
        fix = "check AWS_ENDPOINT_URL_S3 (or AWS_ENDPOINT_URL) and that the server is up; then run the same command"
        return StoreError(f"the S3 server does not answer: cannot {what}", got=f"{where}: {failure.detail}", fix=fix)
    got = f"{where}: {failure.status} {failure.detail}"
    if failure.is_transient:
        return StoreError(f"the S3 server fails: cannot {what}", got=got, fix="run the same command again later")
    return StoreRefusedError(f"the S3 server refused: cannot {what}", got=got)


_STATUS = re.compile(r"non-2xx status code: (\d{3})")
_CODE = re.compile(r"<Code>([^<]*)</Code>")
_MESSAGE = re.compile(r"<Message>([^<]*)</Message>")
_CAUSE = re.compile(r'message: "([^"]+)"|error: "([^"]+)"|(operation timed out|TimedOut)')


def from_obstore(error: Exception) -> S3Error:
    """obstore tells status and body in its message only."""
    text = str(error)
    headline, _, debug = text.partition("\n\nDebug source:")
    status, code, message = _STATUS.search(headline), _CODE.search(headline), _MESSAGE.search(headline)
    if status is None:
        if "InvalidCertificate" in debug:
            return S3Error(None, "UntrustedCertificate", "its TLS certificate is signed by nobody who is trusted here")
        if type(error).__name__ == "UnauthenticatedError":
            return S3Error(0, "NoCredentials", headline.rpartition("provider: ")[2])
        if "HTTP error" not in headline:
            return S3Error(0, "", headline)
        cause = _CAUSE.search(debug)
        found = next(filter(None, cause.groups())) if cause else headline.rpartition("HTTP error: ")[2]
        return S3Error(None, "", found.strip())
    name = code.group(1) if code else ""
    return S3Error(int(status.group(1)), name, f"{name} {message.group(1) if message else ''}".strip())


def from_boto(error: Exception) -> S3Error:
    """boto3 tells them in a ClientError; everything else is a request without an answer."""
    response: dict[str, Any] = getattr(error, "response", None) or {}
    if type(error).__name__ in ("NoCredentialsError", "PartialCredentialsError", "CredentialRetrievalError"):
        return S3Error(None, "NoCredentials", str(error))
    if type(error).__name__ == "SSLError":
        return S3Error(None, "UntrustedCertificate", str(error))
    if "Error" not in response:
        return S3Error(None, "", str(error))
    status = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
    code = str(response["Error"].get("Code", ""))
    code = "" if code.isdigit() else code
    return S3Error(status, code, f"{code} {response['Error'].get('Message', '')}".strip())
