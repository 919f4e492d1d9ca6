// The original dnode as a client of a gateway whose result callbacks take a result. Argument: the port.
// Prints one line of JSON for each thing that it found, and ends.
'use strict';
const dnode = require('dnode');

const say = (what, value) => process.stdout.write(JSON.stringify([what, value]) + '\n');

const d = dnode({}, { weak: false });
d.on('remote', async (remote) => {
  const call = (name, ...args) =>
    new Promise((resolve) => remote[name](...args, (result, error) => resolve(error || result)));
  say('integers', await call('integers', 2 ** 60, -(2 ** 63), 2 ** 53 + 2));
  say('keys', JSON.stringify(await call('in_order', { z: 1, a: { y: 2, b: 3 }, 10: 4 })));
  say('data', await call('echo', { $callback: 0 }));
  say('data beside a function', await call('beside', () => {}, { $callback: 0 }));
  // The only function is an argument, and the action takes it.
  const heard = [];
  await new Promise((resolve) => {
    remote.three((...all) => {
      heard.push(all);
      if (heard.length === 3) resolve();
    });
  });
  // What an unwanted result would be told by.
  await call('echo', 1);
  say('heard', heard);
  say('long', (await call('echo', 'x'.repeat(40000000))).name);
  // As many arguments as cut the connection once.
  const many = Array.from({ length: 50 }, () => 'x'.repeat(400000));
  say('many', (await call('echo', many)).name);
  say('many of them', await Promise.all(many.map((text) => call('len', text))).then((all) => all.length));
  say('after', await call('echo', 'here'));
  d.end();
  process.exit(0);
});
d.on('error', (error) => say('error', String(error)));
d.on('fail', (error) => say('fail', String(error)));
d.connect(Number(process.argv[2]));
setTimeout(() => {
  say('late', null);
  process.exit(1);
}, 25000);
