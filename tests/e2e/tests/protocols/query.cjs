// A GraphQL client by graphql-request, with what the sandbox gives.
const crypto = require("crypto");
const { GraphQLClient } = require("graphql-request");

const url = "https://graph.test/graphql";
const client = new GraphQLClient(url);
const attempt = async (name, body) => {
  try {
    console.log(`${name}: ${JSON.stringify(await body())}`);
  } catch (e) {
    const { status, reason, detail } = e.response ?? {};
    console.log(`${name}: ${status ?? e.message} ${reason} ${detail}`);
  }
};
const persisted = async (query, sent) => {
  const sha256Hash = crypto.createHash("sha256").update(query).digest("hex");
  const body = JSON.stringify({ query: sent, extensions: { persistedQuery: { version: 1, sha256Hash } } });
  const response = await fetch(url, { method: "POST", headers: { "content-type": "application/json" }, body });
  const told = await response.json();
  return response.ok ? told.data : `${response.status} ${told.reason} ${told.detail}`;
};

(async () => {
  const fragment = (field) => `query { ...Some } fragment Some on Query { ${field} }`;
  await attempt("query", () => client.request("{ viewer { login } }"));
  await attempt("variables", () =>
    client.request("query Named($n: String) { repository(name: $n) { name } }", { n: "r" }));
  await attempt("alias", () => client.request("{ me: viewer { login } }"));
  await attempt("alias_denied", () => client.request("{ viewer: secrets }"));
  await attempt("fragment", () => client.request(fragment("viewer { login }")));
  await attempt("fragment_denied", () => client.request(fragment("secrets")));
  await attempt("mutation", () => client.request('mutation { star(name: "r") { name } }'));
  await attempt("mutation_denied", () => client.request('mutation { remove(name: "r") { name } }'));
  await attempt("batch", () =>
    client.batchRequests([{ document: "{ viewer { login } }" }, { document: '{ repository(name: "b") { name } }' }]));
  await attempt("batch_denied", () =>
    client.batchRequests([{ document: "{ viewer { login } }" }, { document: "{ secrets }" }]));
  await attempt("persisted", () => persisted("{ viewer { login } }", "{ viewer { login } }"));
  await attempt("hash_denied", () => persisted("{ viewer { login } }", undefined));
  await attempt("lie_denied", () => persisted("{ viewer { login } }", "{ viewer { login }}"));
  await attempt("get", async () => (await (await fetch(`${url}?query=${encodeURIComponent("{viewer{login}}")}`)).json()).data);
})();
