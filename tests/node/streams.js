// The original dnode as a client that reads streams through a gateway. Argument: the port.
// Prints one line of JSON for each thing that it found, and ends.
'use strict';
const dnode = require('dnode');

const [port] = process.argv.slice(2);
const say = (what, value) => process.stdout.write(JSON.stringify([what, value]) + '\n');

const d = dnode({}, { weak: false });
d.on('remote', async (remote) => {
  // The items of a stream, and what its last function got.
  const read = (name, ...args) =>
    new Promise((resolve) => {
      const items = [];
      remote[name](
        ...args,
        (item) => items.push(item),
        (...end) => resolve([items, end]),
      );
    });
  say('count', await read('count', 5));
  const [many, end] = await read('count', 20000);
  say('many', [many.length, many.every((number, at) => number === at + 1), end]);
  const [words, [, error]] = await read('fails', 2);
  say('fails', [words, error]);
  // Without a function for the items.
  say('alone', await new Promise((resolve) => remote.count(1, (result, error) => resolve([result, error]))));
  // A stream without an end, until it is stopped.
  say(
    'stopped',
    await new Promise((resolve) => {
      const items = [];
      remote.forever(
        (item, stop) => {
          if (items.push(item) === 3) stop();
        },
        (...end) => resolve([items.slice(0, 3), end]),
      );
    }),
  );
  // A stream that goes the other way: a function that the mesh reads as one.
  say(
    'sum',
    await new Promise((resolve) =>
      remote.sum((each, done) => {
        for (let number = 1; number <= 1000; number++) each(number);
        done(null);
      }, resolve),
    ),
  );
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
