// A GraphQL client over WebSocket by graphql-ws, with what the sandbox gives. It dials directly: `ws` knows no proxy.
const { createClient } = require("graphql-ws");
const WebSocket = require("ws");

// A connection for each operation: a refusal closes the one that carried it.
const ask = async (name, query) => {
  const client = createClient({ url: "wss://graph.test/graphql", webSocketImpl: WebSocket, retryAttempts: 0 });
  const said = await new Promise((done) => {
    const values = [];
    client.subscribe(
      { query },
      {
        next: ({ data }) => values.push(JSON.stringify(data)),
        error: (e) => done(`${e.code} ${e.reason ?? e.message}`),
        complete: () => done(values.join(" ")),
      },
    );
  });
  console.log(`${name}: ${said}`);
  client.dispose();
};

(async () => {
  await ask("socket_query", "{ viewer }");
  await ask("socket_ticks", "subscription { ticks }");
  await ask("socket_alias", "subscription { leak: ticks }");
  await ask("socket_secrets", "{ viewer secrets }");
  await ask("socket_leaks", "subscription { ticks: leaks }");
})();
