// Logs every request: node.js LOG KEY CERT ADDRESS
const [, , log, key, cert, address] = process.argv;
const fs = require('fs'), http = require('http'), http2 = require('http2');
function serve(request, response) {
  let body = 0, told = false;
  const tell = (cut) => {
    if (told) return;
    told = true;
    const host = request.headers[':authority'] || request.headers.host || '';
    fs.appendFileSync(log, JSON.stringify({ line: `${request.method} ${request.url}`, host, body, cut }) + '\n');
  };
  request.on('data', (data) => { body += data.length; });
  request.on('end', () => { tell(false); response.end('ok'); });
  request.on('aborted', () => tell(true));
  request.on('error', () => tell(true));
}
const tls = { allowHTTP1: true, key: fs.readFileSync(key), cert: fs.readFileSync(cert) };
http2.createSecureServer(tls, serve).listen(443, address);
http.createServer(serve).listen(80, address);
