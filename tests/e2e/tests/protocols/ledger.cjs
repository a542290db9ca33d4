// A JSON-RPC server over HTTP by jayson: ledger.cjs ADDRESS CERTIFICATE KEY LOG.
const fs = require("fs");
const jayson = require("jayson/promise");

const [address, cert, key, log] = process.argv.slice(2);
const noting = (name, answer) => async (args) => (fs.appendFileSync(log, name + "\n"), answer(args));
const server = new jayson.Server({
  "balance.get": noting("balance.get", ([account]) => `${account}: 7`),
  "balance.list": noting("balance.list", () => [7, 8]),
  "balance.set": noting("balance.set", () => "set"),
});
server
  .https({ cert: fs.readFileSync(cert), key: fs.readFileSync(key) })
  .listen(443, address, () => console.log("ready"));
