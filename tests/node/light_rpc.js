// The original light_rpc that npm has, 0.1. Arguments: `client PORT`, or `server`, which prints its port and runs until its stdin ends.
// Prints one line of JSON for each thing that it found.
'use strict';
// It asks for a function that its dependency has under another name by now.
const uuid = require('uuid');
uuid.generate = uuid.v4;
const light_rpc = require('nodejs-light_rpc');

const [role, port] = process.argv.slice(2);
const say = (what, value) => process.stdout.write(JSON.stringify([what, value]) + '\n');

if (role === 'client') {
  light_rpc.connect(Number(port), '127.0.0.1', async (remote, connection) => {
    const call = (name, ...args) => new Promise((resolve) => remote[name](...args, (...results) => resolve(results)));
    say('functions', Object.keys(remote).sort());
    const values = ['é☃😀', 9007199254740991, -1.5e-7, null, [[[]]], { k: { l: [true, false] } }, 'x'.repeat(200000)];
    const [back] = await call('echo', ...values);
    say('echo', JSON.stringify(back) === JSON.stringify(values));
    say('half', await call('echo', 'a\ud83d'));
    say('boom', await call('boom'));
    const [long] = await call('echo', 'x'.repeat(20000000));
    say('long', long.name);
    say('data', await call('echo', { $callback: 0 }));
    say('integers', await call('integers', 2 ** 60, -(2 ** 63)));
    let next = 0;
    let right = 0;
    const caller = async () => {
      while (next < 10000) {
        const number = next++;
        const [sum] = await call('combine', number, 1);
        right += sum === number + 1;
      }
    };
    await Promise.all(Array.from({ length: 1000 }, caller));
    say('right', right);
    connection.end();
    process.exit(0);
  });
} else {
  const server = light_rpc({
    add: (one, other, done) => done(one + other),
    echo: (value, done) => done(value),
    pair: (one, done) => done(one, 'second'),
    boom: () => {
      throw new Error('bad');
    },
    silent: () => {},
  }).getServer();
  // What it would print itself.
  console.log = () => {};
  server.listen(0, '127.0.0.1', () => process.stdout.write(`${server.address().port}\n`));
  process.stdin.on('end', () => process.exit(0)).resume();
}
setTimeout(() => process.exit(1), 25000);
