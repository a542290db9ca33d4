// An MCP client by the official SDK, with what the sandbox gives.
const { Client } = require("@modelcontextprotocol/sdk/client/index.js");
const { StreamableHTTPClientTransport } = require("@modelcontextprotocol/sdk/client/streamableHttp.js");
const { ToolListChangedNotificationSchema } = require("@modelcontextprotocol/sdk/types.js");

const say = (name, text) => console.log(`${name}: ${String(text).replaceAll("\n", " ")}`);
const attempt = async (name, body) => {
  try {
    say(name, await body());
  } catch (e) {
    say(name, `${e.name} ${e.message}`);
  }
};

(async () => {
  const client = new Client({ name: "agent", version: "1.0.0" });
  const transport = new StreamableHTTPClientTransport(new URL("https://tools.test/mcp"));
  const changed = new Promise((done) => client.setNotificationHandler(ToolListChangedNotificationSchema, done));
  await client.connect(transport);
  const call = async (name, args, options) =>
    (await client.callTool({ name, arguments: args }, undefined, options)).content[0].text;

  await attempt("list", async () => (await client.listTools()).tools.map((tool) => tool.name).join(" "));
  await attempt("read", () => call("read_file", { path: "/data/a" }));
  await attempt("outside", () => call("read_file", { path: "/etc/passwd" }));
  await attempt("delete", () => call("delete_file", { path: "/data/a" }));
  const steps = [];
  const onprogress = ({ progress }) => steps.push(progress);
  await attempt("count", async () => `${await call("count", { to: 3 }, { onprogress })} after ${steps}`);
  await attempt("poke", () => call("poke", {}));
  await attempt("changed", async () => (await changed).method);
  await attempt("resources", async () => (await client.request({ method: "resources/list" }, { parse: (r) => r })));
  await attempt("again", () => call("read_file", { path: "/data/b" }));
  await attempt("end", async () => (await transport.terminateSession(), "ended"));
  await client.close();
  process.exit(0);
})().catch((e) => {
  console.error(e);
  process.exit(1);
});
