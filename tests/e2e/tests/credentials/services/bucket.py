"""An S3 client that has placeholders: bucket.py CASE… Each case prints a line."""
import hashlib, hmac, io, os, sys, urllib.error, urllib.request
from datetime import datetime, timezone

import boto3
from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.config import Config
from botocore.exceptions import ClientError

SITE = os.environ.get("SITE", "https://store.test")
REGION = "eu-west-1"
ODD = "dir/a b+c&d=e~f!g*h'i(j)k@l:m;n,o$p%q#r?s[t]\u00e9\u4e2d.txt"


def client(region=REGION, site=SITE, **more):
    config = Config(s3={"addressing_style": "path", **more}, retries={"max_attempts": 0}, connect_timeout=20, signature_version="s3v4")
    return boto3.client("s3", endpoint_url=site, region_name=region, config=config)


def put_and_get():
    client().create_bucket(Bucket="box", CreateBucketConfiguration={"LocationConstraint": REGION})
    meta = {"note": "two  spaces", "other": "x"}
    client().put_object(Bucket="box", Key="plain", Body=b"plain body", ContentType="text/x-note", Metadata=meta)
    got = client().get_object(Bucket="box", Key="plain", Range="bytes=0-4")
    return got["Body"].read().decode(), got["Metadata"].get("other")


def odd_name():
    client().put_object(Bucket="box", Key=ODD, Body=b"odd")
    found = client().list_objects_v2(Bucket="box", Prefix="dir/a b+c&d=", Delimiter="|")["KeyCount"]
    return client().get_object(Bucket="box", Key=ODD)["Body"].read().decode(), found


def hashed():
    client(payload_signing_enabled=True).put_object(Bucket="box", Key="hashed", Body=b"hashed body")
    return client().get_object(Bucket="box", Key="hashed")["Body"].read().decode()


def unsigned():
    client(payload_signing_enabled=False).put_object(Bucket="box", Key="unsigned", Body=io.BytesIO(b"unsigned body"))
    return client().get_object(Bucket="box", Key="unsigned")["Body"].read().decode()


def multipart():
    with open("large", "wb") as file:
        file.write(os.urandom(9 << 20))
    client().upload_file("large", "box", "large")
    client().download_file("box", "large", "back")
    same = open("large", "rb").read() == open("back", "rb").read()
    return same, client().head_object(Bucket="box", Key="large")["ContentLength"]


def presigned():
    url = client().generate_presigned_url("put_object", {"Bucket": "box", "Key": ODD + "2"}, ExpiresIn=60)
    urllib.request.urlopen(urllib.request.Request(url, b"by a link", {"content-type": ""}, method="PUT"), timeout=20)
    disposition = {"Bucket": "box", "Key": ODD + "2", "ResponseContentDisposition": 'attachment; filename="x y"'}
    url = client().generate_presigned_url("get_object", disposition, ExpiresIn=60)
    return urllib.request.urlopen(url, timeout=20).read().decode()


def chunks(trailer=False, spoil=False, sizes=(70_000, 66_000, 5)):
    """What SDKs of Java and Go send: each chunk signed, and with `trailer` a checksum behind them."""
    keys = boto3.Session().get_credentials()
    data = os.urandom(sum(sizes))
    sums = "x-amz-checksum-sha256:" + __import__("base64").b64encode(hashlib.sha256(data).digest()).decode() + "\n"
    kind = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD" + ("-TRAILER" if trailer else "")
    headers = {"x-amz-content-sha256": kind, "x-amz-decoded-content-length": str(len(data)), "content-encoding": "aws-chunked"}
    if trailer:
        headers["x-amz-trailer"] = "x-amz-checksum-sha256"
    request = AWSRequest("PUT", SITE + "/box/chunks", headers)
    auth = S3SigV4Auth(keys, "s3", REGION)
    auth.payload = lambda request: kind
    auth.add_auth(request)
    stamp, last = request.context["timestamp"], request.headers["Authorization"].rsplit("=", 1)[1]
    scope = auth.credential_scope(request)
    key = ("AWS4" + keys.secret_key).encode()
    for part in scope.split("/"):
        key = hmac.new(key, part.encode(), hashlib.sha256).digest()
    sign = lambda *lines: hmac.new(key, "\n".join(lines).encode(), hashlib.sha256).hexdigest()
    empty, body, at = hashlib.sha256(b"").hexdigest(), b"", 0
    for size in (*sizes, 0):
        chunk = data[at:at + size]
        at += size
        last = sign("AWS4-HMAC-SHA256-PAYLOAD", stamp, scope, last, empty, hashlib.sha256(chunk).hexdigest())
        shown = last[::-1] if spoil and size == sizes[1] else last
        body += b"%x;chunk-signature=%s\r\n" % (size, shown.encode()) + chunk
        body += b"" if trailer and size == 0 else b"\r\n"
    if trailer:
        last = sign("AWS4-HMAC-SHA256-TRAILER", stamp, scope, last, hashlib.sha256(sums.encode()).hexdigest())
        body += sums.replace("\n", "\r\n").encode() + b"x-amz-trailer-signature:%s\r\n\r\n" % last.encode()
    headers = {k: v for k, v in request.headers.items()}
    urllib.request.urlopen(urllib.request.Request(SITE + "/box/chunks", body, headers, method="PUT"), timeout=20)
    return client().get_object(Bucket="box", Key="chunks")["Body"].read() == data


def bad_region():
    return client(region="us-east-1").list_objects_v2(Bucket="box")["KeyCount"]


def bad_host():
    return client(site="https://other.test").list_objects_v2(Bucket="box")["KeyCount"]


def bad_service():
    config = Config(retries={"max_attempts": 0})
    return boto3.client("sts", endpoint_url=SITE, region_name=REGION, config=config).get_caller_identity()


CASES = {
    "put_and_get": put_and_get, "odd_name": odd_name, "hashed": hashed, "unsigned": unsigned, "multipart": multipart,
    "presigned": presigned, "chunks": chunks, "trailer": lambda: chunks(trailer=True),
    "spoilt": lambda: chunks(spoil=True), "small_chunks": lambda: chunks(sizes=(9000, 8192, 1)),
    "bad_region": bad_region, "bad_host": bad_host, "bad_service": bad_service,
}
for case in sys.argv[1:]:
    try:
        print(f"{case}: {CASES[case]()}", flush=True)
    except ClientError as e:
        print(f"{case}: {e.response['ResponseMetadata']['HTTPStatusCode']} {str(e)[:300]!r}", flush=True)
    except urllib.error.HTTPError as e:
        print(f"{case}: {e.code} {e.read()[:300]!r}", flush=True)
    except Exception as e:
        print(f"{case}: {type(e).__name__}: {str(e)[:300]!r}", flush=True)
