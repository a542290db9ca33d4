"""A GraphQL client by gql, with what the sandbox gives."""
from gql import Client, GraphQLRequest, gql
from gql.transport.requests import RequestsHTTPTransport

client = Client(transport=RequestsHTTPTransport("https://graph.test/graphql", timeout=20))


def attempt(name, body):
    try:
        print(f"{name}: {body()}")
    except Exception as e:
        print(f"{name}: {type(e).__name__} {e}".replace("\n", " "))


attempt("py_query", lambda: client.execute(gql("{ viewer { login } }")))
attempt("py_denied", lambda: client.execute(gql("{ viewer { login } secrets }")))
attempt("py_batch", lambda: client.execute_batch([GraphQLRequest(gql("{ viewer { login } }"))] * 2))
