// An MCP server by the official SDK over Streamable HTTP: tools.cjs ADDRESS CERTIFICATE KEY LOG.
const fs = require("fs");
const https = require("https");
const crypto = require("crypto");
const { McpServer } = require("@modelcontextprotocol/sdk/server/mcp.js");
const { StreamableHTTPServerTransport } = require("@modelcontextprotocol/sdk/server/streamableHttp.js");
const { z } = require("zod");

const [address, cert, key, log] = process.argv.slice(2);
const note = (line) => fs.appendFileSync(log, line + "\n");
const text = (text) => ({ content: [{ type: "text", text }] });

function server() {
  const server = new McpServer({ name: "tools", version: "1.0.0" });
  server.registerTool("read_file", { inputSchema: { path: z.string() } }, ({ path }) => text(`contents of ${path}`));
  server.registerTool("delete_file", { inputSchema: { path: z.string() } }, ({ path }) => text(`deleted ${path}`));
  server.registerTool("count", { inputSchema: { to: z.number() } }, async ({ to }, { sendNotification, _meta }) => {
    for (let progress = 1; progress <= to; progress++) {
      await new Promise((done) => setTimeout(done, 50));
      if (_meta?.progressToken !== undefined) {
        const params = { progressToken: _meta.progressToken, progress, total: to };
        await sendNotification({ method: "notifications/progress", params });
      }
    }
    return text(`counted to ${to}`);
  });
  // Answers over the call's stream, and tells of it over the one that the client opened by GET.
  server.registerTool("poke", { inputSchema: {} }, async () => {
    server.sendToolListChanged();
    return text("poked");
  });
  return server;
}

const sessions = new Map();
https
  .createServer({ cert: fs.readFileSync(cert), key: fs.readFileSync(key) }, async (request, response) => {
    let body = "";
    for await (const piece of request) body += piece;
    const message = body ? JSON.parse(body) : undefined;
    const { name = "", arguments: args } = message?.params ?? {};
    note(`${request.method} ${message?.method ?? ""} ${name} ${args ? JSON.stringify(args) : ""}`.trim());
    let transport = sessions.get(request.headers["mcp-session-id"]);
    if (!transport) {
      transport = new StreamableHTTPServerTransport({
        sessionIdGenerator: () => crypto.randomUUID(),
        onsessioninitialized: (id) => sessions.set(id, transport),
      });
      await server().connect(transport);
    }
    await transport.handleRequest(request, response, message);
  })
  .listen(443, address, () => console.log("ready"));
