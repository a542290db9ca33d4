// A chat over HTTP/2 (RFC 8441): chat-client.js ORIGIN, then words: `+PATH` opens a WebSocket, `!PROTOCOL` asks for
// another protocol, and a text is said on the last one.
const http2 = require('http2');
const [, , origin, ...words] = process.argv;
const session = http2.connect(origin);
let last;
const frame = (text) => {
  const bytes = Buffer.from(text);
  return Buffer.concat([Buffer.from([0x81, 0x80 | bytes.length, 0, 0, 0, 0]), bytes]);
};
const open = (path, protocol) => new Promise((done) => {
  const fields = { ':method': 'CONNECT', ':protocol': protocol, ':path': path, 'sec-websocket-version': '13' };
  if (process.env.TOKEN) fields.authorization = `Bearer ${process.env.TOKEN}`;
  const stream = session.request(fields, { endStream: false });
  stream.on('error', (e) => console.log('error', e.code));
  stream.on('response', (headers) => {
    console.log(path, protocol, headers[':status']);
    last = stream;
    done();
  });
});
const say = (text) => new Promise((done) => {
  last.once('data', (data) => {
    const code = (data[0] & 15) === 8 ? `closed ${data.readUInt16BE(2)} ` : '';
    console.log('heard', code + data.subarray(code ? 4 : 2));
    done();
  });
  last.write(frame(text));
});
session.on('error', (e) => console.log('error', e.code));
session.once('remoteSettings', async (settings) => {
  console.log('offered', settings.enableConnectProtocol);
  for (const word of words) {
    if (word[0] === '+') await open(word.slice(1), 'websocket');
    else if (word[0] === '!') await open('/chat', word.slice(1));
    else await say(word);
  }
  process.exit(0);
});
