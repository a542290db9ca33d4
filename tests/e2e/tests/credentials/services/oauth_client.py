"""An OAuth client that has a placeholder: oauth_client.py CASE METHOD… Each case prints a line."""
import os, sys

from authlib.integrations.requests_client import OAuth2Session

for case, method in zip(sys.argv[1::2], sys.argv[2::2]):
    session = OAuth2Session("robot", os.environ["CLIENT_SECRET"], token_endpoint_auth_method=method)
    try:
        token = session.fetch_token("https://token.test/token", grant_type="client_credentials", scope="read & write")
        print(f"{case}: {token['token_type']} {token['scope']} {len(token['access_token'])}", flush=True)
    except Exception as e:
        print(f"{case}: {type(e).__name__}: {str(e)[:300]!r}", flush=True)
