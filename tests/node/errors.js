// The originals of dnode and light_rpc, which throw errors, and which hear what others threw. Arguments: `server PROTOCOL`, which prints its
// port and runs until its stdin ends; or `client PROTOCOL PORT ACTION`, which calls the action for each value, prints how many came as they
// were thrown, and ends.
'use strict';
const assert = require('assert');
const net = require('net');
const uuid = require('uuid');
uuid.generate = uuid.v4;
const dnode = require('dnode');
const light_rpc = require('nodejs-light_rpc');

// As JSON, since both protocols write it.
const thrown = [
  { errno: -2, code: 'ENOENT', left: 3 },
  { name: 'REQUEST_TIMEOUT', message: 'no reply came', code: 2 },
  { code: 5, message: 'five' },
  { code: 7, name: 'Mine', deep: { list: [1, { a: null }] } },
  { code: -1.5, message: 'minus', stack: 'here' },
  { code: 1e21, message: 'much' },
  'bad',
  ['bad', 1],
  42,
];

const [role, protocol, port, action] = process.argv.slice(2);
if (role === 'server') {
  console.log = () => {};
  const started = (server) => server.listen(0, '127.0.0.1', () => process.stdout.write(`${server.address().port}\n`));
  if (protocol === 'dnode') {
    const server = net.createServer((stream) => {
      const d = dnode({ fail: (number, done) => done(thrown[number]) }, { weak: false });
      stream.on('error', () => {});
      d.on('error', () => {});
      stream.pipe(d).pipe(stream);
    });
    started(server);
  } else {
    started(
      light_rpc({
        fail: (number) => {
          throw thrown[number];
        },
      }).getServer(),
    );
  }
  process.stdin.on('end', () => process.exit(0)).resume();
} else {
  const hear = async (call) => {
    let same = 0;
    for (let number = 0; number < thrown.length; number++) {
      assert.deepStrictEqual(await call(number), thrown[number]);
      same += 1;
    }
    process.stdout.write(`${JSON.stringify({ same })}\n`);
    process.exit(0);
  };
  const failed = (error) => {
    process.stdout.write(`${JSON.stringify(String((error && error.stack) || error))}\n`);
    process.exit(1);
  };
  if (protocol === 'dnode') {
    const d = dnode({}, { weak: false });
    d.on('remote', (remote) =>
      hear((number) => new Promise((resolve) => remote[action](number, resolve))).catch(failed),
    );
    d.connect(Number(port));
  } else {
    light_rpc.connect(Number(port), '127.0.0.1', (remote) =>
      hear((number) => new Promise((resolve) => remote[action](number, resolve))).catch(failed),
    );
  }
}
setTimeout(() => process.exit(1), 25000);
