// A GraphQL server over WebSocket by graphql-ws: subscriptions.cjs ADDRESS CERTIFICATE KEY LOG.
const fs = require("fs");
const https = require("https");
const { buildSchema } = require("graphql");
const { useServer } = require("graphql-ws/lib/use/ws");
const { WebSocketServer } = require("ws");

const [address, cert, key, log] = process.argv.slice(2);
const note = (name) => fs.appendFileSync(log, name + "\n");
const schema = buildSchema(`
  type Query { viewer: String, secrets: String }
  type Subscription { ticks: Int, leaks: String }
`);
const roots = {
  query: { viewer: () => (note("viewer"), "me"), secrets: () => (note("secrets"), "hush") },
  subscription: {
    ticks: async function* () {
      note("ticks");
      for (let ticks = 1; ticks <= 3; ticks++) yield { ticks };
    },
    leaks: async function* () {
      note("leaks");
      yield { leaks: "hush" };
    },
  },
};
const server = https.createServer({ cert: fs.readFileSync(cert), key: fs.readFileSync(key) });
useServer({ schema, roots }, new WebSocketServer({ server, path: "/graphql" }));
server.listen(443, address, () => console.log("ready"));
