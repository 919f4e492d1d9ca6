// A program of Node.js that speaks light_rpc over TLS, with what Node.js has itself. Arguments: `PORT CA [CERTIFICATE KEY]`.
// Prints one line of JSON for each thing that it found.
'use strict';
const fs = require('fs');
const tls = require('tls');

const [port, ca, certificate, key] = process.argv.slice(2);
const say = (what, value) => process.stdout.write(JSON.stringify([what, value]) + '\n');
const options = { host: 'localhost', port: Number(port), ca: fs.readFileSync(ca) };
if (certificate) {
  Object.assign(options, { cert: fs.readFileSync(certificate), key: fs.readFileSync(key) });
}
const socket = tls.connect(options, () => say('authorized', socket.authorized));
socket.on('error', (error) => {
  say('error', error.code);
  process.exit(0);
});
const send = (packet) => {
  const json = JSON.stringify(packet);
  socket.write(`${Buffer.byteLength(json)}\n${json}`);
};
let heard = Buffer.alloc(0);
socket.on('data', (bytes) => {
  heard = Buffer.concat([heard, bytes]);
  for (;;) {
    const end = heard.indexOf('\n');
    const length = Number(heard.subarray(0, end));
    if (end < 0 || heard.length < end + 1 + length) {
      return;
    }
    take(JSON.parse(heard.subarray(end + 1, end + 1 + length)));
    heard = heard.subarray(end + 1 + length);
  }
});
const text = 'é'.repeat(300000);
const take = ({ command, data }) => {
  if (command === '__D') {
    say('functions', Object.keys(data));
    send({ command: 'echo', data: { id: 'long', args: [text] } });
  } else if (command === '__R') {
    say('echo', data.args[0][0] === text || data.args[0] === text);
    socket.end();
    process.exit(0);
  }
};
send({ command: '__D' });
setTimeout(() => process.exit(1), 25000);
