"""An OAuth token endpoint, by authlib: oauth_server.py ADDRESS PORT SECRET. It says `ready`."""
import hmac, os, sys

os.environ["AUTHLIB_INSECURE_TRANSPORT"] = "1"  # TLS ends in front of it.
from authlib.integrations.flask_oauth2 import AuthorizationServer
from authlib.oauth2.rfc6749 import ClientMixin, grants
from flask import Flask
from werkzeug.serving import make_server

address, port, secret = sys.argv[1:]


class Robot(ClientMixin):
    def get_client_id(self):
        return "robot"

    def get_default_redirect_uri(self):
        return None

    def get_allowed_scope(self, scope):
        return scope or ""

    def check_client_secret(self, shown):
        return hmac.compare_digest(shown.encode(), secret.encode())

    def check_endpoint_auth_method(self, method, endpoint):
        return method in ("client_secret_post", "client_secret_basic")

    def check_grant_type(self, grant):
        return grant == "client_credentials"


class Grant(grants.ClientCredentialsGrant):
    TOKEN_ENDPOINT_AUTH_METHODS = ["client_secret_post", "client_secret_basic"]


app = Flask("token")
app.config["SECRET_KEY"] = "for nothing"
server = AuthorizationServer(app, query_client=lambda name: Robot() if name == "robot" else None, save_token=lambda *of: None)
server.register_grant(Grant)


@app.post("/token")
def token():
    return server.create_token_response()


listening = make_server(address, int(port), app, threaded=True)
print("ready", flush=True)
listening.serve_forever()
