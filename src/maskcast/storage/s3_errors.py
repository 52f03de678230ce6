"""Turns errors of S3 and boto3 into one line with a remedy, by a table.

Errors are found by class name or by the code in the response, so that this module need not import boto3.
"""

import os

from maskcast.errors import one_line

KEYS = "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
FILES = {"AWS_CONFIG_FILE": "~/.aws/config", "AWS_SHARED_CREDENTIALS_FILE": "~/.aws/credentials"}
LOGIN = "run `aws sso login`, or set AWS_PROFILE to a profile without SSO"
RESUMES = "run the same command again to resume"
CHANGED = f"an object was changed or deleted during the transfer; {RESUMES}"
REGION = "the bucket is in another region than {region}; set AWS_REGION to the bucket's region"
ACCESS_REFUSED = f"access denied ({{code}}); check {KEYS} and their permissions"
EXPIRED_TOKEN = f"the session token is expired or invalid ({{code}}); set a new AWS_SESSION_TOKEN with its {KEYS}"
NOT_S3 = "{endpoint} does not respond like an S3 server ({code}); fix AWS_ENDPOINT_URL_S3"
UNREACHABLE = f"{{endpoint}} is unreachable ({{text}}); fix AWS_ENDPOINT_URL_S3 or {RESUMES}"

NO_CREDENTIALS = (
    "no credentials ({text}); fix profile {profile!r} in {files}, e.g. its credential_process, or set "
    f"{KEYS}"
)

# By class of botocore's error, or by a base class.
BY_CLASS = {
    "ProfileNotFound": "profile {profile!r} not found; fix or unset AWS_PROFILE, or add it to {files}",
    "ConfigParseError": "{text}; fix that file, or set AWS_CONFIG_FILE or AWS_SHARED_CREDENTIALS_FILE to another",
    "ConfigNotFound": "{text}; fix AWS_CONFIG_FILE or AWS_SHARED_CREDENTIALS_FILE",
    "CredentialRetrievalError": NO_CREDENTIALS,
    "PartialCredentialsError": f"incomplete credentials ({{text}}); set both {KEYS}",
    "NoCredentialsError": "no S3 credentials; set AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, or AWS_PROFILE",
    "SSOError": f"the SSO login of profile {{profile!r}} is missing or has expired ({{text}}); {LOGIN}",
    "TokenRetrievalError": f"the SSO login of profile {{profile!r}} is missing or has expired ({{text}}); {LOGIN}",
    "InvalidConfigError": "{text}; fix profile {profile!r} in {files}",
    "NoRegionError": "no region; set AWS_REGION",
    "InvalidRegionError": "invalid region {region!r}; fix AWS_REGION",
    "ValueError": "{text}; set AWS_ENDPOINT_URL_S3 to http(s)://host:port",
    "ParamValidationError": "invalid bucket name {bucket!r}; fix the address",
    "SSLError": "{endpoint}: TLS error ({text}); use http:// if the server has no TLS, or set AWS_CA_BUNDLE to "
    "its CA certificate",
    "ProxyConnectionError": "the proxy is unreachable ({text}); fix HTTPS_PROXY, HTTP_PROXY or NO_PROXY",
    "ConnectionError": UNREACHABLE,
    "HTTPClientError": UNREACHABLE,
    "RecursionError": "{endpoint} redirects to another address; set AWS_ENDPOINT_URL_S3 to that address",
    "JSONDecodeError": NO_CREDENTIALS,
    "OSError": NO_CREDENTIALS,
    "BotoCoreError": f"{{endpoint}}: {{text}}; fix the cause, or {RESUMES}",
}
# By code in the server's response; a HEAD response has only the status.
BY_CODE = {
    "NoSuchBucket": "bucket {bucket!r} does not exist; create it or fix the address",
    "InvalidBucketName": "invalid bucket name {bucket!r}; fix the address",
    "NoSuchKey": CHANGED,
    "404": CHANGED,
    "PreconditionFailed": CHANGED,
    "412": CHANGED,
    "NoSuchUpload": CHANGED,
    "InvalidAccessKeyId": "access denied ({code}): the access key is unknown; check AWS_ACCESS_KEY_ID and "
    "AWS_ENDPOINT_URL_S3",
    "SignatureDoesNotMatch": "access denied ({code}); check AWS_SECRET_ACCESS_KEY",
    "AccessDenied": ACCESS_REFUSED,
    "401": ACCESS_REFUSED,
    "403": ACCESS_REFUSED,
    "ExpiredToken": EXPIRED_TOKEN,
    "ExpiredTokenException": EXPIRED_TOKEN,
    "InvalidToken": EXPIRED_TOKEN,
    "TokenRefreshRequired": EXPIRED_TOKEN,
    "PermanentRedirect": REGION,
    "301": REGION,
    "AuthorizationHeaderMalformed": REGION,
    "IllegalLocationConstraintException": REGION,
    "RequestTimeTooSkewed": "the clock of this machine is wrong ({code}); set it, e.g. by NTP",
}
OTHER = f"{{endpoint}}: the server returned {{code}}: {{text}}; {RESUMES}"


def error_message(error: Exception, bucket: str) -> str:
    """Returns an error of boto3 as one line with its remedy.

    Args:
        error: a ``BotoCoreError`` or ``ClientError``; a ``ValueError`` for a bad address; an ``OSError`` for a
            file; or a ``RecursionError`` if a server redirects, because boto3 then asks for the bucket's region
            endlessly.
        bucket: name of the requested bucket.
    """
    environment = os.environ
    response = getattr(error, "response", None) or {}  # None without a response
    fault = response.get("Error", {})
    endpoint = environment.get("AWS_ENDPOINT_URL_S3") or environment.get("AWS_ENDPOINT_URL")
    facts = {
        "bucket": bucket,
        "files": " or ".join(environment.get(name, default) for name, default in FILES.items()),
        "code": fault.get("Code", "unknown error"),
        "endpoint": endpoint or "AWS (AWS_ENDPOINT_URL_S3 is not set)",
        "profile": environment.get("AWS_PROFILE", "default"),
        "region": environment.get("AWS_REGION") or environment.get("AWS_DEFAULT_REGION", "us-east-1"),
        "text": fault.get("Message", "") if fault else one_line(error),
    }
    if fault:
        if not facts["code"]:  # a web page, e.g. of a proxy
            facts["code"] = f"status {response['ResponseMetadata']['HTTPStatusCode']}"
            return NOT_S3.format_map(facts)
        return BY_CODE.get(facts["code"], OTHER).format_map(facts)
    return next(BY_CLASS[kind.__name__] for kind in type(error).__mro__ if kind.__name__ in BY_CLASS).format_map(
        facts
    )
