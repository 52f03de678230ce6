"""Turns errors of S3 and boto3 into one line with a remedy, by a table.

Errors are found by class name or by the code in the response, so that this module need not import boto3.
"""

import os

from maskcast.errors import one_line

KEYS = "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
FILES = {"AWS_CONFIG_FILE": "~/.aws/config", "AWS_SHARED_CREDENTIALS_FILE": "~/.aws/credentials"}
LOGIN = "run `aws sso login`, or set AWS_PROFILE to a profile without SSO"
RESUMES = "run the same command again (it resumes)"
CHANGED = f"an object changed or vanished during the transfer; {RESUMES}"
REGION = "the bucket is in another region than {region}; set AWS_REGION to its own"
ACCESS_REFUSED = f"access refused ({{code}}); check {KEYS} and their rights"
EXPIRED_TOKEN = (
    f"the session token has expired or is wrong ({{code}}); get a new AWS_SESSION_TOKEN, and {KEYS} with it"
)
NOT_S3 = "{place} answers, but not as S3 does ({code}); fix AWS_ENDPOINT_URL_S3"
UNREACHABLE = f"{{place}} cannot be reached ({{text}}); fix AWS_ENDPOINT_URL_S3 or {RESUMES}"

NO_CREDENTIALS = (
    "no credentials ({text}); fix credential_process or what else profile {profile!r} of {files} names, or set "
    f"{KEYS}"
)

# By class of botocore's error, or by a base class.
BY_CLASS = {
    "ProfileNotFound": "there is no profile {profile!r}; fix or unset AWS_PROFILE, or add it to {files}",
    "ConfigParseError": "{text}; fix that file, or set AWS_CONFIG_FILE or AWS_SHARED_CREDENTIALS_FILE to another",
    "ConfigNotFound": "{text}; fix AWS_CONFIG_FILE or AWS_SHARED_CREDENTIALS_FILE",
    "CredentialRetrievalError": NO_CREDENTIALS,
    "PartialCredentialsError": f"half of the credentials is missing ({{text}}); set both, {KEYS}",
    "NoCredentialsError": "no S3 credentials; set AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, or AWS_PROFILE",
    "SSOError": f"the SSO login of profile {{profile!r}} is missing or has expired ({{text}}); {LOGIN}",
    "TokenRetrievalError": f"the SSO login of profile {{profile!r}} is missing or has expired ({{text}}); {LOGIN}",
    "InvalidConfigError": "{text}; fix the profile {profile!r} of {files}",
    "NoRegionError": "no region; set AWS_REGION",
    "InvalidRegionError": "region {region!r} is none; fix AWS_REGION",
    "ValueError": "{text}; write AWS_ENDPOINT_URL_S3 as http(s)://host:port",
    "ParamValidationError": "{bucket!r} is no name of a bucket; fix the address",
    "SSLError": "{place}: TLS failed ({text}); write http:// where the server speaks no TLS, or set AWS_CA_BUNDLE "
    "to its authority's file",
    "ProxyConnectionError": "the proxy does not answer ({text}); fix HTTPS_PROXY, HTTP_PROXY or NO_PROXY",
    "ConnectionError": UNREACHABLE,
    "HTTPClientError": UNREACHABLE,
    "RecursionError": "{place} redirects elsewhere; write AWS_ENDPOINT_URL_S3 as it does",
    "JSONDecodeError": NO_CREDENTIALS,
    "OSError": NO_CREDENTIALS,
    "BotoCoreError": f"{{place}}: {{text}}; fix that, or {RESUMES}",
}
# By code in the server's response; a HEAD response has only the status.
BY_CODE = {
    "NoSuchBucket": "there is no bucket {bucket!r}; create it or fix the address",
    "InvalidBucketName": "{bucket!r} is no name of a bucket; fix the address",
    "NoSuchKey": CHANGED,
    "404": CHANGED,
    "PreconditionFailed": CHANGED,
    "412": CHANGED,
    "NoSuchUpload": CHANGED,
    "InvalidAccessKeyId": "access refused ({code}): this key is not known there; check AWS_ACCESS_KEY_ID and "
    "AWS_ENDPOINT_URL_S3",
    "SignatureDoesNotMatch": "access refused ({code}); check AWS_SECRET_ACCESS_KEY",
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
OTHER = f"{{place}}: the server answered {{code}}: {{text}}; {RESUMES}"


def error_message(error: Exception, bucket: str) -> str:
    """Returns an error of boto3 as one line with its remedy.

    Args:
        error: a ``BotoCoreError`` or ``ClientError``; a ``ValueError`` for a bad address; an ``OSError`` for a
            file; or a ``RecursionError`` if a server redirects, because boto3 then asks for the bucket's region
            endlessly.
        bucket: name of the requested bucket.
    """
    environment = os.environ
    response = getattr(error, "response", None) or {}  # None if the server never answered
    answer = response.get("Error", {})
    own = environment.get("AWS_ENDPOINT_URL_S3") or environment.get("AWS_ENDPOINT_URL")
    facts = {
        "bucket": bucket,
        "files": " or ".join(environment.get(name, usual) for name, usual in FILES.items()),
        "code": answer.get("Code", "unknown error"),
        "place": own or "AWS (AWS_ENDPOINT_URL_S3 is not set)",
        "profile": environment.get("AWS_PROFILE", "default"),
        "region": environment.get("AWS_REGION") or environment.get("AWS_DEFAULT_REGION", "us-east-1"),
        "text": answer.get("Message", "") if answer else one_line(error),
    }
    if answer:
        if not facts["code"]:  # a web page, e.g. of a proxy
            facts["code"] = f"status {response['ResponseMetadata']['HTTPStatusCode']}"
            return NOT_S3.format_map(facts)
        return BY_CODE.get(facts["code"], OTHER).format_map(facts)
    return next(BY_CLASS[kind.__name__] for kind in type(error).__mro__ if kind.__name__ in BY_CLASS).format_map(
        facts
    )
