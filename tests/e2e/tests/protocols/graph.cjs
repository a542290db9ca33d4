// A GraphQL server by graphql-yoga, with batches and persisted queries: graph.cjs ADDRESS CERTIFICATE KEY LOG.
const fs = require("fs");
const https = require("https");
const { createSchema, createYoga } = require("graphql-yoga");
const { useAPQ } = require("@graphql-yoga/plugin-apq");

const [address, cert, key, log] = process.argv.slice(2);
const noting = (name, value) => (_, args) => {
  fs.appendFileSync(log, name + "\n");
  return typeof value === "function" ? value(args) : value;
};
const schema = createSchema({
  typeDefs: `
    type User { login: String }
    type Repository { name: String }
    type Query { viewer: User, repository(name: String): Repository, secrets: [String] }
    type Mutation { star(name: String): Repository, remove(name: String): Repository }
  `,
  resolvers: {
    Query: {
      viewer: noting("viewer", { login: "me" }),
      repository: noting("repository", ({ name }) => ({ name })),
      secrets: noting("secrets", ["hush"]),
    },
    Mutation: { star: noting("star", ({ name }) => ({ name })), remove: noting("remove", ({ name }) => ({ name })) },
  },
});
const yoga = createYoga({ schema, batching: true, plugins: [useAPQ()], logging: false });
https
  .createServer({ cert: fs.readFileSync(cert), key: fs.readFileSync(key) }, yoga)
  .listen(443, address, () => console.log("ready"));
