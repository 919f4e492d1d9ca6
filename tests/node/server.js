// The original dnode as a server, for a bridge. Prints its port, and runs until its stdin ends.
'use strict';
const dnode = require('dnode');
const net = require('net').createServer();

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
