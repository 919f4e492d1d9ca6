// The original dnode as a client of a gateway. Arguments: the port, and `result` or `error-first`.
// Prints one line of JSON for each thing that it found, and ends.
'use strict';
const dnode = require('dnode');

const [port, style] = process.argv.slice(2);
const say = (what, value) => process.stdout.write(JSON.stringify([what, value]) + '\n');

// What a result callback gets, whichever style the gateway has: [error, result].
const outcome = (done) =>
  style === 'error-first'
    ? (error, result) => done(error || null, result)
    : (result, error) => done(error || null, result);

const d = dnode({}, { weak: false });
d.on('remote', async (remote) => {
  const call = (name, ...args) =>
    new Promise((resolve) => remote[name](...args, outcome((error, result) => resolve([error, result]))));
  say('functions', Object.keys(remote).sort());
  say('add', await call('add', 20, 22));
  say('echo', await call('echo', ['é☃😀', 9007199254740991, -1.5e-7, null, [[[]]], { k: { l: [true, false] } }]));
  say('boom', await call('boom'));
  // A function that a Rust responder calls three times; it has no result.
  const heard = [];
  say('three', await call('three', (number) => heard.push(number)));
  say('heard', heard);
  // One that has a result, deep inside of an argument.
  say('deep', await call('deep', { on: { fn: (number, done) => (style === 'error-first' ? done(null, number + 1) : done(number + 1)) } }));
  // A function that comes from Rust.
  const [, counter] = await call('counter');
  const count = (by) => new Promise((resolve) => counter(by, outcome((error, result) => resolve(result))));
  say('counter', [await count(2), await count(3)]);
  // Many at once.
  let next = 0;
  let right = 0;
  await Promise.all(
    Array.from({ length: 1000 }, async () => {
      while (next < 10000) {
        const number = next++;
        const [error, result] = await call('add', number, 1);
        right += error === null && result === number + 1;
      }
    }),
  );
  say('right', right);
  d.end();
  process.exit(0);
});
d.on('error', (error) => say('error', String(error)));
d.on('fail', (error) => say('fail', String(error)));
d.connect(Number(port));
setTimeout(() => {
  say('late', null);
  process.exit(1);
}, 25000);
