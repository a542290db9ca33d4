// A chat over HTTP/1.1: sends back each text. Lists what it saw: chat.js LOG KEY CERT ADDRESS
const [, , log, key, cert, address] = process.argv;
const crypto = require('crypto'), fs = require('fs'), https = require('https');
const tell = (line) => fs.appendFileSync(log, line + '\n');
const server = https.createServer({ key: fs.readFileSync(key), cert: fs.readFileSync(cert) }, (request, response) => {
  tell(`request ${request.method} ${request.url}`);
  response.end('a page');
});
server.on('upgrade', (request, socket) => {
  const fields = request.headers;
  tell(`socket ${request.method} ${request.url} HTTP/${request.httpVersion} ${fields.authorization}`);
  const accept = crypto.createHash('sha1').update(fields['sec-websocket-key'] + '258EAFA5-E914-47DA-95CA-C5AB0DC85B11');
  socket.write('HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n' +
    `Sec-WebSocket-Accept: ${accept.digest('base64')}\r\n\r\n`);
  let read = Buffer.alloc(0);
  socket.on('error', () => {});
  socket.on('data', (data) => {
    read = Buffer.concat([read, data]);
    while (read.length >= 6 && read.length >= 6 + (read[1] & 127)) {
      const size = read[1] & 127, mask = read.subarray(2, 6), text = Buffer.from(read.subarray(6, 6 + size));
      for (let i = 0; i < size; i++) text[i] ^= mask[i % 4];
      if ((read[0] & 15) === 1) {
        tell(`message ${text}`);
        socket.write(Buffer.concat([Buffer.from([0x81, size]), text]));
      }
      read = read.subarray(6 + size);
    }
  });
});
server.listen(443, address);
