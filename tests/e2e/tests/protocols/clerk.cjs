// A JSON-RPC client over HTTP by jayson, with what the sandbox gives. It dials directly: jayson knows no proxy.
const jayson = require("jayson/promise");

const client = jayson.Client.https({ host: "ledger.test", port: 443, path: "/rpc" });
const attempt = async (name, body) => {
  try {
    console.log(`${name}: ${JSON.stringify(await body())}`);
  } catch (e) {
    console.log(`${name}: ${e.code} ${String(e.message).replaceAll("\n", " ")}`);
  }
};
const call = (method, ...args) => client.request(method, args, undefined, false);

(async () => {
  await attempt("rpc_get", async () => await client.request([call("balance.get", "ann")]).then((r) => r[0].result));
  await attempt("rpc_one", async () => (await client.request("balance.get", ["bob"])).result);
  await attempt("rpc_batch", async () =>
    (await client.request([call("balance.get", "c"), call("balance.list")])).map((answer) => answer.result),
  );
  await attempt("rpc_set", async () => (await client.request("balance.set", ["ann", 0])).result);
  await attempt("rpc_hidden", async () =>
    (await client.request([call("balance.get", "d"), call("balance.set", "d", 0)])).map((answer) => answer.result),
  );
  await attempt("rpc_after", async () => (await client.request("balance.list", [])).result);
})();
