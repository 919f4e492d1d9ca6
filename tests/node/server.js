// The original dnode as a server, for a bridge. Prints its port, and runs until its stdin ends.
'use strict';
const dnode = require('dnode');
const net = require('net').createServer();

const kept = [];
const counted = [];

net.on('connection', (stream) => {
  const d = dnode(
    {
      timesTen: (number, done) => done(number * 10),
      echo: (value, done) => done(value),
      each: (list, each, done) => {
        list.forEach((value) => each(value));
        done(list.length);
      },
      // Calls a function of the mesh and gives its result.
      ask: (number, ask, done) => ask(number, (result) => done(result)),
      silent: () => {},
      // Fails as programs with one result do.
      fail: (done) => done(null, Object.assign(new Error('it went off'), { name: 'Boom', code: 'EBOOM' })),
      throwing: (done) => done(null, new Error('bad')),
      pair: (done) => done(null, { message: 'hi', from: 'bob' }),
      // Keeps all functions.
      keep: (list, done) => done(kept.push(...list)),
      // How many arguments a function gets that has no result.
      arguments: (call, done) => {
        call(1);
        done(null);
      },
      // A function without a result, which tells how many arguments it got.
      counter: (done) => done((...all) => counted.push(all.length)),
      counted: (done) => done(counted),
      'a/**': (done) => done('itself'),
      // A stream: each item is a call of its last function but one, and the end a call of the last.
      numbers: (to, each, done) => {
        for (let number = 1; number <= to; number++) each(number);
        done(null);
      },
      // One that waits until the item before has left.
      paced: (to, each, done) => {
        let number = 0;
        const next = () => (number < to ? each({ number: ++number }, next) : done(null, new Error('over')));
        next();
      },
      // Reads a stream.
      sum: (numbers, done) => {
        let sum = 0;
        numbers(
          (number) => (sum += number),
          (end, error) => (error ? done(null, error) : done(sum)),
        );
      },
      // Reads the first items of a stream only.
      first: (count, numbers, done) => {
        const first = [];
        numbers(
          (number, stop) => {
            if (first.push(number) === count) stop();
          },
          (end) => done(first.slice(0, count)),
        );
      },
      math: { add: (one, other, done) => done(one + other) },
    },
    { weak: false },
  );
  stream.on('error', () => {});
  d.on('error', () => {});
  d.on('fail', () => {});
  stream.pipe(d).pipe(stream);
});
net.listen(0, '127.0.0.1', () => process.stdout.write(`${net.address().port}\n`));
process.stdin.resume();
process.stdin.on('end', () => process.exit(0));
